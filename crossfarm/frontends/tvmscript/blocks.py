"""Blocks: ``with T.block("C"):``, its axes, predicate, regions, attributes, init, temporaries and views."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from crossfarm.frontends.tvmscript import arguments as args
from crossfarm.frontends.tvmscript.attributes import attributes
from crossfarm.frontends.tvmscript.buffers import regions_of
from crossfarm.frontends.tvmscript.context import BlockFrame, FunctionContext, Scope, spelled
from crossfarm.ir import dtype as dt
from crossfarm.ir import ops
from crossfarm.ir.expr import Expr, IntImm, Range, Var
from crossfarm.ir.regions import extent_between, infer_accesses
from crossfarm.ir.stmt import Block, BlockRealize, IterVar, Stmt

Body = Callable[[FunctionContext, list[ast.stmt]], Stmt]

AXES = {"spatial": "spatial", "reduce": "reduce", "scan": "scan", "opaque": "opaque"}
_REMAP = {"S": "spatial", "R": "reduce", "C": "scan", "O": "opaque"}


def parse_block(ctx: FunctionContext, call: ast.Call, stmts: list[ast.stmt], body: Body) -> BlockRealize:
    """A block and its realization. What it reads and writes is inferred where the text does not say."""
    bound = args.bind_arguments(ctx, call, "T.block", ("name", "no_realize", "exec_scope"))
    if "exec_scope" in bound and not args.is_none(bound["exec_scope"]):
        raise ctx.source.error(bound["exec_scope"], "exec_scope= is not supported", construct="T.block exec_scope")
    name = args.string(ctx, bound["name"], "the name of T.block") if "name" in bound else ""
    at_top = ctx.frames[-1].kind == "function"
    with block_frame(ctx, name, call) as frame:
        inner = body(ctx, stmts)
    is_root = at_top and name == "root" and not frame.iter_vars  # the root's regions stay empty unless written
    return realize(frame, inner, infer=not is_root)


@contextmanager
def block_frame(ctx: FunctionContext, name: str, node: ast.AST) -> Iterator[BlockFrame]:
    """A block under construction for the time of its body."""
    ctx.has_blocks = True
    frame = BlockFrame(name, node)
    ctx.blocks.append(frame)
    with Scope(ctx, "block"):
        yield frame
    ctx.blocks.pop()


def realize(frame: BlockFrame, body: Stmt, *, infer: bool = True) -> BlockRealize:
    """The finished block."""
    reads, writes = frame.reads, frame.writes
    allocs, matches = tuple(frame.alloc_buffers), tuple(frame.match_buffers)
    if reads == () and writes == ():
        reads = writes = None  # TVM prints both empty for the opaque blocks of its external operators
    if infer and (reads is None or writes is None):
        found = infer_accesses(body, frame.init, allocs, matches)
        reads = found.reads if reads is None else reads
        writes = found.writes if writes is None else writes
    block = Block(
        frame.name,
        tuple(frame.iter_vars),
        reads or (),
        writes or (),
        body,
        frame.init,
        allocs,
        matches,
        frame.annotations,
    )
    predicate = frame.predicate if frame.predicate is not None else IntImm(1, "bool")
    return BlockRealize(tuple(frame.iter_values), predicate, block)


def current_block(ctx: FunctionContext, node: ast.AST, what: str) -> BlockFrame:
    """The block whose body the statement stands directly in. Raises ScriptError elsewhere."""
    if ctx.frames[-1].kind != "block":
        raise ctx.source.error(
            node, f"{what} must stand directly in a block", construct=what,
            hint='put it first in the body of with T.block("name"):',
        )  # fmt: skip
    return ctx.blocks[-1]


def parse_axis(ctx: FunctionContext, call: ast.Call, kind: str, targets: list[ast.Name]) -> None:
    """``v = T.axis.spatial(dom, value)``: the axis' dtype is the wider of its domain's and its value's."""
    what = f"T.axis.{kind}"
    frame = current_block(ctx, call, what)
    bound = args.bind_arguments(ctx, call, what, ("dom", "binding", "dtype"), 2)
    if len(targets) != 1:
        raise ctx.source.error(call, f"{what} gives one axis, not {len(targets)}", construct=what)
    value = args.number(ctx, bound["binding"])
    dom = bound["dom"]
    if isinstance(dom, (ast.Tuple, ast.List)):
        if len(dom.elts) != 2:
            raise ctx.source.error(dom, f"the domain of {what} is an extent or (begin, end)", construct=what)
        start, extent = extent_between(args.number(ctx, dom.elts[0]), args.number(ctx, dom.elts[1]))
    else:
        extent = args.expr(ctx, dom)
        start = ops.const(0, extent.dtype) if dt.is_int(extent.dtype) else extent
    if not dt.is_int(extent.dtype):
        raise ctx.source.error(dom, f"a domain of dtype {extent.dtype} in {what}", construct=what, hint="use integers")
    if "dtype" in bound:
        start, extent = (ops.cast(part, args.dtype(ctx, bound["dtype"], what)) for part in (start, extent))
    extent, value = ops.unify(extent, value, what)
    _add_axis(ctx, frame, targets[0], kind, Range(ops.cast(start, extent.dtype), extent), value)


