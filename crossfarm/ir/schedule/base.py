"""What every family of primitives stands on: the module being scheduled, its references, and the recording."""

from __future__ import annotations

import copy
import functools
import inspect
import itertools
import random
from collections.abc import Callable, Mapping
from typing import Any, Concatenate, NoReturn, TypeVar

from crossfarm.errors import ScheduleError
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Expr, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.module import IRModule
from crossfarm.ir.printer_names import python_name
from crossfarm.ir.schedule.references import BlockRef, LoopRef, Output, Sampled
from crossfarm.ir.schedule.trace import Instruction, Trace
from crossfarm.ir.schedule.tree import find_block, find_loop, rename_duplicate_blocks
from crossfarm.ir.stmt import Block, For
from crossfarm.ir.visitor import substitute, walk

#: A pure primitive: the function and its arguments (names for blocks, Vars for loops) → the new function and a result.
Primitive = Callable[Concatenate[PrimFunc, ...], "tuple[PrimFunc, Any]"]
#: A pure choice: also takes ``decision`` and ``rng`` → what was chosen, and a result.
Sampler = Callable[Concatenate[PrimFunc, ...], "tuple[Any, Any]"]

S = TypeVar("S", bound="ScheduleBase")


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
        self.module = module.with_functions(
            {**module.functions, **{n: rename_duplicate_blocks(f) for n, f in module.prim_funcs.items()}}
        )
        self.trace = Trace()
        self._rng = random.Random(seed)
        self._names: dict[BlockRef | LoopRef, str] = {}
        self._samples: dict[int, tuple[Sampled, str]] = {}
        self._taken = {"sch", "te", "float"}  # by the text of traces itself

    @classmethod
    def primitives_of(cls) -> frozenset[str]:
        """Names of the methods that are instructions: the public ones of the family mix-ins."""
        families = [c for c in cls.__mro__ if issubclass(c, ScheduleBase) and c.__name__.endswith("Methods")]
        return frozenset(name for family in families for name in vars(family) if not name.startswith("_"))

    def primitives(self) -> dict[str, Callable[..., Any]]:
        """The methods that a trace may call, by name."""
        return {name: getattr(self, name) for name in self.primitives_of()}

    def copy(self: S) -> S:
        """A schedule in the same state; what either does then, the other does not see. References are of both."""
        other = copy.copy(self)
        other._rng = random.Random()
        other._rng.setstate(self._rng.getstate())
        other._names, other._samples, other._taken = dict(self._names), dict(self._samples), set(self._taken)
        return other

    def get(self, ref: BlockRef | LoopRef) -> Block | For:
        """The block or loop that a reference means now. Raises ScheduleError where it is gone."""
        if not isinstance(ref, BlockRef | LoopRef):
            raise ScheduleError(f"{ref!r} is neither a block nor a loop", hint="get one with get_block or get_loops")
        func = self.module.prim_func(ref.func)
        return find_block(func, ref.name).block if isinstance(ref, BlockRef) else find_loop(func, ref.var)

    def _block(self, ref: BlockRef, primitive: str) -> Block:
        """The block itself. Raises ScheduleError for a loop, or where it is gone."""
        block = self.get(ref)
        if not isinstance(block, Block):
            _refuse(primitive, f"{ref} is a loop; {primitive} is for blocks")
        return block

    def _apply(self, primitive: Primitive, *args: Any, func: str | None = None, **options: Any) -> Any:
        """Runs a pure primitive on the function that the references in ``args`` are of, and records it.

        ``args`` and ``options`` are the public method's arguments: a trace replays ``method(*args, **options)``. The
        instruction has the primitive's ``__name__``, which is the method's. The primitive sees a block as its name, a
        loop as its Var. Of its result, a str becomes a BlockRef, a Var a LoopRef, a Sampled stays itself, a tuple is
        taken apart.

        Args:
            func: the function to change, where no reference says it.
        """
        name = self._function_of(primitive.__name__, (*args, *options.values()), func)
        before = self.module.prim_func(name)
        given = {key: _plain(option, before) for key, option in options.items()}
        changed, result = primitive(before, *(_plain(arg, before) for arg in args), **given)
        return self._record(primitive.__name__, args, options, name, changed, result)

    def _sample(self, primitive: Sampler, *args: Any, decision: Any, func: str | None = None) -> Any:
        """Runs a pure ``sample_`` primitive, ``(func, *args, decision=, rng=) -> (decision, result)``, and records it.

        Args:
            decision: what to choose, or None to choose at random.
        """
        name = self._function_of(primitive.__name__, args, func)
        before = self.module.prim_func(name)
        chosen, result = primitive(before, *(_plain(arg, before) for arg in args), decision=decision, rng=self._rng)
        return self._record(primitive.__name__, args, {}, name, before, result, chosen)

    def _record(
        self,
        primitive: str,
        args: tuple[Any, ...],
        options: dict[str, Any],
        func: str,
        changed: PrimFunc,
        result: Any,
        decision: Any = None,
    ) -> Any:
        """Takes over what a primitive gave, and appends the instruction to the trace."""
        args, options = _without_defaults(getattr(type(self), primitive), args, options)
        written = tuple(self._written(arg) for arg in args)
        named = {key: self._written(option) for key, option in options.items()}
        given = _referenced(result, func)
        outputs: str | tuple[str, ...] = ()
        if given is not None:
            around = next((arg.name for arg in args if isinstance(arg, BlockRef)), "")
            outputs = (
                tuple(self._named(item, around, f"tile_{position}") for position, item in enumerate(given))
                if isinstance(given, tuple)
                else self._named(given, around, "choice")
            )
        if changed is not self.module.prim_func(func):
            self.module = self.module.with_functions({**self.module.functions, func: changed})
        instruction = Instruction(primitive, written, named, outputs, decision)
        self.trace = Trace((*self.trace.instructions, instruction))
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

    def _named(self, item: BlockRef | LoopRef | Sampled, block: str, number: str) -> str:
        """The name in the trace of something that an instruction gave: its own where that is free.

        Args:
            block: what the instruction was about: makes a loop's name clearer.
            number: the name of a number.
        """
        if isinstance(item, Sampled):
            name = self._free_name(number)
            self._samples[id(item)] = (item, name)  # held, so that the id stays its own
            return name
        if item not in self._names:
            own = item.name if isinstance(item, BlockRef) else item.var.name
            self._names[item] = self._free_name(own, f"{block}_{own}" if block else own)
        return self._names[item]

    def _free_name(self, *wishes: str) -> str:
        """The first of ``wishes`` that is free, else the last with a number; from now on it is taken."""
        names = [python_name(wish) for wish in wishes]
        numbered = (f"{names[-1]}_{number}" for number in itertools.count(2))
        found = next(name for name in itertools.chain(names, numbered) if name not in self._taken)
        self._taken.add(found)
        return found

    def _written(self, arg: Any) -> Any:
        """An argument as the trace holds it."""
        if isinstance(arg, BlockRef | LoopRef):
            if arg not in self._names:
                raise ScheduleError(
                    f"{arg} was not handed out by this schedule", hint="get it with get_block or get_loops"
                )
            return Output(self._names[arg])
        if isinstance(arg, Sampled) and id(arg) in self._samples:
            return Output(self._samples[id(arg)][1])
        if isinstance(arg, list | tuple):
            return tuple(self._written(item) for item in arg)
        return arg


