"""Modules as canonical script text.

The promise, for a module that verifies: ``parse(print_module(m))`` is structurally equal to it, and printing that gives
the same text again. The text is deterministic, is valid Python, and runs as a module with ``crossfarm.script``'s
decorators.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crossfarm.errors import InvalidModule
from crossfarm.ir.buffer import Buffer, BufferRegion
from crossfarm.ir.expr import Expr, IntImm, Range, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.graph.expr import Function
from crossfarm.ir.module import AnyFunction, IRModule
from crossfarm.ir.printer_graph import graph_function_lines, graph_node_text
from crossfarm.ir.printer_names import Names, python_name
from crossfarm.ir.printer_stmt import StmtPrinter
from crossfarm.ir.stmt import Block, BlockRealize, IterVar, MatchBufferRegion, Stmt
from crossfarm.ir.visitor import make_room, walk

HEADER = "from crossfarm.script import ir as I, tir as T"
#: Where there are graph functions.
GRAPH_HEADER = f"{HEADER}, relax as R"


def print_module(mod: IRModule) -> str:
    """The whole module, ending in a newline. Raises InvalidModule for a node without a printed form."""
    make_room()
    header = GRAPH_HEADER if mod.graph_functions else HEADER
    lines = [header, "", "", "@I.ir_module", f"class {python_name(mod.name)}:"]
    if mod.attrs:
        lines.append(f"    I.module_attrs({StmtPrinter(Names()).mapping(mod.attrs)})")
    elif not mod.functions:
        lines.append("    pass")
    for position, (name, func) in enumerate(mod.functions.items()):
        if position or mod.attrs:
            lines.append("")
        if isinstance(func, Function):
            lines.extend(graph_function_lines(name, func, 1, python_name(mod.name)))
        else:
            lines.extend(_function_lines(name, func, depth=1))
    return "\n".join(lines) + "\n"


def print_function(func: AnyFunction, name: str = "main") -> str:
    """One function without a module around it, ending in a newline; reads back as a module of one function."""
    make_room()
    if isinstance(func, Function):
        return "\n".join([GRAPH_HEADER, "", "", *graph_function_lines(name, func, 0, "Module")]) + "\n"
    return "\n".join([HEADER, "", "", *_function_lines(name, func, depth=0)]) + "\n"


def print_node(node: Any) -> str:
    """Any node on its own, for messages: an expression, statement, region, range, buffer, axis, function or module, or
    a node or type of graph functions."""
    make_room()
    if isinstance(node, IRModule):
        return print_module(node)
    if isinstance(node, (PrimFunc, Function)):
        return print_function(node)
    printer = StmtPrinter(Names())
    if isinstance(node, Expr):
        return printer.expr(node)
    if isinstance(node, Stmt):
        realize = (
            BlockRealize(tuple(a.var for a in node.iter_vars), IntImm(1, "bool"), node)
            if isinstance(node, Block)
            else node
        )
        printer.body(realize)
        return "\n".join(printer.lines)
    if isinstance(node, Buffer):
        return f"{printer.names[node]}: T.Buffer({printer.buffer(node)})"
    if isinstance(node, BufferRegion):
        return printer.region(node)
    if isinstance(node, Range):
        return f"{printer.expr(node.min)}:{printer.stop(node)}"
    if isinstance(node, IterVar):
        return f"{printer.names[node.var]}: {node.kind} in {printer.expr(node.dom.min)}:{printer.stop(node.dom)}"
    if isinstance(node, MatchBufferRegion):
        view = printer.buffer(node.buffer)
        return f"{printer.names[node.buffer]} = T.match_buffer({printer.region(node.source)}, {view})"
    text = graph_node_text(node)
    if text is None:
        raise InvalidModule(f"{type(node).__name__} has no printed form")
    return text


def _function_lines(name: str, func: PrimFunc, depth: int) -> list[str]:
    names = Names()
    printer = StmtPrinter(names, depth)
    signature: list[str] = []
    for param in func.params:
        # scalars and buffers in order; a buffer whose annotation would need names is matched in the body
        if isinstance(param, Var):
            signature.append(f"{names.define(param)}: T.{param.dtype}")
        elif _is_static(param):
            signature.append(f"{names.define(param)}: T.Buffer({printer.buffer(param)})")
        else:
            names.define(param)
            signature.append("")
    matched = []
    for position, param in enumerate(func.params):
        if not signature[position]:
            assert isinstance(param, Buffer)
            handle = names.reserve(f"var_{names[param]}")
            signature[position] = f"{handle}: T.handle"
            matched.append((handle, param))
    printer.line("@T.prim_func(private=True)" if func.private else "@T.prim_func")
    with printer.scope(f"def {name}({', '.join(signature)})"):
        late = _mentions_undefined(func.attrs, names)
        if func.attrs and not late:
            printer.line(f"T.func_attr({printer.function_attributes(func.attrs)})")
        printer.declare_sizes([buffer for _, buffer in matched])
        if func.attrs and late:
            printer.line(f"T.func_attr({printer.function_attributes(func.attrs)})")
        for handle, buffer in matched:
            printer.line(f"{names[buffer]} = T.match_buffer({handle}, {printer.buffer(buffer)})")
        root = _implicit_root(func.body)
        if root is not None:
            printer.block_content(root)
        else:
            printer.body(func.body)
    return printer.lines


def _mentions_undefined(value: Any, names: Names) -> bool:
    """True for an attribute that needs a size to be declared first."""
    if isinstance(value, Mapping):
        return any(_mentions_undefined(item, names) for item in value.values())
    if isinstance(value, (tuple, list)):
        return any(_mentions_undefined(item, names) for item in value)
    return isinstance(value, Expr) and any(isinstance(node, Var) and node not in names for node in walk(value))


def _is_static(buffer: Buffer) -> bool:
    """Its annotation is nothing but numbers."""
    plain = not buffer.strides and buffer.elem_offset is None and buffer.align == 64 and buffer.scope == "global"
    return plain and all(isinstance(dim, IntImm) for dim in buffer.shape)


def _implicit_root(body: Stmt) -> Block | None:
    """The root block, where leaving its ``with`` out reads back the same."""
    if not isinstance(body, BlockRealize) or body.iter_values or body.block.name != "root":
        return None
    block = body.block
    if not (isinstance(body.predicate, IntImm) and body.predicate.value == 1):
        return None
    if block.reads or block.writes or block.annotations or block.match_buffers or block.init is not None:
        return None
    inner = block.body
    if isinstance(inner, BlockRealize) and inner.block.name == "root" and not inner.iter_values:
        return None  # would be taken for the root itself
    has_blocks = any(isinstance(node, BlockRealize) for node in walk(inner))
    return block if block.alloc_buffers or has_blocks else None
