"""Statements: one handler a construct. What holds for the rest of its scope (let, allocation, attribute) is a wrap."""

from __future__ import annotations

import ast
from collections.abc import Callable

from crossfarm.errors import InvalidModule, ScriptError
from crossfarm.frontends.tvmscript import arguments as args
from crossfarm.frontends.tvmscript import blocks, calls, loops
from crossfarm.frontends.tvmscript.assignments import parse_annotated, parse_assign, parse_augmented
from crossfarm.frontends.tvmscript.attributes import function_attributes
from crossfarm.frontends.tvmscript.context import FunctionContext, Scope, spelled
from crossfarm.frontends.tvmscript.dialect import STATEMENT_NAMES
from crossfarm.frontends.tvmscript.scoped import parse_scoped
from crossfarm.frontends.tvmscript.source import nearest
from crossfarm.ir.stmt import AssertStmt, Evaluate, IfThenElse, SeqStmt, Stmt
from crossfarm.ir.visitor import seq

#: Makes the statement for the rest of the scope from that rest.
Wrap = Callable[[Stmt], Stmt]
#: A statement, a wrap around what follows, or nothing (a declaration).
Result = Stmt | Wrap | None

#: What ``with`` may open beside blocks.
_SCOPED = ("tir.attr", "tir.launch_thread", "tir.allocate", "tir.decl_buffer", "tir.LetStmt", "tir.Let")

_REFUSED = {
    ast.Import: ("import", "imports stand at the top of the script"),
    ast.ImportFrom: ("import", "imports stand at the top of the script"),
    ast.FunctionDef: ("nested function", "write it as a function of the module"),
    ast.AsyncFunctionDef: ("async function", ""),
    ast.ClassDef: ("nested class", ""),
    ast.Try: ("try", "programs have no exceptions"),
    ast.Raise: ("raise", "use assert condition, message"),
    ast.Delete: ("del", ""),
    ast.Global: ("global", ""),
    ast.Nonlocal: ("nonlocal", ""),
    ast.Break: ("break", "put the condition on the loop: while condition"),
    ast.Continue: ("continue", "put the rest under if"),
    ast.Return: ("return", "a program writes its results to its buffers"),
    ast.AsyncFor: ("async for", ""),
    ast.AsyncWith: ("async with", ""),
}


def parse_body(ctx: FunctionContext, nodes: list[ast.stmt]) -> Stmt:
    """The statements of one scope as one statement."""
    pending: list[tuple[list[Stmt], Wrap]] = []
    current: list[Stmt] = []
    for node in nodes:
        result = _statement(ctx, node)
        if isinstance(result, Stmt):
            current.append(result)
        elif result is not None:
            pending.append((current, result))
            current = []
    body = seq(*current)
    for before, wrap in reversed(pending):
        body = seq(*before, wrap(body))
    return body


def _statement(ctx: FunctionContext, node: ast.stmt) -> Result:
    try:
        if isinstance(node, ast.For):
            return loops.parse_for(ctx, node, parse_body)
        if isinstance(node, ast.Assign):
            return parse_assign(ctx, node)
        if isinstance(node, ast.With):
            return _with(ctx, node.items, node.body)
        if isinstance(node, ast.Expr):
            return _expression(ctx, node.value)
        if isinstance(node, ast.AnnAssign):
            return parse_annotated(ctx, node)
        if isinstance(node, ast.AugAssign):
            return parse_augmented(ctx, node)
        if isinstance(node, ast.If):
            return _if(ctx, node)
        if isinstance(node, ast.While):
            return loops.parse_while(ctx, node, parse_body)
        if isinstance(node, ast.Assert):
            return _assert(ctx, node, node.test, node.msg)
        if isinstance(node, ast.Pass):
            return SeqStmt(())
    except ScriptError:
        raise
    except InvalidModule as error:
        raise ctx.source.wrap(node, error, "statement") from None
    name, hint = _REFUSED.get(type(node), (type(node).__name__, ""))
    raise ctx.source.error(node, f"{name} is not part of the script language here", construct=name, hint=hint)


def _if(ctx: FunctionContext, node: ast.If) -> Stmt:
    condition = args.condition(ctx, node.test, "if")
    with Scope(ctx, "if"):
        then_body = parse_body(ctx, node.body)
    if not node.orelse:
        return IfThenElse(condition, then_body)
    with Scope(ctx, "if"):
        return IfThenElse(condition, then_body, parse_body(ctx, node.orelse))


