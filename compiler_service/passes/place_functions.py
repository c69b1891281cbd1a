"""Of functions that are meant for targets, those that are meant for this one stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from crossfarm.errors import BuildFailed
from crossfarm.ir.graph import visit
from crossfarm.ir.graph.expr import CallTIR, Function, FunctionCall
from crossfarm.ir.module import AnyFunction, IRModule
from crossfarm.ir.placement import TARGET, placed, target_of
from crossfarm.target import misfit

if TYPE_CHECKING:
    from crossfarm.target import Target


@dataclass(frozen=True)
class PlaceFunctions:
    """Drops the functions whose ``target`` (``crossfarm.ir.placement``) does not fit the one that is built for.

    A function that does not say is in every build, but a private one that others call follows its callers: it goes
    where all of them go. From here on no function says a target, for all are built for the same one.
    """

    name: ClassVar[str] = "place_functions"

    def apply(self, module: IRModule, target: Target) -> IRModule:
        """Raises BuildFailed where a function that stays calls one that does not, and where none stays."""
        if not is_placed(module):
            return module
        wanted = {name: target_of(func) for name, func in module.functions.items()}
        gone = {name: w for name, w in wanted.items() if w is not None and misfit(w, target) is not None}
        kept = _kept(module.functions, gone)
        for caller in kept:
            for callee in _called(module.functions[caller]):
                if callee in gone:
                    raise _call_elsewhere(caller, wanted[caller], callee, gone[callee], target)
        if gone and all(module.functions[name].private for name in kept):
            raise _nothing_left(module, gone, target)
        return module.with_functions({name: placed(func, None) for name, func in kept.items()})


def is_placed(module: IRModule) -> bool:
    """True where a function says what it is meant for."""
    return any(TARGET in func.attrs for func in module.functions.values())


def _kept(functions: Mapping[str, AnyFunction], gone: Mapping[str, Target]) -> dict[str, AnyFunction]:
    """The functions that stay: those of ``gone`` do not, nor what only they call."""
    left = Counter(callee for func in functions.values() for callee in _called(func))
    todo, dropped = list(gone), set(gone)
    while todo:
        for callee in _called(functions[todo.pop()]):
            left[callee] -= 1
            if not left[callee] and callee in functions and callee not in dropped and functions[callee].private:
                dropped.add(callee)
                todo.append(callee)
    return {name: func for name, func in functions.items() if name not in dropped}


def _called(function: AnyFunction) -> Iterator[str]:
    """The functions of the module that it calls, each once."""
    if isinstance(function, Function):
        calls = (e.function for e in visit.expressions(function) if isinstance(e, (CallTIR, FunctionCall)))
        yield from dict.fromkeys(calls)


def _call_elsewhere(caller: str, wanted: Target | None, callee: str, meant: Target, target: Target) -> BuildFailed:
    meant_for = "is in every build" if wanted is None else f"is meant for target {wanted}"
    return BuildFailed(
        f"function {caller!r}, which {meant_for}, calls function {callee!r}, which is meant for target {meant}: "
        f"that does not fit target {target.label} ({misfit(meant, target)})",
        hint=f"call one after the other from the client, or take the target of {callee!r} away"
        + (f", or give it to {caller!r} as well" if wanted is None else ""),
    )


def _nothing_left(module: IRModule, gone: Mapping[str, Target], target: Target) -> BuildFailed:
    public = {name: meant for name, meant in gone.items() if not module.functions[name].private}
    whose = "; ".join(f"{name!r} is meant for {meant} ({misfit(meant, target)})" for name, meant in public.items())
    return BuildFailed(
        f"no function of module {module.name!r} is meant for target {target.label}: {whose}",
        hint="build for the targets of its functions, or take theirs away",
    )
