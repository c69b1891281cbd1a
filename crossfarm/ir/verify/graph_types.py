"""Rules about the types of values in graph functions, and about the symbolic sizes in them."""

from __future__ import annotations

from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import const_int
from crossfarm.ir.expr import Expr, Let, Var
from crossfarm.ir.graph.expr import ShapeExpr
from crossfarm.ir.graph.types import PrimType, ShapeType, TensorType
from crossfarm.ir.verify.rule import rule
from crossfarm.ir.verify.scope import Scope
from crossfarm.ir.visitor import walk


@rule("tensor-dtype", TensorType, PrimType, hint="elements are numbers or bool")
def tensor_dtype(kind: TensorType | PrimType, scope: Scope) -> str | None:
    """Tensors are of scalars, and a number is one."""
    return None if kind.dtype in dt.SCALARS else f"a value of {kind.dtype}"


@rule("dimensions", TensorType, ShapeType, ShapeExpr, hint="make dimensions with crossfarm.ir.graph.dims")
def dimensions(node: TensorType | ShapeType | ShapeExpr, scope: Scope) -> str | None:
    """Dimensions are int64; those of a tensor, where they are constant, are not negative."""
    for value in node.shape if isinstance(node, TensorType) else node.values:
        if value.dtype != "int64":
            return f"a dimension of {value.dtype}"
        known = const_int(value)
        if isinstance(node, TensorType) and known is not None and known < 0:
            return f"a dimension of {known}"
    return None


@rule("size-defined", hint="make it a dimension of its own of a parameter, or of a match_cast before")
def size_defined(e: Expr, scope: Scope) -> str | None:
    """A symbolic size is a bare dimension of a parameter, or of a match_cast that comes before its use."""
    own = {n.var for n in walk(e) if isinstance(n, Let)}
    for var in (n for n in walk(e) if isinstance(n, Var)):
        if var not in scope.variables and var not in own:
            where = "outside the branch that defines it" if var in scope.once_variables else "and nothing defines it"
            return f"the size {var.name} is used {where}"
    return None
