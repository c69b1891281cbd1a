"""New loop nests around one block, and where in a scope they may be put."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from crossfarm.ir import ops
from crossfarm.ir.arith import const_int
from crossfarm.ir.buffer import Buffer, BufferRegion
from crossfarm.ir.expr import BufferLoad, Call, Expr, IntImm, Range, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.regions import infer_accesses, simplify
from crossfarm.ir.schedule.tree import (
    ancestors,
    find_block,
    refuse,
    replace_many,
    replace_stmt,
    rewrite,
    statements,
    with_block,
)
from crossfarm.ir.stmt import (
    Annotations,
    AttrStmt,
    Block,
    BlockRealize,
    BufferStore,
    Evaluate,
    For,
    IterVar,
    LetStmt,
    SeqStmt,
    Stmt,
)
from crossfarm.ir.visitor import Node, children, walk

TRUE = IntImm(1, "bool")


def point(buffer: Buffer, indices: Sequence[Expr]) -> BufferRegion:
    """The region of one element."""
    return BufferRegion(buffer, tuple(Range(i, ops.const(1, i.dtype)) for i in indices))


def store_nest(
    name: str,
    shape: Sequence[Expr],
    store: Callable[[tuple[Var, ...]], BufferStore],
    *,
    region: Sequence[Range] | None = None,
    axis_names: Sequence[str] = (),
    predicate: Callable[[tuple[Expr, ...]], Expr] | None = None,
    annotations: Annotations | None = None,
) -> Stmt:
    """Serial loops over a box around a block of one store.

    Args:
        shape: extent of each axis' domain, which starts at 0.
        store: the block's body, given its axes; every load in it is listed in the block's reads as one element.
        region: the box that the loops run over, where that is not the whole domain.
        axis_names: names of the axes, ``v0``, ``v1``, … where left out.
        predicate: of the axis values: where the block runs.
    """
    box = [Range(ops.const(0, e.dtype), e) for e in shape] if region is None else list(region)
    loops = [Var(f"ax{i}", r.extent.dtype) for i, r in enumerate(box)]
    names = [*axis_names, *(f"v{i}" for i in range(len(axis_names), len(box)))]
    axes = tuple(Var(n, loop.dtype) for n, loop in zip(names, loops))
    values = tuple(simplify(ops.add(r.min, loop)) for r, loop in zip(box, loops))
    body = store(axes)
    block = Block(
        name,
        tuple(IterVar(v, Range(ops.const(0, e.dtype), e)) for v, e in zip(axes, shape)),
        element_reads(body.value),
        (point(body.buffer, body.indices),),
        body,
        annotations=annotations or {},
    )
    nest: Stmt = BlockRealize(values, TRUE if predicate is None else predicate(values), block)
    for loop, r in zip(reversed(loops), reversed(box)):
        nest = For(loop, ops.const(0, loop.dtype), r.extent, nest)
    return nest


def element_reads(value: Expr) -> tuple[BufferRegion, ...]:
    """One region for each buffer that ``value`` loads from: the element, or the whole buffer where it loads several."""
    return infer_accesses(Evaluate(value)).reads


@dataclass(frozen=True)
class Place:
    """Beside ``anchor``, a statement in the scope's sequence of statements or in that of a loop of the scope."""

    anchor: Stmt


def place_before(
    func: PrimFunc,
    scope: BlockRealize,
    consumers: Collection[BlockRealize],
    writers: Collection[BlockRealize],
    primitive: str,
    buffer: Buffer,
) -> Place:
    """Where a copy of ``buffer`` sees all that ``consumers`` see: before the first, with no writer up to the last.

    As far out as possible: loops are entered only where they hold both a writer and all consumers.
    """
    level = _statements(scope.block.body)
    while True:
        reading = [i for i, s in enumerate(level) if _holds(s, consumers)]
        writing = [i for i, s in enumerate(level) if _holds(s, writers)]
        shared = [i for i in reading if i in writing]
        if not shared:
            between = [i for i in writing if reading[0] < i < reading[-1]]
            if between:
                refuse(
                    primitive,
                    f"{buffer.name} is written between the first and the last of its consumers",
                    at=level[between[0]],
                    hint="name only the consumers on one side as consumer_blocks",
                )
            return Place(level[reading[0]])
        if len(reading) > 1:
            refuse(
                primitive,
                f"one consumer of {buffer.name} shares a loop with its producer, another one does not",
                at=level[shared[0]],
                hint="name only the consumers in that loop, or only those outside of it, as consumer_blocks",
            )
        level = _enter(level[shared[0]], primitive, buffer)


