"""Bodies of graph functions: bindings, blocks of dataflow, branches."""

from __future__ import annotations

import ast
from dataclasses import replace

from crossfarm.frontends.tvmscript import arguments as args
from crossfarm.frontends.tvmscript.assignments import declared_dtype
from crossfarm.frontends.tvmscript.attributes import function_attributes
from crossfarm.frontends.tvmscript.context import spelled
from crossfarm.frontends.tvmscript.graph.calls import match_cast
from crossfarm.frontends.tvmscript.graph.context import GraphContext
from crossfarm.frontends.tvmscript.graph.types import agrees, annotation
from crossfarm.ir.graph.builder import Builder
from crossfarm.ir.graph.expr import ATOMS, BindingBlock, Conditional, GraphExpr, GraphVar, Seq, TupleExpr
from crossfarm.ir.graph.infer import same_type, type_of
from crossfarm.ir.graph.types import Type
from crossfarm.ir.printer import print_node

_REFUSED = {
    ast.For: ("for", "graph functions have no loops: write a tensor program, and R.call_tir it"),
    ast.While: ("while", "graph functions have no loops: write a tensor program, and R.call_tir it"),
    ast.AugAssign: ("augmented assignment", "values never change: bind the result to a new name"),
    ast.Assert: ("assert", "R.match_cast checks shapes when the program runs"),
    ast.FunctionDef: ("nested function", "write it as a function of the module"),
    ast.Import: ("import", "imports stand at the top of the script"),
    ast.ImportFrom: ("import", "imports stand at the top of the script"),
    ast.Delete: ("del", ""),
}
_NOTHING = TupleExpr(())


def parse_body(ctx: GraphContext, nodes: list[ast.stmt], function: ast.FunctionDef) -> Seq:
    """A function's body, which ends in ``return``."""
    blocks: list[BindingBlock] = []
    for position, node in enumerate(nodes):
        if not isinstance(node, ast.Return):
            _statement(ctx, node, blocks)
            continue
        if position + 1 < len(nodes):
            raise ctx.source.error(nodes[position + 1], "a statement after return", construct="return")
        if node.value is None:
            raise ctx.source.error(node, "return needs a value", construct="return", hint="return () for none")
        result = ctx.atom(node.value)
        _end_block(ctx, blocks, dataflow=False)
        return Seq(tuple(blocks), result)
    raise ctx.source.error(
        function, f"the function {function.name} returns nothing", construct=f"def {function.name}",
        hint="end it in return value",
    )  # fmt: skip


def _statement(ctx: GraphContext, node: ast.stmt, blocks: list[BindingBlock]) -> None:
    if isinstance(node, (ast.Assign, ast.AnnAssign)):
        _assign(ctx, node)
    elif isinstance(node, ast.With):
        _dataflow(ctx, node, blocks)
    elif isinstance(node, ast.If):
        name, var = _conditional(ctx, node)
        ctx.values[-1][name] = var
    elif isinstance(node, ast.Expr):
        _expression(ctx, node.value)
    elif isinstance(node, ast.Return):
        raise ctx.source.error(node, "return has no place here", construct="return", hint="end the function in it")
    elif not isinstance(node, ast.Pass):
        name, hint = _REFUSED.get(type(node), (type(node).__name__, ""))
        raise ctx.source.error(node, f"{name} is not part of the script language here", construct=name, hint=hint)


def _assign(ctx: GraphContext, node: ast.Assign | ast.AnnAssign) -> None:
    if declared_dtype(ctx, node):
        return  # a symbolic size: its names were taken in before
    target, value = _target(ctx, node)
    if isinstance(value, ast.Name) and value.id in ctx.modules and ctx.find(value.id) is None:
        ctx.modules.add(target)
        return
    if isinstance(value, ast.Call) and ctx.resolve(value.func) == "relax.match_cast":
        bound = match_cast(ctx, value, target)
    else:
        bound = ctx.bind_value(value, target)
    _check(ctx, node, bound.type)
    ctx.values[-1][target] = bound