def parse_remap(ctx: FunctionContext, call: ast.Call, targets: list[ast.Name]) -> None:
    """``vi, vj = T.axis.remap("SR", [i, j])``: axes bound to loops, with the loops' ranges as domains."""
    frame = current_block(ctx, call, "T.axis.remap")
    bound = args.bind_arguments(ctx, call, "T.axis.remap", ("kinds", "bindings", "dtype"), 2)
    kinds = args.string(ctx, bound["kinds"], "the kinds of T.axis.remap")
    values = args.elements(ctx, bound["bindings"])
    if not len(kinds) == len(values) == len(targets):
        raise ctx.source.error(
            call, f"{len(targets)} names, {len(kinds)} kinds and {len(values)} loops", construct="T.axis.remap",
            hint="there is one letter and one loop for each axis",
        )  # fmt: skip
    for target, letter, node in zip(targets, kinds, values):
        if letter not in _REMAP:
            raise ctx.source.error(
                bound["kinds"],
                f"unknown axis kind {letter!r}",
                construct="T.axis.remap",
                hint="S is spatial, R is reduce",
            )
        value = args.expr(ctx, node)
        if not isinstance(value, Var) or value not in ctx.loops:
            raise ctx.source.error(
                node, f"{spelled(ctx, node)} is not a loop variable", construct="T.axis.remap",
                hint=f"bind it with T.axis.{_REMAP[letter]}(extent, value)",
            )  # fmt: skip
        _add_axis(ctx, frame, target, _REMAP[letter], ctx.loops[value], value)


def parse_where(ctx: FunctionContext, call: ast.Call) -> None:
    """``T.where(predicate)``"""
    frame = current_block(ctx, call, "T.where")
    (node,) = args.positional(ctx, call, "T.where", 1)
    if frame.predicate is not None:
        raise ctx.source.error(call, "T.where appears twice in one block", construct="T.where")
    frame.predicate = args.condition(ctx, node, "T.where")


def parse_regions(ctx: FunctionContext, call: ast.Call, which: str) -> None:
    """``T.reads(...)`` and ``T.writes(...)``"""
    frame = current_block(ctx, call, f"T.{which}")
    if getattr(frame, which) is not None:
        raise ctx.source.error(call, f"T.{which} appears twice in one block", construct=f"T.{which}")
    regions = regions_of(ctx, args.positional(ctx, call, f"T.{which}"), f"T.{which}")
    setattr(frame, which, regions)


def parse_block_attr(ctx: FunctionContext, call: ast.Call) -> None:
    """``T.block_attr({...})``"""
    frame = current_block(ctx, call, "T.block_attr")
    (node,) = args.positional(ctx, call, "T.block_attr", 1)
    frame.annotations.update(attributes(ctx, node, "T.block_attr"))


def parse_init(ctx: FunctionContext, call: ast.Call, stmts: list[ast.stmt], body: Body) -> None:
    """``with T.init():``"""
    frame = current_block(ctx, call, "T.init")
    args.positional(ctx, call, "T.init", 0)
    if frame.init is not None:
        raise ctx.source.error(call, "T.init appears twice in one block", construct="T.init")
    with Scope(ctx, "init"):
        frame.init = body(ctx, stmts)


def _add_axis(ctx: FunctionContext, frame: BlockFrame, target: ast.Name, kind: str, dom: Range, value: Expr) -> None:
    var = Var(target.id, dom.extent.dtype)
    frame.iter_vars.append(IterVar(var, dom, kind))
    frame.iter_values.append(value)
    ctx.bind(target.id, var)