def place_after(
    scope: BlockRealize,
    producer: BlockRealize,
    consumers: Collection[BlockRealize],
    primitive: str,
    buffer: Buffer,
) -> Place:
    """Where a copy of what ``producer`` wrote is there before anyone reads it: right after, outside unshared loops."""
    level = _statements(scope.block.body)
    while True:
        held = next(s for s in level if _holds(s, (producer,)))
        if not _holds(held, consumers):
            return Place(held)
        level = _enter(held, primitive, buffer)


def insert(
    func: PrimFunc,
    scope: BlockRealize,
    place: Place,
    nest: Stmt,
    *,
    before: bool,
    rewritten: Mapping[Stmt, Stmt],
    allocated: Sequence[Buffer],
) -> PrimFunc:
    """``func`` with ``nest`` beside the place, blocks replaced, and buffers added to the scope's temporaries."""
    anchor = rewrite(place.anchor, lambda s: rewritten.get(s, s))
    inside = set(statements(place.anchor))
    outside = {old: new for old, new in rewritten.items() if old not in inside}
    stmts = (nest, anchor) if before else (anchor, nest)
    func = replace_many(func, {**outside, place.anchor: SeqStmt(stmts)})
    now = find_block(func, scope.block.name)
    return replace_stmt(func, now, with_block(now, alloc_buffers=(*now.block.alloc_buffers, *allocated)))


def only_serial_nest(func: PrimFunc, block: BlockRealize, primitive: str) -> Stmt:
    """The outermost loop around ``block`` in its scope (or the block), where all loops are plain and hold only it.

    Raises:
        ScheduleError: a loop around the block is not serial, is annotated, or holds other statements too.
    """
    top: Stmt = block
    shared = False
    for stmt in reversed(ancestors(func, block)):
        if isinstance(stmt, Block):
            break
        if isinstance(stmt, SeqStmt):
            shared = True
            continue
        if shared or not isinstance(stmt, For):
            refuse(primitive, f"block {block.block.name} is not alone in plain loops", at=stmt)
        if stmt.kind != "serial" or stmt.annotations:
            what = "annotated" if stmt.kind == "serial" else stmt.kind
            hint = "do this before the loops are marked"
            refuse(primitive, f"its loops are replaced, but loop {stmt.var.name} is {what}", at=stmt, hint=hint)
        top = stmt
    return top


def refuse_taken_address(func: PrimFunc, buffer: Buffer, primitive: str) -> None:
    """Raises ScheduleError where an access of ``buffer`` cannot be rewritten: its address is taken."""
    for node in walk(func.body):
        if not (isinstance(node, Call) and node.op == "address_of"):
            continue
        if any(isinstance(n, BufferLoad) and n.buffer is buffer for n in walk(node)):
            refuse(primitive, f"the address of {buffer.name} is taken, so who reads or writes it is not known")


def refuse_bare_access(scope: BlockRealize, buffer: Buffer, primitive: str) -> None:
    """Raises ScheduleError where statements of the scope outside its blocks (loop bounds, conditions, axis values,
    plain stores) use ``buffer``: dependencies are known of blocks alone."""
    stack: list[Node | Buffer] = [scope.block.body]
    while stack:
        node = stack.pop()
        if isinstance(node, BufferLoad | BufferStore) and node.buffer is buffer:
            refuse(primitive, f"{buffer.name} is used outside of blocks", at=scope, hint="put that use into a block")
        if not isinstance(node, Block | Buffer):
            stack.extend(children(node))


def is_true(condition: Expr) -> bool:
    """True for a constant condition that holds."""
    return bool(const_int(condition))


def _statements(body: Stmt) -> tuple[Stmt, ...]:
    return body.stmts if isinstance(body, SeqStmt) else (body,)


def _enter(stmt: Stmt, primitive: str, buffer: Buffer) -> tuple[Stmt, ...]:
    """The statements inside a loop (or let) that holds all of what was looked for."""
    if isinstance(stmt, For | LetStmt | AttrStmt):
        return _statements(stmt.body)
    refuse(
        primitive, f"producer and consumer of {buffer.name} meet in a condition or a loop of unknown length", at=stmt
    )


def _holds(stmt: Stmt, blocks: Collection[BlockRealize]) -> bool:
    return any(s in blocks for s in statements(stmt))
