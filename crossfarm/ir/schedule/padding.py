"""``pad_einsum``: a sum of products over axes that are made divisible, between padded copies of its operands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from crossfarm.ir import dtype as dt
from crossfarm.ir import ops
from crossfarm.ir.arith import Key, const_int, may_fail, structural_key
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Binary, BufferLoad, Cast, Expr, FloatImm, IntImm, Range, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.regions import infer_accesses
from crossfarm.ir.schedule.copied_regions import why_not_all_instances
from crossfarm.ir.schedule.dependencies import require_complete_or_reduction, same_size
from crossfarm.ir.schedule.index_arith import ceil_div
from crossfarm.ir.schedule.nests import TRUE, only_serial_nest, store_nest
from crossfarm.ir.schedule.tree import (
    find_block,
    parent_block,
    refuse,
    replace_stmt,
    statements,
    unique_name,
    with_block,
)
from crossfarm.ir.stmt import BlockRealize, BufferStore, For, Stmt
from crossfarm.ir.visitor import Mutator, seq, walk

PRIMITIVE = "pad_einsum"


def pad_einsum(func: PrimFunc, block: str, padding: Sequence[int]) -> tuple[PrimFunc, None]:
    """The block runs over axes whose extents are multiples of ``padding``, on copies of its operands padded with 0.

    Its result is a padded temporary too, and what is inside the old extents is copied to the old result after it. The
    copies are blocks named after their buffers: ``A_pad``, ``B_pad``, ``C_pad``.

    Args:
        padding: for each of the block's axes what its extent becomes a multiple of; 1 leaves an axis as it is.

    Raises:
        ScheduleError: the block is not one store indexed by its axes, its loops are not plain, or a padded reduce axis
            would change the result.
    """
    realize = find_block(func, block, PRIMITIVE)
    require_complete_or_reduction(func, realize, PRIMITIVE)
    store = _checked_store(func, realize, padding)
    top = only_serial_nest(func, realize, PRIMITIVE)
    grown = _grown(realize, padding)
    if not grown:
        return func, None
    for axis in realize.block.iter_vars:
        if axis.kind == "reduce" and axis.var in grown:
            _check_sum(realize, store, axis.var)
    operands = _Operands(func, realize, store, grown)
    body = operands.mutate(store)
    init = None if realize.block.init is None else operands.mutate(realize.block.init)
    accesses = infer_accesses(body, init)
    axes = tuple(
        replace(a, dom=Range(a.dom.min, grown[a.var])) if a.var in grown else a for a in realize.block.iter_vars
    )
    padded = with_block(
        replace(realize, predicate=TRUE),
        iter_vars=axes,
        reads=accesses.reads,
        writes=accesses.writes,
        body=body,
        init=init,
    )
    extents = {value: axis.dom.extent for axis, value in zip(axes, realize.iter_values)}
    nest = _with_extents(top, realize, padded, extents)
    before, after = operands.copies()
    outer = parent_block(func, realize, PRIMITIVE).block.name
    func = replace_stmt(func, top, seq(*before, nest, *after))
    scope = find_block(func, outer)
    allocated = (*scope.block.alloc_buffers, *operands.made)
    return replace_stmt(func, scope, with_block(scope, alloc_buffers=allocated)), None


def _checked_store(func: PrimFunc, realize: BlockRealize, padding: Sequence[int]) -> BufferStore:
    """The block's store, where the block has the form that can be padded."""
    block = realize.block
    name = block.name
    if len(padding) != len(block.iter_vars) or any(p < 1 for p in padding):
        refuse(PRIMITIVE, f"block {name} has {len(block.iter_vars)} axes; give a number above 0 for each", at=realize)
    store = block.body
    if not isinstance(store, BufferStore) or block.alloc_buffers or block.match_buffers:
        refuse(PRIMITIVE, f"block {name} is not a single store", at=realize)
    axes = {a.var for a in block.iter_vars}
    if not all(i in axes or const_int(i) is not None for i in store.indices):
        refuse(PRIMITIVE, f"block {name} stores at indices that are not axes themselves", at=realize)
    loops = {s.var for s in statements(func.body) if isinstance(s, For)}
    values = list(realize.iter_values)
    if any(v not in loops for v in values) or len(set(values)) < len(values):
        refuse(PRIMITIVE, f"the axes of block {name} are not each a loop of its own", at=realize)
    if any(const_int(a.dom.min) != 0 for a in block.iter_vars):
        refuse(PRIMITIVE, f"an axis of block {name} does not start at 0", at=realize)
    reason = why_not_all_instances(func, realize)
    if reason is not None:
        refuse(PRIMITIVE, f"the loops may not run all instances of block {name}: {reason}", at=realize)
    if may_fail(store.value):
        refuse(PRIMITIVE, f"block {name} divides, which may fail on padding", at=realize)
    return store


def _grown(realize: BlockRealize, padding: Sequence[int]) -> dict[Var, Expr]:
    """The new extent of each axis that gets one."""
    grown: dict[Var, Expr] = {}
    for axis, multiple in zip(realize.block.iter_vars, padding):
        extent = axis.dom.extent
        count = ceil_div(extent, multiple)
        number = const_int(count)
        new = ops.const(number * multiple, extent.dtype) if number is not None else ops.mul(count, multiple)
        if multiple > 1 and not same_size(new, extent):
            grown[axis.var] = new
    return grown


