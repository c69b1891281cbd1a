"""Symbolic sizes of a function, and integer expressions of them in the form that artifacts carry."""

from __future__ import annotations

from crossfarm.errors import BuildFailed
from crossfarm.ir import dtype as dt
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.calls import dimension_symbols as dimension_symbols
from crossfarm.ir.expr import Binary, Cast, Expr, IntImm, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.stmt import Allocate, Block
from crossfarm.ir.visitor import walk
from crossfarm.wire.v1.artifact_pb2 import IndexExpr

_OPERATORS = {
    "add": IndexExpr.ADD,
    "sub": IndexExpr.SUB,
    "mul": IndexExpr.MUL,
    "floordiv": IndexExpr.FLOORDIV,
    "floormod": IndexExpr.FLOORMOD,
    "min": IndexExpr.MIN,
    "max": IndexExpr.MAX,
}


def function_symbols(func: PrimFunc) -> tuple[Var, ...]:
    """What sizes are expressed in: the bare dimensions, then scalar parameters that other sizes depend on.

    A scalar parameter that is also a bare dimension is known twice, and the entry compares the two.
    """
    dimensions = dimension_symbols(func)
    scalars = {p: None for p in func.params if isinstance(p, Var) and dt.is_int(p.dtype) and p not in dimensions}
    buffers = {p for p in func.params if isinstance(p, Buffer)} if scalars else set()
    for node in walk(func.body) if scalars else ():
        if isinstance(node, Allocate):
            buffers.add(node.buffer)
        elif isinstance(node, Block):
            buffers.update(node.alloc_buffers)
    used = {n for b in buffers for e in (*b.shape, *b.strides) for n in walk(e) if isinstance(n, Var)}
    return (*dimensions, *(p for p in scalars if p in used))


def symbol_names(func: PrimFunc) -> list[str]:
    """Names of ``function_symbols``: a scalar parameter's own; a number is appended to another that is taken."""
    scalars = {p: p.name for p in func.params if isinstance(p, Var)}
    names: list[str] = []
    for symbol in function_symbols(func):
        name, number = symbol.name, 1
        while symbol not in scalars and (name in names or name in scalars.values()):
            name, number = f"{symbol.name}_{number}", number + 1
        names.append(name)
    return names


def index_expr(expr: Expr, symbols: tuple[Var, ...], what: str) -> IndexExpr:
    """``expr`` in postfix form over ``symbols``. Raises BuildFailed, naming ``what``, for anything else in it."""
    result = IndexExpr()

    def visit(node: Expr) -> None:
        if isinstance(node, IntImm):
            result.ops.add(constant=node.value)
        elif isinstance(node, Var) and node in symbols:
            result.ops.add(symbol=symbols.index(node))
        elif isinstance(node, Cast) and node.dtype in ("int32", "int64"):
            visit(node.value)
        elif isinstance(node, Binary) and node.op in _OPERATORS:
            visit(node.a)
            visit(node.b)
            result.ops.add(operator=_OPERATORS[node.op])
        else:
            described = f"variable {node.name!r}" if isinstance(node, Var) else f"a {type(node).__name__}"
            raise BuildFailed(
                f"{what} depends on {described}, which is no symbolic size",
                hint="let every size be made of constants, dimensions of buffer parameters and scalar parameters",
            )

    visit(expr)
    return result
