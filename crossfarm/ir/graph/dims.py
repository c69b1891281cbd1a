"""Arithmetic of shapes: dimensions are int64 expressions of constants and symbolic sizes, kept in one normal form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from crossfarm.errors import InvalidModule
from crossfarm.ir import ops
from crossfarm.ir.arith import Affine, affine, const_int, fold_int, structural_key
from crossfarm.ir.expr import Binary, Expr, IntImm
from crossfarm.ir.printer_sizes import size_text
from crossfarm.ir.visitor import walk

#: What may be given as a dimension.
Dim = int | Expr
#: Nodes of a dimension's formula at most: models have some ten, and a chain of squares would need all memory.
MOST_NODES = 256


def dim(value: Dim) -> Expr:
    """The dimension as an int64 expression in normal form: equal sums are equal trees.

    Raises:
        InvalidModule: it is a formula of more than MOST_NODES.
    """
    if isinstance(value, int):
        return IntImm(value, "int64")
    found = _normal(value if value.dtype == "int64" else ops.cast(value, "int64"))
    if isinstance(found, Binary) and next(islice(walk(found), MOST_NODES, None), None) is not None:
        raise InvalidModule(
            f"a size is a formula of more than {MOST_NODES} numbers, symbols and operations",
            hint="fix the sizes that it is made of",
        )
    return found


def dims(values: Iterable[Dim]) -> tuple[Expr, ...]:
    """Each as ``dim`` gives it."""
    return tuple(dim(v) for v in values)


def constant(value: Dim) -> int | None:
    """The number where it is one, None for a symbolic dimension."""
    return value if isinstance(value, int) else const_int(value)


def constants(values: Iterable[Dim]) -> tuple[int, ...] | None:
    """All as numbers; None where one is symbolic."""
    found = [constant(v) for v in values]
    known = tuple(number for number in found if number is not None)
    return known if len(known) == len(found) else None


def same(a: Dim, b: Dim) -> bool:
    """True where both are provably the same number; False says nothing."""
    return structural_key(dim(a)) == structural_key(dim(b))


def same_shape(a: Sequence[Dim], b: Sequence[Dim]) -> bool:
    """True where ranks are equal and all dimensions are provably the same."""
    return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))


def add(a: Dim, b: Dim) -> Expr:
    return dim(ops.add(dim(a), dim(b)))


def sub(a: Dim, b: Dim) -> Expr:
    return dim(ops.sub(dim(a), dim(b)))


def mul(a: Dim, b: Dim) -> Expr:
    return dim(ops.mul(dim(a), dim(b)))


def floordiv(a: Dim, b: Dim) -> Expr:
    return dim(ops.floordiv(dim(a), dim(b)))


def ceildiv(a: Dim, b: Dim) -> Expr:
    return floordiv(sub(add(a, b), 1), b)


def minimum(a: Dim, b: Dim) -> Expr:
    return dim(ops.minimum(dim(a), dim(b)))


def product(values: Iterable[Dim]) -> Expr:
    """All multiplied, 1 for none."""
    result: Expr = IntImm(1, "int64")
    for value in values:
        result = mul(result, value)
    return result


def axis(index: int, rank: int, what: str = "axis") -> int:
    """``index`` counted from the front. Raises InvalidModule where there is no such dimension."""
    if not -rank <= index < rank:
        raise InvalidModule(f"{what} {index} is outside a tensor of {rank} dimensions")
    return index % rank


def axes(indices: Sequence[int] | None, rank: int, what: str = "axes") -> tuple[int, ...]:
    """All counted from the front, None for all there are. Raises InvalidModule for one outside, or given twice."""
    if indices is None:
        return tuple(range(rank))
    found = tuple(axis(i, rank, what) for i in indices)
    if len(set(found)) < len(found):
        raise InvalidModule(f"{what} {tuple(indices)} name a dimension twice")
    return found


def broadcast(*shapes: Sequence[Dim]) -> tuple[Expr, ...]:
    """What the shapes are stretched to together, by numpy's rules.

    Raises:
        InvalidModule: two dimensions differ, or it cannot be known that two symbolic ones are equal.
    """
    rank = max((len(s) for s in shapes), default=0)
    result: list[Expr] = []
    for position in range(-rank, 0):
        found: Expr = IntImm(1, "int64")
        for shape in shapes:
            if len(shape) < -position:
                continue
            other = dim(shape[position])
            if constant(other) == 1:
                continue
            if constant(found) == 1:
                found = other
            elif not same(found, other):
                raise InvalidModule(
                    f"shapes {' and '.join(text(s) for s in shapes)} do not fit together: {text([found])[1:-1]} and "
                    f"{text([other])[1:-1]} at dimension {position}"
                )
        result.append(found)
    return tuple(result)


def text(shape: Sequence[Dim]) -> str:
    """For messages: as ``(n, 64)``."""
    return f"({', '.join(size_text(dim(d)) for d in shape)})"


def _normal(value: Expr) -> Expr:
    """Sums collected, at every depth; what has no symbolic size in it is a number."""
    form = affine(value)
    result = Affine(form.constant)
    for key, coefficient in form.terms.items():
        result.add(affine(_factor(form.atoms[key])), coefficient)
    return result.to_expr("int64")


def _factor(value: Expr) -> Expr:
    """What is no sum: products and divisions of constants are numbers, and what surely divides is divided."""
    if not isinstance(value, Binary) or value.op not in ("mul", "floordiv", "floormod", "min", "max"):
        return value
    a, b = _normal(value.a), _normal(value.b)
    x, y = const_int(a), const_int(b)
    if x is not None and y is not None and (folded := fold_int(value.op, x, y, "int64")) is not None:
        return IntImm(folded, "int64")
    if value.op in ("min", "max") and structural_key(a) == structural_key(b):
        return a
    if value.op in ("floordiv", "floormod") and y is not None and y > 0:
        quotient, rest = affine(a).split(y)
        left = Binary(value.op, rest.to_expr("int64"), b) if rest.terms else IntImm(0, "int64")
        if value.op == "floormod":
            return left if rest.terms else IntImm(rest.constant, "int64")
        return ops.add(quotient.to_expr("int64"), left)
    return Binary(value.op, a, b)
