"""Symbolic sizes of a function, and integer expressions of them in the form that artifacts carry."""

from __future__ import annotations

from crossfarm.errors import BuildFailed
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Binary, Cast, Expr, IntImm, Var
from crossfarm.ir.function import PrimFunc
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
    """The Vars that parameters' shapes define, in order: each first met as a bare dimension.

    A scalar parameter that is also a dimension counts: its value is then known twice, and the entry compares them.
    """
    found: dict[Var, None] = {}
    for param in func.params:
        if isinstance(param, Buffer):
            for extent in param.shape:
                if isinstance(extent, Var):
                    found.setdefault(extent)
    return tuple(found)


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
                hint="make every such size a dimension of a buffer parameter, or an expression of those",
            )

    visit(expr)
    return result
