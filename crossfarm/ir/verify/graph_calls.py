"""Rules about what graph functions call: operators, tensor programs, other graph functions."""

from __future__ import annotations

from collections.abc import Iterator

from crossfarm.errors import InvalidModule
from crossfarm.ir.arith import const_int
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Expr, IntImm, Var
from crossfarm.ir.function import Param, PrimFunc
from crossfarm.ir.graph import dims, operators, visit
from crossfarm.ir.graph.expr import CallPacked, CallTIR, Function, FunctionCall, OperatorCall, TupleItem
from crossfarm.ir.graph.infer import type_of
from crossfarm.ir.graph.types import PrimType, TensorType, Type
from crossfarm.ir.module import IRModule
from crossfarm.ir.verify.graph_bindings import is_atomic, type_text
from crossfarm.ir.verify.graph_scope import GraphScope
from crossfarm.ir.verify.rule import rule
from crossfarm.ir.visitor import substitute, walk


@rule("operator-exists", OperatorCall, hint="docs/operators.md lists them; a newer release may have more")
def operator_exists(call: OperatorCall, scope: GraphScope) -> str | None:
    """An operator is one of the table."""
    try:
        operators.get(call.op)
    except InvalidModule as failure:
        return failure.message + (f"; {failure.hint.rstrip('?')}" if failure.hint.startswith("did you mean") else "")
    return None


@rule("atomic-arguments", OperatorCall, CallTIR, CallPacked, FunctionCall, hint="bind each to a variable first")
def atomic_arguments(call: OperatorCall | CallTIR | CallPacked | FunctionCall, scope: GraphScope) -> str | None:
    """Arguments are atomic: variables, constants, shapes, numbers, and tuples of these."""
    for position, arg in enumerate(call.args):
        if not is_atomic(arg):
            return f"argument {position} is a {type(arg).__name__}, not a variable"
    return None


@rule("operator-attributes", OperatorCall, hint="docs/operators.md lists the attributes of each operator")
def operator_attributes(call: OperatorCall, scope: GraphScope) -> str | None:
    """An operator has the attributes that its row says, each of its kind."""
    try:
        operators.get(call.op).complete(call.attrs)
    except InvalidModule as failure:
        return failure.message
    return None


@rule("arguments-fit", OperatorCall, FunctionCall, TupleItem, hint="reshape or cast what is given")
def arguments_fit(call: OperatorCall | FunctionCall | TupleItem, scope: GraphScope) -> str | None:
    """An operator or graph function gets values of the types it takes, and an item is taken of a tuple that has it."""
    try:
        type_of(call, scope.functions)
    except InvalidModule as failure:
        return failure.message
    return None


@rule("purity", FunctionCall, hint="make the function pure, or the block no dataflow block and the caller impure")
def purity(call: FunctionCall, scope: GraphScope) -> str | None:
    """Neither pure functions nor dataflow blocks call functions that have effects."""
    callee = scope.functions.get(call.function)
    if scope.pure and isinstance(callee, Function) and not callee.pure:
        return f"graph function {call.function!r} has effects, and is called where none may be"
    return None


@rule("tensor-program-fits", CallTIR, hint="a PrimFunc's parameters are the arguments, the results, then the sizes")
def tensor_program_fits(call: CallTIR, scope: GraphScope) -> str | None:
    """A tensor program is there, and its parameters fit arguments, results and sizes, in this order."""
    func = scope.functions.get(call.function)
    if not isinstance(func, PrimFunc):
        return f"the module has no tensor program {call.function!r}"
    given = (len(call.args), len(call.out), len(call.sizes))
    if len(func.params) != sum(given):
        counts = f"{given[0]} arguments, {given[1]} results and {given[2]} sizes"
        return f"tensor program {call.function!r} has {len(func.params)} parameters, not {counts}"
    types: list[Type] = [*(type_of(a, scope.functions) for a in call.args), *call.out]
    types += [PrimType(s.dtype) for s in call.sizes]
    for param, kind in zip(func.params, types):
        problem = _parameter_problem(param, kind)
        if problem is not None:
            return f"parameter {param.name} of tensor program {call.function!r} {problem}"
    return _shape_problem(call, func, types)


def _parameter_problem(param: Param, kind: Type) -> str | None:
    if isinstance(param, Buffer):
        if not isinstance(kind, TensorType):
            return f"is a buffer, given {type_text(kind)}"
        if param.dtype != kind.dtype:
            return f"is {param.dtype}, given {type_text(kind)}"
        if len(param.shape) != kind.ndim:
            return f"has {len(param.shape)} dimensions, given {type_text(kind)}"
    elif not isinstance(kind, PrimType) or kind.dtype != param.dtype:
        return f"is a number of {param.dtype}, given {type_text(kind)}"
    return None


def _shape_problem(call: CallTIR, func: PrimFunc, types: list[Type]) -> str | None:
    """Where constant dimensions contradict each other; what is symbolic is checked when it runs."""
    scalars = func.params[len(func.params) - len(call.sizes) :]
    known = {p: c for p, e in zip(scalars, call.sizes) if isinstance(p, Var) and (c := const_int(e)) is not None}
    for param, kind in zip(func.params, types):
        if not isinstance(param, Buffer) or not isinstance(kind, TensorType):
            continue
        for wanted, given in zip(param.shape, kind.shape):
            have = dims.constant(given)
            if isinstance(wanted, Var) and have is not None:
                known.setdefault(wanted, have)
            want = _with(wanted, known)
            if have is not None and want is not None and have != want:
                return (
                    f"parameter {param.name} of tensor program {call.function!r} has a dimension of {want}, given "
                    f"{type_text(kind)}"
                )
    return None


def _with(e: Expr, known: dict[Var, int]) -> int | None:
    """``e`` where all its variables are known, else None."""
    used = [n for n in walk(e) if isinstance(n, Var)]
    if any(v not in known for v in used):
        return None
    return const_int(dims.dim(substitute(e, {v: IntImm(known[v], v.dtype) for v in used})))


@rule("no-recursion", IRModule, hint="write the loop out, or as a tensor program")
def no_recursion(mod: IRModule, scope: None) -> str | None:
    """No graph function calls itself, not by way of others either."""
    done: set[str] = set()
    for start in mod.graph_functions:
        path: list[str] = [start]
        todo: list[Iterator[str]] = [_called(mod, start)]
        while todo:
            callee = next(todo[-1], None)
            if callee is None:
                todo.pop()
                done.add(path.pop())
            elif callee in path:
                return "graph functions call each other in a circle: " + " → ".join(
                    [*path[path.index(callee) :], callee]
                )
            elif callee not in done:
                path.append(callee)
                todo.append(_called(mod, callee))
    return None


def _called(mod: IRModule, name: str) -> Iterator[str]:
    calls = (e.function for e in visit.expressions(mod.graph_functions[name]) if isinstance(e, FunctionCall))
    return iter(sorted(set(calls) & set(mod.graph_functions)))
