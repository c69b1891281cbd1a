"""What a function does with each parameter: reads it, only writes it, or both."""

from __future__ import annotations

from dataclasses import dataclass

from crossfarm.ir.arith import Key, const_int, structural_key
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import BufferLoad, Call, Expr, StringImm, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.stmt import Block, BlockRealize, BufferStore, For, IfThenElse, IterVar, While
from crossfarm.ir.visitor import Visitor
from crossfarm.wire.v1.artifact_pb2 import Parameter


def parameter_roles(func: PrimFunc) -> list[Parameter.Role]:
    """One role a parameter; scalars are IN.

    A buffer is OUT when it is written and none of its reads can see what the caller left in it. A read sees only the
    function's own values when

    - its block's init wrote what the block updates, or
    - the same element was stored just before, in the same sequence of statements, or
    - a loop nest that had ended before wrote the whole buffer, or
    - it reads what its own block then writes, and an earlier block writes the whole buffer (a decomposed reduction).

    Any other read makes the buffer INOUT: when in doubt, nothing that a caller put there is lost.
    """
    accesses = _Accesses()
    accesses.visit(func.body)
    roles = []
    for param in func.params:
        if not isinstance(param, Buffer) or param not in accesses.stores:
            roles.append(Parameter.IN)
        else:
            roles.append(Parameter.INOUT if param in accesses.exposed else Parameter.OUT)
    return roles


@dataclass(frozen=True)
class _Store:
    """One store that was met.

    Attributes:
        element: which one, comparable with a load's.
        loops: the loops around it, outermost first.
        whole: over its loops it writes every element of the buffer.
        guards: how many conditions it is under.
    """

    element: Key
    loops: tuple[Var, ...]
    whole: bool
    guards: tuple[object, ...]


