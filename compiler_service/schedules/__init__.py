"""How a target runs loops well: rules that schedule block form before it is lowered.

``cpu`` and ``gpu`` hold a list each, the most specific rule first. Each block of a function goes to the first rule that
fits it; a rule may take more blocks along (a matmul its bias and activation). A function that somebody scheduled
already is left alone.
``choose_schedules`` says what was chosen and why; the pass ``schedule_default`` keeps only the module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from compiler_service.schedules import cpu, gpu
from compiler_service.schedules.base import Choice, Refusal, Rule, Site
from compiler_service.schedules.machines import Cpu, Gpu, machine_of
from crossfarm.errors import BuildFailed, ScheduleError
from crossfarm.ir.calls import is_caller
from crossfarm.ir.expr import IntImm
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.module import IRModule
from crossfarm.ir.schedule.schedule import Schedule
from crossfarm.ir.stmt import BlockRealize, For
from crossfarm.ir.visitor import walk

if TYPE_CHECKING:
    from crossfarm.ir.schedule.trace import Trace
    from crossfarm.target import Target

#: The rules of each kind of machine; a block goes to the first that fits.
RULES: dict[type[Cpu | Gpu], tuple[Rule, ...]] = {Cpu: cpu.RULES, Gpu: gpu.RULES}
#: Values of the build option besides the name of a rule: rules choose, or every loop runs as it is written.
DEFAULT, NONE = "default", "none"


@dataclass(frozen=True)
class Schedules:
    """The rules' work on a module.

    Attributes:
        module: scheduled.
        choices: one for each block or function that was decided on, in program order.
        traces: of each function that changed, by name.
    """

    module: IRModule
    choices: tuple[Choice, ...]
    traces: Mapping[str, Trace]


def choose_schedules(module: IRModule, target: Target, only: str = DEFAULT) -> Schedules:
    """Applies the rules to each function of ``module``.

    Args:
        only: the name of the one rule to apply; it must fit some block of the module.

    Raises:
        BuildFailed: ``only`` is no rule, fits no block, or demands more than the target has.
    """
    forced = only not in ("", DEFAULT)
    machine = machine_of(target)
    known = RULES[type(machine)]
    rules = () if only == NONE else (_rule_named(only, known),) if forced else known
    if not rules:
        return Schedules(module, (), {})
    functions, choices, traces = dict(module.functions), [], {}
    for name, func in module.prim_funcs.items():
        worker = _Function(name, func, target, machine)
        choices.extend(worker.schedule_with(rules))
        if worker.changed:
            functions[name], traces[name] = worker.schedule.module[name], worker.schedule.trace
    if forced and not any(choice.rule for choice in choices):
        reasons = "; ".join(f"{c.function}.{c.block}: {r}" for c in choices for _, r in c.refused)
        raise BuildFailed(
            f"rule {only!r} fits no block of module {module.name!r}: {reasons or 'it has none that is open'}",
            hint="build with schedule='default' to let the rules choose",
        )
    return Schedules(module.with_functions(functions) if traces else module, tuple(choices), traces)


def scheduled_by_hand(func: PrimFunc) -> str:
    """Why the rules leave ``func`` alone, or ``""`` where they may schedule it."""
    if is_caller(func):
        return "the function only calls others"
    if not isinstance(func.body, BlockRealize):
        return "the function is in lowered form"
    flag = func.attrs.get("tir.is_scheduled")
    if (isinstance(flag, IntImm) and flag.value) or flag is True:
        return "the function says tir.is_scheduled"
    depth = 0
    for node in walk(func.body.block.body):
        if isinstance(node, For) and node.kind != "serial":
            return f"loop {node.var.name!r} is {node.kind}"
        if isinstance(node, BlockRealize):
            if any(isinstance(inner, BlockRealize) for inner in walk(node.block.body)):
                return f"block {node.block.name!r} has blocks inside"
            depth += 1
    return "" if depth else "the function has no blocks"


class _Function:
    """One function on its way through the rules."""

    def __init__(self, name: str, func: PrimFunc, target: Target, machine: Cpu | Gpu) -> None:
        self.name, self.target, self.machine = name, target, machine
        self.by_hand = scheduled_by_hand(func)
        self.changed = False
        if not self.by_hand:
            self.schedule = Schedule(IRModule({name: func}))

    def schedule_with(self, rules: tuple[Rule, ...]) -> list[Choice]:
        if self.by_hand:
            return [Choice(self.name, "", "", self.by_hand)]
        root = self.schedule.module.prim_func(self.name).body
        order = [n.block.name for n in walk(root) if isinstance(n, BlockRealize) and n is not root]
        open_blocks = list(order)
        refused: dict[str, list[tuple[str, str]]] = {block: [] for block in order}
        choices: list[Choice] = []
        for rule in rules:
            for block in order:
                if block in open_blocks:
                    made = self._ask(rule, block, tuple(open_blocks), refused[block])
                    if made is not None:
                        choices.append(made)
                        open_blocks = [b for b in open_blocks if b not in made.blocks]
        choices.extend(
            Choice(self.name, block, "", "no rule fits it: it runs as written", (block,), tuple(refused[block]))
            for block in open_blocks
        )
        return sorted(choices, key=lambda choice: order.index(choice.block))

    def _ask(
        self, rule: Rule, block: str, open_blocks: tuple[str, ...], refused: list[tuple[str, str]]
    ) -> Choice | None:
        """The choice, and the schedule changed; None where the rule refuses, and the schedule as it was."""
        site = Site(self.schedule, self.name, block, open_blocks, self.target, self.machine)
        verdict = rule.match(site)
        if isinstance(verdict, Refusal):
            refused.append((rule.name, verdict.reason))
            return None
        attempt = self.schedule.copy()
        try:
            rule.apply(replace(site, schedule=attempt), verdict)
        except ScheduleError as failure:
            # the program is right as it stands: what the rule could not do is told, and the next rule is asked
            refused.append((rule.name, f"{failure.primitive} refused: {failure.reason}"))
            return None
        self.schedule, self.changed = attempt, True
        return Choice(self.name, block, rule.name, verdict.reason, verdict.blocks, tuple(refused))


def _rule_named(name: str, rules: tuple[Rule, ...]) -> Rule:
    for rule in rules:
        if rule.name == name:
            return rule
    known = ", ".join([DEFAULT, NONE, *(rule.name for rule in rules)])
    raise BuildFailed(f"there is no schedule {name!r}", hint=f"known are: {known}")
