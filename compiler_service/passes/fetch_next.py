"""While one turn of a loop computes, what its next turn reads is fetched into the caches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from compiler_service.passes.access_boxes import Opaque, accesses_of, difference, touched_box
from compiler_service.passes.base import map_functions
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import const_int
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Binary, BufferLoad, Call, Cast, Expr, IntImm, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.module import IRModule
from crossfarm.ir.regions import simplify
from crossfarm.ir.stmt import Evaluate, For, Stmt
from crossfarm.ir.visitor import Mutator, seq, substitute, walk

if TYPE_CHECKING:
    from crossfarm.target import Target

#: The annotation: ``{"A": level}`` on a loop.
FETCH_NEXT = "fetch_next"
#: Bytes of a cache's line, on nearly every CPU in use.
_LINE = 64


@dataclass(frozen=True)
class FetchNext:
    """A loop annotated ``fetch_next`` fetches meanwhile what the next turn of the loop around it reads of some buffers.

    The lines are shared out among the turns of the loop and of those directly inside, in the order of memory: few at
    a time, and neighbours after one another, as memory gives them fastest. What the next turn reads must be a box of
    constant size; where it is not nothing happens, for a prefetch is a hint.
    """

    name: ClassVar[str] = "fetch_next"

    def apply(self, module: IRModule, target: Target) -> IRModule:
        return map_functions(module, lambda _, func: _fetch(func))


def _fetch(func: PrimFunc) -> PrimFunc:
    body = _Fetcher().mutate(func.body)
    return func if body is func.body else replace(func, body=body)


class _Fetcher(Mutator):
    def __init__(self) -> None:
        self.around: For | None = None

    def mutate_For(self, node: For) -> Stmt:
        around, self.around = self.around, node
        body = self.mutate(node.body)
        self.around = around
        wanted = node.annotations.get(FETCH_NEXT)
        if not isinstance(wanted, dict):
            return node if body is node.body else replace(node, body=body)
        annotations = {key: value for key, value in node.annotations.items() if key != FETCH_NEXT}
        made = replace(node, body=body, annotations=annotations)
        for name, level in wanted.items():
            if around is not None and around.kind in ("serial", "parallel") and isinstance(level, int):
                made = _with_fetches(made, around, name, level)
        return made


def _with_fetches(loop: For, around: For, name: str, level: int) -> For:
    """``loop`` with what the next turn of ``around`` reads of the buffer ``name`` fetched; as it is where that is not
    known."""
    buffer = next((n.buffer for n in walk(around.body) if isinstance(n, BufferLoad) and n.buffer.name == name), None)
    box = None if buffer is None else _box(buffer, around.body)
    nest = _serial_nest(loop)
    turns = math.prod(const_int(inner.extent) or 0 for inner in nest)
    if buffer is None or box is None or not turns:
        return loop
    lines = _Lines([extent for _, extent in box], max(_LINE // dt.itemsize(buffer.dtype), 1))
    if not lines.count:
        return loop
    share = -(-lines.count // turns)
    number = Var("line", "int64")
    line = _add(_times(_turn(nest), share), number)
    if share * turns > lines.count:
        line = Binary("min", line, IntImm(lines.count - 1, "int64"))
    next_turn = {around.var: _following(around)}
    starts = (_wide(substitute(start, next_turn)) for start, _ in box)
    indices = tuple(_add(start, place) for start, place in zip(starts, lines.places(line)))
    fetches = For(
        number, IntImm(0, "int64"), IntImm(share, "int64"), _fetch_of(buffer, indices, level), kind="unrolled"
    )
    return _inside(nest, seq(fetches, nest[-1].body))


class _Lines:
    """The lines of a cache that a box's rows take, each row begun anew.

    Args:
        extents: of the box, in elements.
        per_line: elements of a line.

    Attributes:
        count: of the lines.
    """

    def __init__(self, extents: Sequence[int], per_line: int) -> None:
        *self._rows, self._columns = extents
        self._per_line = per_line
        self._per_row = -(-self._columns // per_line)
        self.count = math.prod(self._rows) * self._per_row

    def places(self, line: Expr) -> list[Expr]:
        """Where in the box an element of the line with this number is, for each dimension."""
        column, row = _split(line, self._per_row)
        column = _times(column, self._per_line)
        if self._per_row * self._per_line > self._columns:
            column = Binary("min", column, IntImm(self._columns - 1, "int64"))
        places = [column]
        for extent in reversed(self._rows):
            place, row = _split(row, extent)
            places.insert(0, place)
        return places


def _turn(nest: Sequence[For]) -> Expr:
    """Which turn it is of all that the loops make, from 0."""
    turn: Expr = IntImm(0, "int64")
    for loop in nest:
        at = _add(_wide(loop.var), IntImm(-(const_int(loop.min) or 0), "int64"))
        turn = _add(_times(turn, const_int(loop.extent) or 0), at)
    return turn


def _following(loop: For) -> Expr:
    """The loop's variable in its next turn; in the last one, the same."""
    last = simplify(Binary("sub", Binary("add", loop.min, loop.extent), IntImm(1, loop.var.dtype)))
    return Binary("min", Binary("add", loop.var, IntImm(1, loop.var.dtype)), last)


def _fetch_of(buffer: Buffer, indices: tuple[Expr, ...], level: int) -> Stmt:
    address = Call("address_of", (BufferLoad(buffer, indices),), "handle")
    return Evaluate(Call("prefetch", (address, IntImm(level, "int32")), "int32"))


def _box(buffer: Buffer, code: Stmt) -> list[tuple[Expr, int]] | None:
    """Start and extent of what ``code`` reads, for each dimension."""
    try:
        accesses = accesses_of(buffer, code)
    except Opaque:
        return None
    box = []
    for ends, index in zip(touched_box(accesses), accesses[0].node.indices):
        width = None if ends is None else difference(ends[1], ends[0])
        if ends is None or width is None or width.terms:
            return None
        box.append((ends[0].to_expr(index.dtype), width.constant + 1))
    return box


def _serial_nest(loop: For) -> list[For]:
    """The loop and those directly inside one another, of constant extents."""
    nest = [loop]
    while isinstance(inner := nest[-1].body, For) and inner.kind == "serial" and const_int(inner.extent):
        nest.append(inner)
    return nest


def _inside(nest: Sequence[For], body: Stmt) -> For:
    *outer, last = nest
    made = replace(last, body=body)
    for loop in reversed(outer):
        made = replace(loop, body=made)
    return made


def _split(number: Expr, extent: int) -> tuple[Expr, Expr]:
    """Place along a dimension, and number of what has that dimension."""
    if extent == 1:
        return IntImm(0, "int64"), number
    size = IntImm(extent, "int64")
    return Binary("floormod", number, size), Binary("floordiv", number, size)


def _wide(value: Expr) -> Expr:
    if isinstance(value, IntImm):
        return IntImm(value.value, "int64")
    return value if value.dtype == "int64" else Cast(value, "int64")


def _add(a: Expr, b: Expr) -> Expr:
    if const_int(a) == 0:
        return b
    return a if const_int(b) == 0 else Binary("add", a, b)


def _times(value: Expr, factor: int) -> Expr:
    return value if factor == 1 or const_int(value) == 0 else Binary("mul", value, IntImm(factor, "int64"))
