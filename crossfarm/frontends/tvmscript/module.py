"""The top level of a script: imports, symbolic sizes, and a module class or bare functions."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any, TypeVar

from crossfarm.frontends.tvmscript import arguments as args
from crossfarm.frontends.tvmscript.attributes import attributes
from crossfarm.frontends.tvmscript.context import FunctionContext
from crossfarm.frontends.tvmscript.dialect import Aliases
from crossfarm.frontends.tvmscript.expressions import evaluate
from crossfarm.frontends.tvmscript.functions import parse_function
from crossfarm.frontends.tvmscript.graph.context import ModuleNames
from crossfarm.frontends.tvmscript.graph.functions import is_graph_function, parse_graph_functions
from crossfarm.frontends.tvmscript.source import Source, nearest
from crossfarm.ir.module import AnyFunction, IRModule
from crossfarm.ir.stmt import AttrValue


def parse_module(source: Source, captured: Mapping[str, Any] | None = None) -> IRModule:
    """The module a script text holds.

    Args:
        captured: what names outside the text stand for (a decorator's surroundings).

    Raises:
        ScriptError: the text is outside the subset.
    """
    known = dict(captured or {})
    aliases = Aliases(source, known)
    definitions: list[ast.FunctionDef] = []
    module: IRModule | None = None
    for node in source.tree().body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            aliases.add_import(node)
        elif isinstance(node, ast.ClassDef):
            if module is not None or definitions:
                raise source.error(
                    node, "the script defines more than one module", construct=f"class {node.name}",
                    hint="keep one module a file",
                )  # fmt: skip
            module = _class(source, aliases, node, known)
        elif isinstance(node, ast.FunctionDef):
            if module is not None:
                raise source.error(
                    node, "a function beside a module", construct=f"def {node.name}", hint="move it into the class"
                )
            definitions.append(node)
        elif isinstance(node, ast.Assign):
            _assign(source, aliases, node, known)
        elif not _is_docstring(node):
            raise _refused(source, node)
    if module is None and not definitions:
        raise source.error(
            None, "the script defines nothing", construct="script",
            hint="define a class with @I.ir_module, or a function with @T.prim_func or @R.function",
        )  # fmt: skip
    return module if module is not None else IRModule(_functions(source, aliases, definitions, known, "Module"))


def _class(source: Source, aliases: Aliases, node: ast.ClassDef, captured: Mapping[str, Any]) -> IRModule:
    for item in node.decorator_list:
        func = item.func if isinstance(item, ast.Call) else item
        if aliases.resolve(func) != "ir.ir_module":
            text = ast.unparse(func)[:60]
            raise source.error(
                item, f"the decorator {text} is not part of the script language", construct=f"@{text}",
                hint=nearest(text, ["I.ir_module"]) or "a module is decorated with @I.ir_module",
            )  # fmt: skip
        if isinstance(item, ast.Call):
            _module_options(source, item)
    if not node.decorator_list:
        raise source.error(
            node, f"the class {node.name} has no decorator", construct=f"class {node.name}", hint="write @I.ir_module"
        )
    for base in (*node.bases, *(k.value for k in node.keywords)):
        raise source.error(base, "a module has no base classes", construct=f"class {node.name}")
    definitions: list[ast.FunctionDef] = []
    attrs: dict[str, AttrValue] = {}
    for stmt in node.body:
        if isinstance(stmt, ast.FunctionDef):
            definitions.append(stmt)
        elif isinstance(stmt, ast.Expr) and isinstance(stmt.value, ast.Call):
            attrs.update(_module_call(source, aliases, stmt.value, captured))
        elif not isinstance(stmt, ast.Pass) and not _is_docstring(stmt):
            raise _refused(source, stmt)
    return IRModule(_functions(source, aliases, definitions, captured, node.name), attrs, name=node.name)


def _module_options(source: Source, call: ast.Call) -> None:
    for argument in call.args:
        raise source.error(argument, "I.ir_module takes keyword arguments only", construct="I.ir_module")
    for keyword in call.keywords:
        if keyword.arg not in ("check_well_formed", "s_tir"):
            raise source.error(keyword.value, f"I.ir_module has no option {keyword.arg!r}", construct="I.ir_module")


def _module_call(source: Source, aliases: Aliases, call: ast.Call, captured: Mapping[str, Any]) -> dict[str, AttrValue]:
    name = aliases.resolve(call.func)
    if name != "ir.module_attrs":
        text = ast.unparse(call.func)[:60]
        raise source.error(
            call, f"{text} has no place in a module", construct=text,
            hint=nearest((name or text).rsplit(".", 1)[-1], ["module_attrs"], "I.") or "I.module_attrs({...}) has",
        )  # fmt: skip
    ctx = FunctionContext(source, aliases, captured, evaluate)
    (node,) = args.positional(ctx, call, "I.module_attrs", 1)
    return attributes(ctx, node, "I.module_attrs")


def _functions(
    source: Source, aliases: Aliases, nodes: list[ast.FunctionDef], captured: Mapping[str, Any], module: str
) -> dict[str, AnyFunction]:
    """All functions of a module: tensor programs first, then graph functions, which call them."""
    names: set[str] = set()
    for node in nodes:
        if node.name in names:
            raise source.error(node, f"the function {node.name} is defined twice", construct=f"def {node.name}")
        names.add(node.name)
    graphs = [node for node in nodes if is_graph_function(aliases, node)]
    called = frozenset(node.name for node in graphs)
    found: dict[str, AnyFunction] = {
        node.name: parse_function(source, aliases, node, captured) for node in nodes if node.name not in called
    }
    found.update(
        parse_graph_functions(source, aliases, graphs, captured, ModuleNames(module, frozenset(names - called), called))
    )
    return {node.name: found[node.name] for node in nodes}


def _assign(source: Source, aliases: Aliases, node: ast.Assign, known: dict[str, Any]) -> None:
    """``n = TypeVar("n")`` declares a symbolic size; nothing else is assigned at the top level."""
    target, value = node.targets[0], node.value
    is_size = isinstance(value, ast.Call) and aliases.resolve(value.func) in ("typing.TypeVar", "tir.TypeVar")
    if len(node.targets) != 1 or not isinstance(target, ast.Name) or not is_size:
        raise source.error(
            node, "an assignment at the top level", construct="assignment",
            hint='only symbolic sizes are declared there: n = TypeVar("n")',
        )  # fmt: skip
    known[target.id] = TypeVar(target.id)


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _refused(source: Source, node: ast.stmt) -> Exception:
    names = {
        ast.AsyncFunctionDef: "async function", ast.If: "if", ast.For: "for", ast.While: "while", ast.With: "with",
        ast.Try: "try", ast.AugAssign: "augmented assignment", ast.AnnAssign: "annotated assignment",
        ast.Delete: "del", ast.Assign: "assignment", ast.Raise: "raise", ast.Assert: "assert", ast.Global: "global",
    }  # fmt: skip
    name = names.get(type(node), "expression" if isinstance(node, ast.Expr) else type(node).__name__)
    return source.error(
        node, f"{name} has no place at the top level of a script: it is read, never executed", construct=name,
        hint="a script holds imports, symbolic sizes, and a module or functions",
    )  # fmt: skip
