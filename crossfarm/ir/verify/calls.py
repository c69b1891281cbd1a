"""Rules about functions of a module that call each other."""

from __future__ import annotations

from dataclasses import dataclass

from crossfarm.ir.buffer import Buffer
from crossfarm.ir.calls import ProgramCall, size_symbols
from crossfarm.ir.expr import Call, Expr, StringImm
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.module import IRModule
from crossfarm.ir.verify.rule import RULES, fail, rule
from crossfarm.ir.visitor import walk


@dataclass(frozen=True)
class Callees:
    """A module's functions, and the names of those that call others."""

    functions: dict[str, PrimFunc]
    callers: frozenset[str]


@rule("calls-fit", ProgramCall, hint="such calls are made by the compiler: build from the function that it lowers")
def calls_fit(call: ProgramCall, callees: Callees) -> str | None:
    """A call names a function that calls no other one, and gives what it takes."""
    callee = callees.functions.get(call.function)
    if callee is None:
        return f"a call of {call.function!r}, which is no tensor program of the module"
    if call.function in callees.callers:
        return f"a call of {call.function!r}, which calls functions itself"
    takes = (*callee.params, *size_symbols(callee))
    if len(call.args) not in (len(takes), len(takes) + 1):  # the last is memory for its temporaries
        return f"a call of {call.function!r} with {len(call.args)} arguments instead of {len(takes)}"
    for param, arg in zip(takes, call.args):
        is_address = isinstance(arg, Call) and arg.op == "address_of"
        if is_address != isinstance(param, Buffer) or (not is_address and arg.dtype == "handle"):
            return f"a call of {call.function!r} gives {arg.dtype} for {param.name!r}"
    return None


def verify_calls(mod: IRModule) -> None:
    """Raises VerifyError for the first call of another function that does not fit it."""
    calls = {name: found for name, func in mod.prim_funcs.items() if (found := _calls(func))}
    callees = Callees(mod.prim_funcs, frozenset(calls)) if calls else None
    for name, found in calls.items():
        for call in found:
            first, *args = call.args
            assert isinstance(first, StringImm), "the rule addresses-to-extern comes first"
            problem = RULES["calls-fit"].check(ProgramCall(first.value, tuple(args)), callees)
            if problem is not None:
                fail(RULES["calls-fit"], problem, name)


def _calls(func: PrimFunc) -> list[Call]:
    nodes = (n for n in walk(func.body) if isinstance(n, Expr))
    return [n for n in nodes if isinstance(n, Call) and n.op == "call_function"]
