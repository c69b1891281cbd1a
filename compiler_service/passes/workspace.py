"""A function's memory for temporaries, as the annotations of ``plan_workspace`` say it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import Analyzer, Interval, affine, const_int
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Binary, Expr, IntImm, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.stmt import Allocate, For, Stmt
from crossfarm.ir.visitor import Node, children, walk

#: Value of ``Allocate.annotations["place"]`` for the stack; a number is a region of the workspace.
STACK = "stack"
#: Regions lie at multiples of so many bytes, at least.
ALIGN = 64
#: The same in a device's workspace: every device that is known can bind buffers at multiples of it.
DEVICE_ALIGN = 512


@dataclass(frozen=True)
class Plan:
    """A piece of memory for temporaries: byte offsets of its regions, and its size in bytes, in the symbols; int64."""

    offsets: tuple[Expr, ...]
    size: Expr


def workspace_plan(func: PrimFunc) -> Plan:
    """The plan that PlanWorkspace's annotations make of a function; an empty one where there are no temporaries."""
    return _plan_of(_outside_parallel(func.body))


def scratch_plan(loop: For) -> Plan:
    """The plan of a parallel loop that is not inside another one: of the memory that each of its threads needs."""
    return _plan_of(walk(loop.body))


def stored_shape(buffer: Buffer) -> tuple[Expr, ...]:
    """Extents whose product is how many elements a temporary takes in memory: its shape where it is compact."""
    if not buffer.strides:
        return buffer.shape
    last: Expr = IntImm(1, buffer.strides[0].dtype)
    for extent, stride in zip(buffer.shape, buffer.strides):
        before = Binary("sub", extent, IntImm(1, extent.dtype))
        last = Binary("add", last, Binary("mul", before, stride))
    return (affine(last).to_expr(last.dtype),)


def _plan_of(nodes: Iterator[Node | Buffer]) -> Plan:
    sizes: dict[int, Expr] = {}
    for node in nodes:
        if isinstance(node, Allocate) and isinstance(place := node.annotations.get("place"), int):
            size = node.annotations["bytes"]
            new = size if isinstance(size, Expr) else IntImm(int(str(size)), "int64")
            old = const_int(sizes.get(place, new))
            sizes[place] = new if old is None or old <= (const_int(new) or 0) else sizes[place]
    offsets: list[Expr] = []
    end: Expr = IntImm(0, "int64")
    for place in sorted(sizes):
        offsets.append(end)
        end = _add(end, round_up(sizes[place]))
    return Plan(tuple(offsets), end)


def may_be_negative(size: Expr) -> bool:
    """Whether there are sizes of tensors for which a number worked out from them is below 0, as ``n - 3`` is for n = 1.

    It would take memory from what lies beside it.
    """
    analyzer = Analyzer()
    for var in walk(size):
        if isinstance(var, Var):
            # no tensor is so large that a number of such sizes wraps
            analyzer.bind(var, Interval(0, dt.int_range(var.dtype)[1] >> 16))
    return analyzer.bounds(size).low < 0


def round_up(size: Expr, align: int = ALIGN) -> Expr:
    """The next multiple of ``align``."""
    if isinstance(size, IntImm):
        return IntImm(-(-size.value // align) * align, "int64")
    unit = IntImm(align, "int64")
    blocks = Binary("floordiv", Binary("add", size, IntImm(align - 1, "int64")), unit)
    return Binary("mul", blocks, unit)


def _outside_parallel(body: Stmt) -> Iterator[Node | Buffer]:
    """The nodes of ``body`` but for those inside parallel loops."""
    stack: list[Node | Buffer] = [body]
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, Buffer) and not (isinstance(node, For) and node.kind == "parallel"):
            stack.extend(reversed(list(children(node))))


def _add(a: Expr, b: Expr) -> Expr:
    if isinstance(a, IntImm) and isinstance(b, IntImm):
        return IntImm(a.value + b.value, "int64")
    return b if isinstance(a, IntImm) and a.value == 0 else Binary("add", a, b)
