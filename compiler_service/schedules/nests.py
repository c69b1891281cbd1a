"""What rules about loops over tensors look at: a block under a plain nest of loops, its accesses and its work."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import affine, const_int
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import BufferLoad, Call, Expr, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.regions import key
from crossfarm.ir.schedule.tree import find_block, loops_above
from crossfarm.ir.stmt import Block, BufferStore, For, IterVar
from crossfarm.ir.visitor import walk

#: Intrinsics that are an instruction or two.
_CHEAP = ("abs", "sqrt", "floor", "ceil", "trunc", "nearbyint", "if_then_else", "likely", "fma", "copysign", "isnan")
_CALL_WORK = 8
#: What an extent that only the call knows is taken for.
UNKNOWN_EXTENT = 256


@dataclass(frozen=True)
class Access:
    """A load or store of the block."""

    buffer: Buffer
    indices: tuple[Expr, ...]

    def step(self, axis: Var) -> int | None:
        """How many elements further the access is one step along ``axis``; None where that is not one constant."""
        strides = [const_int(s) for s in self.buffer.strides] or _strides(self.buffer.shape)
        total = 0
        for index, stride in zip(self.indices, strides):
            form = affine(index)
            coefficient = form.terms.get(axis, 0)
            if any(
                axis in walk(atom) for name, atom in form.atoms.items() if name is not axis and form.terms.get(name)
            ):
                return None
            if coefficient and stride is None:
                return None
            total += coefficient * (stride or 0)
        return total


@dataclass(frozen=True)
class Nest:
    """A block whose axes are the loops around it, one each, in any order.

    Attributes:
        loops: of each axis, in the axes' order.
        outer: the same loops from the outermost in.
    """

    block: Block
    loops: tuple[For, ...]
    outer: tuple[For, ...]

    @property
    def name(self) -> str:
        return self.block.name

    @cached_property
    def spatial(self) -> tuple[IterVar, ...]:
        return tuple(a for a in self.block.iter_vars if a.kind == "spatial")

    @cached_property
    def reduced(self) -> tuple[IterVar, ...]:
        return tuple(a for a in self.block.iter_vars if a.kind == "reduce")

    @cached_property
    def stores(self) -> tuple[Access, ...]:
        return tuple(Access(n.buffer, n.indices) for n in walk(self.block.body) if isinstance(n, BufferStore))

    @cached_property
    def loads(self) -> tuple[Access, ...]:
        """What is read, but for a reduction's own target."""
        made = {s.buffer for s in self.stores} if self.reduced else set()
        loads = (n for n in walk(self.block.body) if isinstance(n, BufferLoad))
        return tuple(Access(n.buffer, n.indices) for n in loads if n.buffer not in made)

    @cached_property
    def work(self) -> int:
        """Of one instance, in simple operations: a mathematical function counts several."""
        total = 1
        for node in walk(self.block.body):
            if isinstance(node, Call) and node.op not in _CHEAP:
                total += _CALL_WORK
            elif not isinstance(node, (Var, Buffer)):
                total += 1
        return total // 2

    @cached_property
    def calls(self) -> bool:
        """Whether it has a mathematical function, which pays in vectors only if this schedule makes them."""
        return any(isinstance(n, Call) and n.op not in _CHEAP for n in walk(self.block.body))

    def instances(self, axes: tuple[IterVar, ...] | None = None) -> int:
        """How many there are, over all or some axes; unknown extents are guessed."""
        count = 1
        for axis in self.block.iter_vars if axes is None else axes:
            extent = const_int(axis.dom.extent)
            count *= UNKNOWN_EXTENT if extent is None else extent
        return count

    @property
    def dtype(self) -> str:
        """Of what it stores."""
        return self.stores[0].buffer.dtype


def nest_of(func: PrimFunc, name: str) -> Nest | str:
    """The nest of a block, or why it is none."""
    realize = find_block(func, name)
    block = realize.block
    outer = loops_above(func, realize)
    by_var = {loop.var: loop for loop in outer}
    values = [v for v in realize.iter_values if isinstance(v, Var) and v in by_var]
    if len(values) != len(block.iter_vars) or len(set(values)) != len(outer):
        return "its axes are not the loops around it, one each"
    if const_int(realize.predicate) != 1:
        return "it runs under a condition"
    if any(a.kind not in ("spatial", "reduce") for a in block.iter_vars):
        return "an axis is neither spatial nor a reduction's"
    if any(const_int(loop.min) != 0 or loop.kind != "serial" for loop in outer):
        return "a loop around it does not count up from 0 serially"
    if block.alloc_buffers or block.match_buffers:
        return "it has temporaries or views of its own"
    if not any(isinstance(n, BufferStore) for n in walk(block.body)):
        return "it stores nothing"
    if any(isinstance(n, Call) and not is_pure(n) for n in walk(block.body)):
        return "it has effects besides its stores"
    return Nest(block, tuple(by_var[v] for v in values), outer)


def is_pure(call: Call) -> bool:
    from crossfarm.ir.intrinsics import INTRINSICS

    return INTRINSICS[call.op].pure


def same_extent(a: Expr, b: Expr) -> bool:
    """Whether two extents are surely one number."""
    x, y = const_int(a), const_int(b)
    return x == y if x is not None or y is not None else key(a) == key(b)


def temporaries(func: PrimFunc) -> frozenset[Buffer]:
    """Buffers that the root block allocates."""
    from crossfarm.ir.stmt import BlockRealize

    assert isinstance(func.body, BlockRealize)
    return frozenset(func.body.block.alloc_buffers)


def bytes_of(buffer: Buffer) -> int:
    """Size of a buffer; unknown extents are guessed."""
    size = dt.itemsize(buffer.dtype)
    for extent in buffer.shape:
        known = const_int(extent)
        size *= UNKNOWN_EXTENT if known is None else known
    return size


def _strides(shape: tuple[Expr, ...]) -> list[int | None]:
    """Row-major strides; None from where an extent is not constant."""
    strides: list[int | None] = []
    running: int | None = 1
    for extent in reversed(shape):
        strides.append(running)
        known = const_int(extent)
        running = None if running is None or known is None else running * known
    return strides[::-1]
