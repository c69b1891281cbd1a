"""What every family of primitives stands on: the module being scheduled, its references, and the recording."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Concatenate, NoReturn

from crossfarm.errors import ScheduleError
from crossfarm.ir.expr import Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.module import IRModule
from crossfarm.ir.schedule.references import BlockRef, LoopRef, Sampled
from crossfarm.ir.schedule.trace import Instruction, Output, Trace
from crossfarm.ir.schedule.tree import find_block, find_loop, rename_duplicate_blocks
from crossfarm.ir.stmt import Block, For

#: A pure primitive: the function and its arguments (names for blocks, Vars for loops) → the new function and a result.
Primitive = Callable[Concatenate[PrimFunc, ...], "tuple[PrimFunc, Any]"]


class ScheduleBase:
    """A module under transformation.

    Attributes:
        module: the module as it is now; immutable, so keeping one is keeping that state.
        trace: the instructions applied so far.
    """

    def __init__(self, module: IRModule, *, seed: int | None = None) -> None:
        """Opens ``module``; block names are made unique in each function.

        Args:
            seed: of the ``sample_`` primitives; the same seed gives the same decisions.
        """
        self.module = module.with_functions({n: rename_duplicate_blocks(f) for n, f in module.functions.items()})
        self.trace = Trace()
        self._rng = random.Random(seed)
        self._numbers: dict[BlockRef | LoopRef, int] = {}
        self._samples: dict[int, tuple[Sampled, int]] = {}
        self._count = 0

    def get(self, ref: BlockRef | LoopRef) -> Block | For:
        """The block or loop that a reference means now. Raises ScheduleError where it is gone."""
        func = self.module[ref.func]
        return find_block(func, ref.name).block if isinstance(ref, BlockRef) else find_loop(func, ref.var)

    def _apply(self, primitive: Primitive, *args: Any, func: str | None = None, decision: Any = None) -> Any:
        """Runs a pure primitive on the function that the references in ``args`` are of, and records it.

        ``args`` are the public method's arguments in its order (the trace replays ``method(*args)``); the instruction
        has the primitive's ``__name__``, which is the method's. The primitive sees a block as its name, a loop as its
        Var. Of its result, a str becomes a BlockRef, a Var a LoopRef, a Sampled stays itself, a tuple is taken apart.

        Args:
            func: the function to change, where no reference says it.
            decision: recorded as the instruction's decision.
        """
        name = self._function_of(primitive.__name__, args, func)
        changed, result = primitive(self.module[name], *(_plain(arg) for arg in args))
        given = _referenced(result, name)
        recorded = tuple(self._recorded(arg) for arg in args)
        if changed is not self.module[name]:
            self.module = self.module.with_functions({**self.module.functions, name: changed})
        outputs = tuple(
            self._number(item) for item in (given if isinstance(given, tuple) else (given,)) if item is not None
        )
        self.trace.instructions.append(Instruction(primitive.__name__, recorded, outputs, decision))
        return given

    def _function_of(self, primitive: str, args: tuple[Any, ...], func: str | None) -> str:
        names = {ref.func for ref in _references(args)} | ({func} if func is not None else set())
        if len(names) == 1:
            return names.pop()
        if names:
            _refuse(primitive, f"its blocks and loops are of different functions: {', '.join(sorted(names))}")
        if len(self.module.functions) == 1:
            return next(iter(self.module.functions))
        if "main" in self.module.functions:
            return "main"
        _refuse(primitive, f"say of which function: {', '.join(self.module.functions)}")

    def _number(self, item: BlockRef | LoopRef | Sampled) -> int:
        number = self._count
        self._count += 1
        if isinstance(item, Sampled):
            self._samples[id(item)] = (item, number)  # held, so that the id stays its own
        else:
            self._numbers[item] = number
        return number

    def _recorded(self, arg: Any) -> Any:
        if isinstance(arg, BlockRef | LoopRef):
            if arg not in self._numbers:
                raise ScheduleError(
                    f"{arg} was not handed out by this schedule", hint="get it with get_block or get_loops"
                )
            return Output(self._numbers[arg])
        if isinstance(arg, Sampled) and id(arg) in self._samples:
            return Output(self._samples[id(arg)][1])
        if isinstance(arg, list | tuple):
            return tuple(self._recorded(item) for item in arg)
        return arg


def _plain(arg: Any) -> Any:
    if isinstance(arg, BlockRef):
        return arg.name
    if isinstance(arg, LoopRef):
        return arg.var
    if isinstance(arg, list | tuple):
        return tuple(_plain(item) for item in arg)
    return arg


def _referenced(result: Any, func: str) -> Any:
    if isinstance(result, str):
        return BlockRef(func, result)
    if isinstance(result, Var):
        return LoopRef(func, result)
    if isinstance(result, list | tuple):
        return tuple(_referenced(item, func) for item in result)
    return result


def _references(args: tuple[Any, ...]) -> list[BlockRef | LoopRef]:
    found: list[BlockRef | LoopRef] = []
    for arg in args:
        if isinstance(arg, list | tuple):
            found += _references(tuple(arg))
        elif isinstance(arg, BlockRef | LoopRef):
            found.append(arg)
    return found


def _refuse(primitive: str, reason: str) -> NoReturn:
    raise ScheduleError(f"{primitive}: {reason}", primitive=primitive, reason=reason)
