"""What a rule is: where it is asked, what it answers, and what is remembered of its work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from compiler_service.schedules.machines import Cpu, Gpu

if TYPE_CHECKING:
    from crossfarm.ir.function import PrimFunc
    from crossfarm.ir.schedule.schedule import Schedule
    from crossfarm.target import Target


@dataclass(frozen=True)
class Site:
    """A block that no rule has scheduled yet, and what surrounds it.

    Attributes:
        schedule: holds the one function ``function``; for ``match`` to look at and for ``apply`` to change.
        block: name of the block asked about; it has no block inside, and none but the root block around it.
        open_blocks: names of all blocks that are still unscheduled, ``block`` among them, in program order.
        target: resolved.
        machine: what the rules' parameters are computed from.
    """

    schedule: Schedule
    function: str
    block: str
    open_blocks: tuple[str, ...]
    target: Target
    machine: Cpu | Gpu

    @property
    def cpu(self) -> Cpu:
        """The machine, of a CPU target."""
        assert isinstance(self.machine, Cpu), self.machine
        return self.machine

    @property
    def gpu(self) -> Gpu:
        """The machine, of a GPU target."""
        assert isinstance(self.machine, Gpu), self.machine
        return self.machine

    @property
    def func(self) -> PrimFunc:
        """The function as it is now."""
        return self.schedule.module.prim_func(self.function)


@dataclass(frozen=True)
class Fit:
    """A rule's yes.

    Attributes:
        blocks: names of the open blocks that the rule will schedule, the site's among them.
        reason: why it fits and what was chosen: a sentence for people, as ``crossfarm explain`` prints it.
    """

    blocks: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Refusal:
    """A rule's no, and why: ``"the block has no reduction axis"``."""

    reason: str


class Rule(Protocol):
    """One way to schedule a family of blocks; a frozen dataclass whose fields are parameters, None for the target's.

    ``match`` only looks. ``apply`` uses Schedule's primitives and nothing else, so that its trace replays.
    """

    name: ClassVar[str]

    def match(self, site: Site) -> Fit | Refusal:
        """Whether the rule schedules the site's block.

        Raises:
            BuildFailed: a parameter that was set by hand exceeds what the target has.
        """
        ...

    def apply(self, site: Site, fit: Fit) -> None:
        """Schedules ``fit.blocks`` in ``site.schedule``. Raises ScheduleError where a primitive refuses."""
        ...


@dataclass(frozen=True)
class Choice:
    """What was decided for a block.

    Attributes:
        block: its name, ``""`` for a function as a whole.
        blocks: all blocks that the rule took along, ``block`` among them.
        rule: the rule's name, ``""`` where the block stays as it is written.
        reason: why.
        refused: (rule, reason) of those asked before it.
    """

    function: str
    block: str
    rule: str
    reason: str
    blocks: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
