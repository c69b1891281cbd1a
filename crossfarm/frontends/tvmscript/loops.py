"""Loops: ``range``, ``T.grid``, the loop kinds of TVMScript, and ``while``."""

from __future__ import annotations

import ast
from collections.abc import Callable

from crossfarm.errors import InvalidModule, ScriptError
from crossfarm.frontends.tvmscript import arguments as args
from crossfarm.frontends.tvmscript.attributes import attributes
from crossfarm.frontends.tvmscript.context import FunctionContext, Scope, spelled
from crossfarm.frontends.tvmscript.source import nearest
from crossfarm.ir import dtype as dt
from crossfarm.ir import ops
from crossfarm.ir.expr import Expr, IntImm, Range, Var
from crossfarm.ir.regions import extent_between, simplify
from crossfarm.ir.stmt import AttrValue, For, LetStmt, Stmt, While

Body = Callable[[FunctionContext, list[ast.stmt]], Stmt]

THREADS = (
    "blockIdx.x", "blockIdx.y", "blockIdx.z", "threadIdx.x", "threadIdx.y", "threadIdx.z",
    "vthread", "vthread.x", "vthread.y", "vthread.z",
)  # fmt: skip
#: Construct → kind of loop. ``range`` is Python's own.
KINDS = {
    "range": "serial",
    "tir.serial": "serial",
    "tir.parallel": "parallel",
    "tir.vectorized": "vectorized",
    "tir.unroll": "unrolled",
    "tir.thread_binding": "thread_binding",
}


def parse_for(ctx: FunctionContext, node: ast.For, body: Body) -> Stmt:
    """A ``for`` statement. Raises ScriptError for anything but the known loops."""
    if node.orelse:
        raise ctx.source.error(node.orelse[0], "for … else is not part of the script language", construct="for else")
    call = node.iter
    name = None
    if isinstance(call, ast.Call):
        name = ctx.resolve(call.func)
        if isinstance(call.func, ast.Name) and call.func.id == "range" and not ctx.is_local("range"):
            name = "range"
    if not isinstance(call, ast.Call) or (name not in KINDS and name != "tir.grid"):
        text = spelled(ctx, call.func if isinstance(call, ast.Call) else call)
        known = ["grid", *(k.removeprefix("tir.") for k in KINDS)]
        raise ctx.source.error(
            call, f"a loop over {text} is not part of the script language", construct=f"for … in {text}",
            hint=nearest(text.rsplit(".", 1)[-1], known) or f"loops run over {', '.join(known)}",
        )  # fmt: skip
    try:
        return _grid(ctx, node, call, body) if name == "tir.grid" else _loop(ctx, node, call, str(name), body)
    except ScriptError:
        raise
    except InvalidModule as error:
        raise ctx.source.wrap(call, error, spelled(ctx, call.func)) from None


def parse_while(ctx: FunctionContext, node: ast.While, body: Body) -> Stmt:
    """A ``while`` statement."""
    if node.orelse:
        raise ctx.source.error(
            node.orelse[0], "while … else is not part of the script language", construct="while else"
        )
    condition = args.condition(ctx, node.test, "while")
    with Scope(ctx, "while"):
        return While(condition, body(ctx, node.body))


def check_thread(ctx: FunctionContext, node: ast.expr) -> str:
    """The name of a thread axis."""
    thread = args.string(ctx, node, "thread")
    if thread not in THREADS:
        raise ctx.source.error(
            node, f"unknown thread axis {thread!r}", construct=f"thread {thread}",
            hint=nearest(thread, THREADS) or f"known are {', '.join(THREADS)}",
        )  # fmt: skip
    return thread


def _grid(ctx: FunctionContext, node: ast.For, call: ast.Call, body: Body) -> Stmt:
    extents = [args.expr(ctx, item) for item in args.positional(ctx, call, "T.grid")]
    targets = _targets(ctx, node.target, len(extents))
    if not extents:
        raise ctx.source.error(call, "T.grid needs at least one extent", construct="T.grid")
    loop_vars = []
    with Scope(ctx, "loop"):
        for target, extent in zip(targets, extents):
            loop_vars.append(_bind(ctx, target, ops.const(0, _checked(ctx, call, extent).dtype), extent))
        result = body(ctx, node.body)
    for var, extent in zip(reversed(loop_vars), reversed(extents)):
        result = For(var, ops.const(0, extent.dtype), extent, result)
    return result