def _plain(arg: Any, func: PrimFunc) -> Any:
    """An argument as pure primitives take it; a variable in an expression is the size of that name in ``func``."""
    if isinstance(arg, BlockRef):
        return arg.name
    if isinstance(arg, LoopRef):
        return arg.var
    if isinstance(arg, Sampled):
        return int(arg)  # where it came from is the trace's to know, not the module's
    if isinstance(arg, list | tuple):
        return tuple(_plain(item, func) for item in arg)
    if isinstance(arg, Expr):
        shapes = [p.shape if isinstance(p, Buffer) else (p,) for p in func.params]
        sizes = {(v.name, v.dtype): v for shape in shapes for e in shape for v in walk(e) if isinstance(v, Var)}
        return substitute(arg, {v: sizes.get((v.name, v.dtype), v) for v in walk(arg) if isinstance(v, Var)})
    return arg


def _without_defaults(
    method: Callable[..., Any], args: tuple[Any, ...], options: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of a method without those that it has by default; behind the first of these all have their names."""
    parameters = _parameters(method)
    short, named = list(args), dict(options)
    if all(p.kind is not p.VAR_POSITIONAL for p in parameters):
        for position, (parameter, arg) in enumerate(zip(parameters, args)):
            if _is_default(parameter, arg):
                del short[position:]
                named |= {p.name: a for p, a in zip(parameters[position:], args[position:])}
                break
    known = {p.name: p for p in parameters}
    return tuple(short), {key: value for key, value in named.items() if not _is_default(known[key], value)}


@functools.cache
def _parameters(method: Callable[..., Any]) -> list[inspect.Parameter]:
    return list(inspect.signature(method).parameters.values())[1:]


def _is_default(parameter: inspect.Parameter, value: Any) -> bool:
    default = parameter.default
    return value is default or (type(value) is type(default) and not isinstance(value, Expr) and value == default)


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
