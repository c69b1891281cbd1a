"""Definitions of graph functions → ``Function``, in the order in which what they call is known."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crossfarm.errors import ScriptError
from crossfarm.frontends.tvmscript import arguments as args
from crossfarm.frontends.tvmscript.assignments import declared_dtype
from crossfarm.frontends.tvmscript.context import spelled
from crossfarm.frontends.tvmscript.dialect import Aliases
from crossfarm.frontends.tvmscript.expressions import evaluate
from crossfarm.frontends.tvmscript.graph.context import GraphContext, ModuleNames
from crossfarm.frontends.tvmscript.graph.statements import parse_body
from crossfarm.frontends.tvmscript.graph.types import Annotation, SomeTuple, agrees, annotation, whole
from crossfarm.frontends.tvmscript.graph.values import parse_value
from crossfarm.frontends.tvmscript.source import Source, nearest
from crossfarm.ir.graph.expr import Function, GraphVar, Seq, TupleExpr
from crossfarm.ir.graph.infer import type_of
from crossfarm.ir.graph.types import PrimType, ShapeType, TensorType
from crossfarm.ir.printer import print_node
from crossfarm.ir.visitor import MAX_DEPTH, make_room

#: What ``@R.function(...)`` may say. The last one changes nothing here.
_OPTIONS = ("private", "pure", "check_well_formed")


def is_graph_function(aliases: Aliases, node: ast.FunctionDef) -> bool:
    """True for what ``@R.function`` stands above."""
    decorators = (item.func if isinstance(item, ast.Call) else item for item in node.decorator_list)
    return any(aliases.resolve(item) == "relax.function" for item in decorators)


def parse_graph_functions(
    source: Source, aliases: Aliases, nodes: list[ast.FunctionDef], captured: Mapping[str, Any], module: ModuleNames
) -> dict[str, Function]:
    """The graph functions of a module by name. Raises ScriptError for one outside the subset."""
    make_room()
    signatures = {node.name: _signature(source, aliases, node, captured, module) for node in nodes}
    functions: dict[str, Function] = {}

    def parse(name: str, callers: tuple[str, ...]) -> None:
        signature = signatures[name]
        for callee in _mentioned(signature.node, signatures):
            if callee in module.typed:
                continue
            if callee in (*callers, name):
                raise source.error(
                    signatures[callee].node, f"the function {callee} calls itself, by others or directly, and does not "
                    "say what it returns", construct=f"def {callee}",
                    hint='annotate the result: def f(...) -> R.Tensor((n, 64), dtype="float32")',
                )  # fmt: skip
            parse(callee, (*callers, name))
        functions[name] = _function(signature)
        module.typed[name] = functions[name]

    for name in signatures:
        if name not in functions:
            try:
                parse(name, ())
            except RecursionError:
                raise _too_deep(source, signatures[name].node) from None
    return functions


@dataclass(frozen=True)
class _Signature:
    """A definition whose body is still to be read."""

    ctx: GraphContext
    node: ast.FunctionDef
    params: tuple[GraphVar, ...]
    result: Annotation | None
    private: bool
    pure: bool


def _signature(
    source: Source, aliases: Aliases, node: ast.FunctionDef, captured: Mapping[str, Any], module: ModuleNames
) -> _Signature:
    options = _options(source, aliases, node)
    ctx = GraphContext(source, aliases, captured, evaluate, parse_value, module)
    for stmt in ast.walk(node):
        if isinstance(stmt, ast.Assign):
            ctx.declared.update(declared_dtype(ctx, stmt))
    spec = node.args
    for extra in (*spec.posonlyargs, *spec.kwonlyargs, spec.vararg, spec.kwarg):
        if extra is not None:
            raise source.error(extra, f"the parameter {extra.arg} must be a plain one", construct="parameter")
    for default in (*spec.defaults, *spec.kw_defaults):
        if default is not None:
            raise source.error(default, "parameters have no default values", construct="default value")
    params = tuple(_parameter(ctx, arg) for arg in spec.args)
    result = None if args.is_none(node.returns) else annotation(ctx, _annotated(node.returns), defines=True)
    signature = _Signature(ctx, node, params, result, options.get("private", False), options.get("pure", True))
    if result is not None and _is_whole(result):
        # what callers need to know; the body follows
        kind = whole(ctx, _annotated(node.returns), result)
        module.typed[node.name] = Function(params, Seq((), TupleExpr(())), kind)
    return signature


def _annotated(node: ast.expr | None) -> ast.expr:
    assert node is not None
    return node


def _is_whole(result: Annotation) -> bool:
    if isinstance(result, SomeTuple):
        return result.fields is not None and all(map(_is_whole, result.fields))
    return isinstance(result, (TensorType, ShapeType, PrimType))


def _options(source: Source, aliases: Aliases, node: ast.FunctionDef) -> dict[str, bool]:
    found: dict[str, bool] = {}
    for item in node.decorator_list:
        func = item.func if isinstance(item, ast.Call) else item
        if aliases.resolve(func) != "relax.function":
            text = ast.unparse(func)[:60]
            raise source.error(
                item, f"the decorator {text} beside R.function", construct=f"@{text}", hint="write @R.function alone"
            )
        if not isinstance(item, ast.Call):
            continue
        for argument in item.args:
            raise source.error(argument, "R.function takes keyword arguments only", construct="R.function")
        for keyword in item.keywords:
            if keyword.arg not in _OPTIONS:
                raise source.error(
                    keyword.value, f"R.function has no option {keyword.arg!r}", construct="R.function",
                    hint=nearest(keyword.arg or "", _OPTIONS),
                )  # fmt: skip
            if not isinstance(keyword.value, ast.Constant) or not isinstance(keyword.value.value, bool):
                raise source.error(keyword.value, f"{keyword.arg} must be True or False", construct="R.function")
            found[keyword.arg] = keyword.value.value
    return found


def _parameter(ctx: GraphContext, arg: ast.arg) -> GraphVar:
    if arg.arg in ctx.values[0]:
        raise ctx.source.error(arg, f"the parameter {arg.arg} appears twice", construct="parameter")
    if arg.annotation is None:
        raise ctx.source.error(
            arg, f"the parameter {arg.arg} has no annotation", construct="parameter",
            hint=f'write {arg.arg}: R.Tensor((n, 64), dtype="float32")',
        )  # fmt: skip
    kind = whole(ctx, arg.annotation, annotation(ctx, arg.annotation, defines=True))
    var = ctx.builder.parameter(arg.arg, kind)
    ctx.values[0][arg.arg] = var
    return var


def _mentioned(node: ast.FunctionDef, known: Mapping[str, object]) -> list[str]:
    """Functions of the module that a definition may call, in the order of the text."""
    names = (n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name))
    return list(dict.fromkeys(name for name in names if name in known))


def _function(signature: _Signature) -> Function:
    ctx, node = signature.ctx, signature.node
    ctx.builder.functions = dict(ctx.module.typed)
    body = parse_body(ctx, node.body, node)
    result = type_of(body.result, ctx.module.typed)
    if signature.result is not None and not agrees(signature.result, result):
        returns = _annotated(node.returns)
        raise ctx.source.error(
            returns, f"the result is declared {spelled(ctx, returns)} and is {print_node(result)}",
            construct="return annotation", hint="annotate what the function returns, or nothing",
        )  # fmt: skip
    attrs = dict(ctx.attrs)
    if attrs.get("global_symbol") == node.name:
        del attrs["global_symbol"]
    return Function(signature.params, body, result, attrs, signature.private, signature.pure)


def _too_deep(source: Source, node: ast.FunctionDef) -> ScriptError:
    return source.error(
        node, f"the function {node.name} nests deeper than {MAX_DEPTH} levels", construct="nesting",
        hint="split it into several functions",
    )  # fmt: skip