def _target(ctx: GraphContext, node: ast.Assign | ast.AnnAssign) -> tuple[str, ast.expr]:
    """Name and value of ``x = value``. Raises ScriptError for any other assignment."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    if len(targets) != 1:
        raise ctx.source.error(node, "a = b = c is not part of the script language", construct="chained assignment")
    if not isinstance(targets[0], ast.Name):
        raise ctx.source.error(
            targets[0], f"assignment to {spelled(ctx, targets[0])}", construct="assignment",
            hint="name the whole value, and take its items: a = t[0]",
        )  # fmt: skip
    if node.value is None:
        raise ctx.source.error(node, "a declaration without a value", construct="annotation", hint="bind a value")
    return targets[0].id, node.value


def _check(ctx: GraphContext, node: ast.Assign | ast.AnnAssign, kind: Type) -> None:
    """Raises ScriptError where an annotation is not what the value is."""
    if isinstance(node, ast.AnnAssign) and not agrees(annotation(ctx, node.annotation), kind):
        name, declared = spelled(ctx, node.target), spelled(ctx, node.annotation)
        raise ctx.source.error(
            node.annotation, f"{name} is declared {declared} and its value is {print_node(kind)}",
            construct="annotation",
            hint="R.match_cast states what cannot be known before the program runs",
        )  # fmt: skip


def _dataflow(ctx: GraphContext, node: ast.With, blocks: list[BindingBlock]) -> None:
    """``with R.dataflow():``, whose values end with it unless ``R.output`` names them."""
    call = node.items[0].context_expr
    if not isinstance(call, ast.Call) or ctx.resolve(call.func) != "relax.dataflow" or len(node.items) > 1:
        text = spelled(ctx, call)
        raise ctx.source.error(
            call, f"with {text} is not part of the script language", construct=f"with {text}",
            hint="with R.dataflow(): is what graph functions have",
        )  # fmt: skip
    args.positional(ctx, call, "R.dataflow", 0)
    if ctx.in_dataflow:
        raise ctx.source.error(node, "R.dataflow in R.dataflow", construct="R.dataflow", hint="write one block")
    _end_block(ctx, blocks, dataflow=False)
    ctx.in_dataflow = True
    ctx.values.append({})
    outputs: dict[str, GraphVar] = {}
    for position, stmt in enumerate(node.body):
        call_node = stmt.value if isinstance(stmt, ast.Expr) else None
        if not isinstance(call_node, ast.Call) or ctx.resolve(call_node.func) != "relax.output":
            _statement(ctx, stmt, blocks)
            continue
        if position + 1 < len(node.body):
            raise ctx.source.error(node.body[position + 1], "a statement after R.output", construct="R.output")
        for item in args.positional(ctx, call_node, "R.output"):
            if not isinstance(item, ast.Name) or item.id not in ctx.values[-1]:
                raise ctx.source.error(
                    item, f"R.output names what the block computes, not {spelled(ctx, item)}", construct="R.output"
                )
            outputs[item.id] = ctx.values[-1][item.id]
    ctx.values.pop()
    ctx.values[-1].update(outputs)
    ctx.in_dataflow = False
    before = len(blocks)
    _end_block(ctx, blocks, dataflow=True)
    if len(blocks) == before:
        blocks.append(BindingBlock(()))


def _end_block(ctx: GraphContext, blocks: list[BindingBlock], *, dataflow: bool) -> None:
    """What was bound since the last block, if anything, is a block."""
    blocks.extend(replace(block, dataflow=dataflow) for block in ctx.builder.seq(_NOTHING).blocks)


def _conditional(ctx: GraphContext, node: ast.If) -> tuple[str, GraphVar]:
    """``if`` and ``else``, which end in binding the same name; that name, and its variable."""
    condition = ctx.atom(node.test)
    if not node.orelse:
        raise ctx.source.error(
            node, "if without else", construct="if", hint="bind the same name as the last thing in both branches"
        )
    name, then = _branch(ctx, node.body)
    other_name, other = _branch(ctx, node.orelse)
    if name != other_name:
        raise ctx.source.error(
            node.orelse[-1], f"one branch ends in binding {name}, the other in binding {other_name}", construct="if",
            hint="bind the same name as the last thing in both branches",
        )  # fmt: skip
    with ctx.placed(node):
        types = [type_of(seq.result, ctx.module.typed) for seq in (then, other)]
        if not same_type(*types):
            raise ctx.source.error(
                node, f"{name} is {print_node(types[0])} in one branch and {print_node(types[1])} in the other",
                construct="if", hint="R.match_cast states that shapes are equal",
            )  # fmt: skip
        return name, ctx.builder.bind(Conditional(condition, then, other), name)


def _branch(ctx: GraphContext, nodes: list[ast.stmt]) -> tuple[str, Seq]:
    """The bindings of a branch; its last one names its value."""
    outside = ctx.builder, ctx.in_dataflow
    ctx.builder, ctx.in_dataflow = Builder(ctx.module.typed), False
    ctx.values.append({})
    blocks: list[BindingBlock] = []
    for node in nodes[:-1]:
        _statement(ctx, node, blocks)
    last = nodes[-1]
    result: GraphExpr
    if isinstance(last, ast.If):
        name, result = _conditional(ctx, last)
    elif isinstance(last, (ast.Assign, ast.AnnAssign)) and not declared_dtype(ctx, last):
        name, value_node = _target(ctx, last)
        value = ctx.value(value_node)
        with ctx.placed(value_node):
            result = value if isinstance(value, (*ATOMS, TupleExpr)) else ctx.builder.bind(value, name)
            _check(ctx, last, type_of(result, ctx.module.typed))
    else:
        raise ctx.source.error(
            last, "a branch ends in something else than a binding", construct="if",
            hint="bind the same name as the last thing in both branches",
        )  # fmt: skip
    _end_block(ctx, blocks, dataflow=False)
    ctx.values.pop()
    ctx.builder, ctx.in_dataflow = outside
    return name, Seq(tuple(blocks), result)


def _expression(ctx: GraphContext, node: ast.expr) -> None:
    """A docstring or ``R.func_attr``: a value that nothing uses is refused."""
    if isinstance(node, ast.Constant) and (isinstance(node.value, str) or node.value is ...):
        return
    name = ctx.resolve(node.func) if isinstance(node, ast.Call) else None
    if name == "relax.func_attr":
        assert isinstance(node, ast.Call)
        (item,) = args.positional(ctx, node, "R.func_attr", 1)
        ctx.attrs.update(function_attributes(ctx, item, "R.func_attr"))
        return
    if name == "relax.output":
        raise ctx.source.error(
            node, "R.output has no place here", construct="R.output", hint="it ends a block of with R.dataflow():"
        )
    ctx.value(node)  # what is wrong with it comes first
    raise ctx.source.error(
        node, "a value that nothing uses", construct="expression statement", hint="bind it to a name: x = value"
    )