def _loop(ctx: FunctionContext, node: ast.For, call: ast.Call, name: str, body: Body) -> Stmt:
    what = "range" if name == "range" else f"T.{name.removeprefix('tir.')}"
    extra = {"range": ("step",), "tir.thread_binding": ("thread", "annotations")}.get(name, ("annotations", "step"))
    if name == "tir.thread_binding" and len(call.args) == 3:
        bound = args.bind_arguments(ctx, call, what, ("start", "stop", "thread", "annotations"), 1)
    elif name == "tir.thread_binding" and len(call.args) == 2 and "thread" not in {k.arg for k in call.keywords}:
        bound = args.bind_arguments(ctx, call, what, ("start", "thread", "annotations"), 1)
    else:
        bound = args.bind_arguments(ctx, call, what, ("start", "stop", *extra), 0)
    if "start" not in bound and "stop" not in bound:
        raise ctx.source.error(call, f"{what} needs an extent", construct=what)
    first = bound.get("start", bound.get("stop"))
    last = bound.get("stop") if "start" in bound else None
    assert first is not None
    if args.is_none(last):
        minimum, extent = extent_between(0, args.expr(ctx, first))
    else:
        assert last is not None
        minimum, extent = extent_between(args.number(ctx, first), args.number(ctx, last))
    _checked(ctx, call, extent)
    annotations: dict[str, AttrValue] = {}
    if not args.is_none(bound.get("annotations")):
        annotations = attributes(ctx, bound["annotations"], f"annotations of {what}")
    thread = ""
    if name == "tir.thread_binding":
        if "thread" not in bound:
            raise ctx.source.error(call, f"{what} needs thread=", construct=what, hint='as in thread="threadIdx.x"')
        thread = check_thread(ctx, bound["thread"])
    step = 1 if args.is_none(bound.get("step")) else args.integer(ctx, bound["step"], "the step of a loop", 1)
    (target,) = _targets(ctx, node.target, 1)
    with Scope(ctx, "loop"):
        if step != 1:
            return _stepped(ctx, node, target, (minimum, extent, step), KINDS[name], annotations, body)
        var = _bind(ctx, target, minimum, extent)
        return For(var, minimum, extent, body(ctx, node.body), KINDS[name], thread, annotations)


def _stepped(
    ctx: FunctionContext,
    node: ast.For,
    target: ast.Name,
    bounds: tuple[Expr, Expr, int],
    kind: str,
    annotations: dict[str, AttrValue],
    body: Body,
) -> Stmt:
    """A loop with a step: one over the steps, with the value bound inside."""
    minimum, extent, step = bounds
    count = simplify(ops.add(extent, step - 1))
    count = ops.const(count.value // step, count.dtype) if isinstance(count, IntImm) else ops.floordiv(count, step)
    counter = Var(f"{target.id}_step", extent.dtype)
    var = Var(target.id, extent.dtype)
    ctx.bind(target.id, var)
    value = simplify(ops.add(minimum, ops.mul(counter, step)))
    inner = LetStmt(var, value, body(ctx, node.body))
    return For(counter, ops.const(0, extent.dtype), count, inner, kind, "", annotations)


def _bind(ctx: FunctionContext, target: ast.Name, minimum: Expr, extent: Expr) -> Var:
    var = Var(target.id, extent.dtype)
    ctx.bind(target.id, var)
    ctx.loops[var] = Range(minimum, extent)
    return var


def _targets(ctx: FunctionContext, node: ast.expr, count: int) -> list[ast.Name]:
    names = args.elements(ctx, node)
    if len(names) != count:
        raise ctx.source.error(node, f"{len(names)} loop variables for {count} extents", construct="for")
    seen: set[str] = set()
    result: list[ast.Name] = []
    for name in names:
        if not isinstance(name, ast.Name):
            raise ctx.source.error(name, f"a loop variable must be a name, not {spelled(ctx, name)}", construct="for")
        if name.id in seen and name.id != "_":
            raise ctx.source.error(name, f"the loop variable {name.id!r} appears twice", construct="for")
        seen.add(name.id)
        result.append(name)
    return result


def _checked(ctx: FunctionContext, node: ast.AST, extent: Expr) -> Expr:
    if not dt.is_int(extent.dtype) or dt.lanes_of(extent.dtype) != 1:
        raise ctx.source.error(node, f"a loop extent of dtype {extent.dtype}", construct="for", hint="use integers")
    return extent