def _check_sum(realize: BlockRealize, store: BufferStore, axis: Var) -> None:
    """Raises ScheduleError unless steps of ``axis`` past its end add 0."""
    value = store.value
    if not isinstance(value, Binary) or value.op != "add":
        refuse(PRIMITIVE, f"reduce axis {axis.name} is padded, but the block does not add up", at=realize)
    own = [s for s in (value.a, value.b) if isinstance(s, BufferLoad) and s.buffer is store.buffer]
    if len(own) != 1:
        refuse(PRIMITIVE, f"reduce axis {axis.name} is padded, but the block does not add to its result", at=realize)
    term = value.b if own[0] is value.a else value.a
    if not _vanishes(term, axis):
        refuse(
            PRIMITIVE,
            f"reduce axis {axis.name} is padded, but what is added there may not be 0",
            at=realize,
            hint="each factor must be an operand with that axis: 0 times infinity is not 0",
        )


def _vanishes(term: Expr, axis: Var) -> bool:
    """True when ``term`` is 0 where the operands that ``axis`` indexes are."""
    match term:
        case BufferLoad(_, indices):
            return axis in indices
        case Cast(value, _):
            return _vanishes(value, axis)
        case Binary("mul", a, b):
            if dt.is_int(term.dtype):
                return _vanishes(a, axis) or _vanishes(b, axis)
            return all(_vanishes(f, axis) or isinstance(f, FloatImm | IntImm) for f in (a, b)) and (
                _vanishes(a, axis) or _vanishes(b, axis)
            )
        case Binary("add" | "sub", a, b):
            return _vanishes(a, axis) and _vanishes(b, axis)
    return False


class _Operands(Mutator):
    """Makes each access one of a padded copy, where an axis that grew indexes it."""

    def __init__(self, func: PrimFunc, realize: BlockRealize, store: BufferStore, grown: Mapping[Var, Expr]) -> None:
        self.func = func
        self.realize = realize
        self.grown = grown
        self.extents = {a.var: a.dom.extent for a in realize.block.iter_vars}
        self.result = store
        self.copied: dict[Key, tuple[Buffer, tuple[Expr, ...], Buffer]] = {}

    @property
    def made(self) -> tuple[Buffer, ...]:
        """The padded temporaries."""
        return tuple(new for _, _, new in self.copied.values())

    def mutate_BufferLoad(self, node: BufferLoad) -> Expr:
        new = self._copy(node.buffer, node.indices)
        return node if new is None else BufferLoad(new, node.indices)

    def mutate_BufferStore(self, node: BufferStore) -> Stmt:
        value = self.mutate(node.value)
        new = self._copy(node.buffer, node.indices)
        return BufferStore(node.buffer if new is None else new, value, node.indices)

    def copies(self) -> tuple[list[Stmt], list[Stmt]]:
        """The blocks that fill the padded operands, and the one that takes the result out of its padding."""
        before, after = [], []
        for old, indices, new in self.copied.values():
            if old is self.result.buffer:
                shape = [self.extents[i] if isinstance(i, Var) else e for i, e in zip(indices, old.shape)]
                after.append(self._copy_back(old, new, shape, indices))
            else:
                before.append(self._copy_in(old, new, indices))
        return before, after

    def _copy(self, buffer: Buffer, indices: tuple[Expr, ...]) -> Buffer | None:
        used = {n for i in indices for n in walk(i) if isinstance(n, Var) and n in self.grown}
        if not used:
            return None
        if not used <= set(indices):
            refuse(PRIMITIVE, f"{buffer.name} is indexed by more than a padded axis itself", at=self.realize)
        key = (buffer, *(structural_key(i) for i in indices))
        if key not in self.copied:
            shape = tuple(
                self.grown[i] if isinstance(i, Var) and i in self.grown else e for i, e in zip(indices, buffer.shape)
            )
            taken = {new.name for new in self.made}
            name, number = unique_name(self.func, f"{buffer.name}_pad"), 1
            while name in taken:
                name, number = unique_name(self.func, f"{buffer.name}_pad_{number}"), number + 1
            self.copied[key] = (buffer, indices, Buffer(name, shape, buffer.dtype, scope=buffer.scope))
        return self.copied[key][2]

    def _copy_in(self, old: Buffer, new: Buffer, indices: tuple[Expr, ...]) -> Stmt:
        def store(v: tuple[Var, ...]) -> BufferStore:
            inside = []
            for at, i, dim in zip(v, indices, old.shape):
                if isinstance(i, Var) and i in self.grown:
                    inside.append(ops.compare("lt", at, self.extents[i]))
                    if not same_size(self.extents[i], dim):  # a condition in the block may keep it inside
                        inside.append(ops.compare("lt", at, dim))
            zero = ops.const(0, old.dtype)
            return BufferStore(new, ops.if_then_else(ops.logical_and(*inside), BufferLoad(old, v), zero), v)

        return store_nest(new.name, new.shape, store)

    def _copy_back(self, old: Buffer, new: Buffer, shape: Sequence[Expr], indices: tuple[Expr, ...]) -> Stmt:
        region = [
            Range(ops.const(0, e.dtype), e) if isinstance(i, Var) else Range(i, ops.const(1, i.dtype))
            for i, e in zip(indices, shape)
        ]
        domain = [e if isinstance(i, Var) else d for i, e, d in zip(indices, shape, old.shape)]
        return store_nest(new.name, domain, lambda v: BufferStore(old, BufferLoad(new, v), v), region=region)


def _with_extents(top: Stmt, old: BlockRealize, new: BlockRealize, extents: Mapping[Expr, Expr]) -> Stmt:
    """The nest with the loops' extents replaced, and the block in it."""
    if top is old:
        return new
    assert isinstance(top, For)
    body = _with_extents(top.body, old, new, extents)
    return replace(top, extent=extents.get(top.var, top.extent), body=body)