class _Accesses(Visitor):
    """Walks in program order and judges each load against the stores before it.

    Attributes:
        stores: of each buffer, in order.
        exposed: buffers of which some load may see what was there before the call.
    """

    def __init__(self) -> None:
        self.stores: dict[Buffer, list[_Store]] = {}
        self.exposed: set[Buffer] = set()
        self._views: dict[Buffer, Buffer] = {}
        self._loops: list[For] = []
        self._guards: list[object] = []
        self._axes: dict[Var, IterVar] = {}
        self._inits: list[set[Buffer]] = []  # of the blocks around
        self._own_stores: list[set[Key]] = []  # elements that the blocks around write

    def visit_For(self, node: For) -> None:
        self.visit(node.min)
        self.visit(node.extent)
        self._loops.append(node)
        self.visit(node.body)
        self._loops.pop()

    def visit_IfThenElse(self, node: IfThenElse) -> None:
        self.visit(node.condition)
        for branch in (node.then_body, node.else_body):
            if branch is not None:
                self._guarded(branch)

    def visit_While(self, node: While) -> None:
        self.visit(node.condition)
        self._guarded(node.body)

    def _guarded(self, branch: object) -> None:
        self._guards.append(branch)
        self.visit(branch)
        self._guards.pop()

    def visit_BlockRealize(self, node: BlockRealize) -> None:
        for value in (*node.iter_values, node.predicate):
            self.visit(value)
        block: Block = node.block
        self._axes.update({axis.var: axis for axis in block.iter_vars})
        self._views.update({m.buffer: self._root(m.source.buffer) for m in block.match_buffers})
        own = _Stored(self)
        own.visit(block.body)
        self._own_stores.append(own.elements)
        initialized = _Stored(self)
        if block.init is not None:
            initialized.visit(block.init)
            self.visit(block.init)
        self._inits.append({b for b in initialized.buffers if self._init_covers(block, b)})
        self.visit(block.body)
        self._inits.pop()
        self._own_stores.pop()

    def visit_BufferStore(self, node: BufferStore) -> None:
        for expr in (*node.indices, node.value):
            self.visit(expr)
        self._store(node.buffer, node.indices, self._is_whole(node))

    def visit_BufferLoad(self, node: BufferLoad) -> None:
        for index in node.indices:
            self.visit(index)
        root, element = self._root(node.buffer), self.element(node.buffer, node.indices)
        if not self._is_covered(root, element):
            self.exposed.add(root)

    def visit_Call(self, node: Call) -> None:
        """Memory functions write through their first pointer; any other address may be read and written."""
        args = list(node.args)
        if node.op in ("call_extern", "call_pure_extern") and isinstance(args[0], StringImm):
            target = args[1] if len(args) > 1 and args[0].value in ("memcpy", "memmove", "memset") else None
            if isinstance(target, Call) and target.op == "address_of" and isinstance(target.args[0], BufferLoad):
                for arg in (*target.args[0].indices, *args[2:]):
                    self.visit(arg)
                self._store(target.args[0].buffer, target.args[0].indices, whole=False)
                return
        self.visit_children(node)

    def element(self, buffer: Buffer, indices: tuple[Expr, ...]) -> Key:
        return (buffer, tuple(structural_key(i) for i in indices))

    def _root(self, buffer: Buffer) -> Buffer:
        return self._views.get(buffer, buffer)

    def _store(self, buffer: Buffer, indices: tuple[Expr, ...], whole: bool) -> None:
        loops = tuple(loop.var for loop in self._loops)
        store = _Store(self.element(buffer, indices), loops, whole, tuple(self._guards))
        self.stores.setdefault(self._root(buffer), []).append(store)

    def _is_covered(self, buffer: Buffer, element: Key) -> bool:
        if any(buffer in initialized for initialized in self._inits):
            return True
        loops, guards = tuple(loop.var for loop in self._loops), tuple(self._guards)
        updates_itself = bool(self._own_stores) and element in self._own_stores[-1]
        for store in self.stores.get(buffer, ()):
            just_before = (
                store.element == element and store.loops == loops and store.guards == guards[: len(store.guards)]
            )
            ended_before = not (store.loops and loops and store.loops[0] is loops[0])
            if just_before or (store.whole and (ended_before or updates_itself)):
                return True
        return False

    def _init_covers(self, block: Block, buffer: Buffer) -> bool:
        """True when what the block reads of ``buffer`` is what it writes, thus what its init wrote."""
        regions = [
            {tuple((structural_key(r.min), structural_key(r.extent)) for r in region.region) for region in side
             if self._root(region.buffer) is buffer}
            for side in (block.reads, block.writes)
        ]  # fmt: skip
        return regions[0] <= regions[1]

    def _is_whole(self, node: BufferStore) -> bool:
        """Every dimension is indexed by a loop or spatial axis of its own that runs over all of it."""
        if self._guards or node.buffer in self._views:
            return False
        ranges = {loop.var: (loop.min, loop.extent) for loop in self._loops}
        ranges.update(
            {var: (axis.dom.min, axis.dom.extent) for var, axis in self._axes.items() if axis.kind == "spatial"}
        )
        used: set[Var] = set()
        for index, size in zip(node.indices, node.buffer.shape):
            if const_int(index) == 0 and const_int(size) == 1:
                continue
            if not isinstance(index, Var) or index in used or index not in ranges:
                return False
            used.add(index)
            start, extent = ranges[index]
            same = const_int(extent) == const_int(size) if const_int(size) is not None else extent is size
            if const_int(start) != 0 or not same:
                return False
        return True


class _Stored(Visitor):
    """Collects what a statement stores to."""

    def __init__(self, accesses: _Accesses) -> None:
        self.accesses = accesses
        self.buffers: set[Buffer] = set()
        self.elements: set[Key] = set()

    def visit_BufferStore(self, node: BufferStore) -> None:
        self.buffers.add(self.accesses._root(node.buffer))
        self.elements.add(self.accesses.element(node.buffer, node.indices))