def _assert(ctx: FunctionContext, node: ast.AST, test: ast.expr, message: ast.expr | None) -> Stmt:
    text = args.string(ctx, message, "the message of assert") if message is not None else ""
    return AssertStmt(args.condition(ctx, test, "assert"), text)


def _with(ctx: FunctionContext, items: list[ast.withitem], stmts: list[ast.stmt]) -> Result:
    """One item at a time: ``with a, b:`` is ``with a:`` around ``with b:``."""
    item, rest = items[0], items[1:]
    call = item.context_expr
    name = ctx.resolve(call.func) if isinstance(call, ast.Call) else None

    def body(inner: FunctionContext, nodes: list[ast.stmt]) -> Stmt:
        if not rest:
            return parse_body(inner, nodes)
        result = _with(inner, rest, nodes)
        assert result is None or isinstance(result, Stmt)
        return result if result is not None else SeqStmt(())

    if isinstance(call, ast.Call) and name is not None:
        if name == "tir.block":
            if item.optional_vars is not None:
                raise ctx.source.error(
                    item.optional_vars, "with T.block(...) as axes is the form of TVM 0.7", construct="T.block as",
                    hint='name the axes inside: v = T.axis.spatial(n, i)',
                )  # fmt: skip
            return blocks.parse_block(ctx, call, stmts, body)
        if name == "tir.init":
            blocks.parse_init(ctx, call, stmts, body)
            return None
        if name == "tir.Assert":
            bound = args.bind_arguments(ctx, call, "T.Assert", ("condition", "message"), 2)
            check = _assert(ctx, call, bound["condition"], bound["message"])
            with Scope(ctx, "with"):
                return seq(check, body(ctx, stmts))
        if name in _SCOPED:
            with Scope(ctx, "with"):
                wrap = parse_scoped(ctx, call, name, item.optional_vars)
                return wrap(body(ctx, stmts))
    text = spelled(ctx, call.func if isinstance(call, ast.Call) else call)
    raise ctx.source.error(
        call, f"with {text} is not part of the script language", construct=f"with {text}",
        hint=nearest(text.rsplit(".", 1)[-1], STATEMENT_NAMES, "T."),
    )  # fmt: skip


def _expression(ctx: FunctionContext, node: ast.expr) -> Result:
    """A statement that is an expression: a declaration of a block or function, or a call for its effect."""
    if isinstance(node, ast.Constant) and (isinstance(node.value, str) or node.value is ...):
        return None  # a docstring
    if not isinstance(node, ast.Call):
        value = args.expr(ctx, node)
        raise ctx.source.error(
            node, f"a {value.dtype} value that nothing uses", construct="expression statement",
            hint="T.evaluate(x) keeps an expression for its effect",
        )  # fmt: skip
    name = ctx.resolve(node.func)
    short = (name or "").removeprefix("tir.")
    if name in ("tir.reads", "tir.writes"):
        blocks.parse_regions(ctx, node, short)
    elif name == "tir.where":
        blocks.parse_where(ctx, node)
    elif name == "tir.block_attr":
        blocks.parse_block_attr(ctx, node)
    elif name == "tir.func_attr":
        _func_attr(ctx, node)
    elif name == "tir.evaluate":
        (item,) = args.positional(ctx, node, "T.evaluate", 1)
        return Evaluate(args.expr(ctx, item))
    elif name == "tir.Assert":
        bound = args.bind_arguments(ctx, node, "T.Assert", ("condition", "message"), 2)
        return _assert(ctx, node, bound["condition"], bound["message"])
    elif name in ("tir.attr", "tir.launch_thread"):
        return parse_scoped(ctx, node, name, None)
    elif name is not None and name.startswith("tir.") and short in STATEMENT_NAMES:
        raise ctx.source.error(node, f"T.{short} has no place here as a statement", construct=f"T.{short}")
    else:
        return Evaluate(args.as_expr(ctx, node, calls.evaluate_call(ctx, node)))
    return None


def _func_attr(ctx: FunctionContext, node: ast.Call) -> None:
    if ctx.frames[-1].kind != "function":
        raise ctx.source.error(node, "T.func_attr must stand directly in the function", construct="T.func_attr")
    (item,) = args.positional(ctx, node, "T.func_attr", 1)
    ctx.attrs.update(function_attributes(ctx, item, "T.func_attr"))
