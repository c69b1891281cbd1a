"""Graph functions as text: one binding a line, types written out, so that shapes can be read where values are made.

Every name is unique in its function, branches included: reading the text gives the same names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from crossfarm.errors import InvalidModule
from crossfarm.ir.expr import Expr, IntImm
from crossfarm.ir.graph import visit
from crossfarm.ir.graph.expr import (
    Binding,
    BindingBlock,
    CallPacked,
    CallTIR,
    Conditional,
    Constant,
    Function,
    FunctionCall,
    GraphExpr,
    GraphVar,
    MatchCast,
    OperatorCall,
    PrimValue,
    Seq,
    ShapeExpr,
    TupleExpr,
    TupleItem,
)
from crossfarm.ir.graph.operator import Operator
from crossfarm.ir.graph.operators import OPERATORS
from crossfarm.ir.graph.types import TYPES, PrimType, ShapeType, TensorType, TupleType, Type
from crossfarm.ir.printer_constant import constant_text
from crossfarm.ir.printer_expr import quote
from crossfarm.ir.printer_names import Names
from crossfarm.ir.printer_sizes import SizePrinter
from crossfarm.ir.printer_stmt import StmtPrinter


def graph_function_lines(name: str, func: Function, depth: int, module: str) -> list[str]:
    """The lines of one graph function; ``module`` is what the class around it is called."""
    printer = GraphPrinter(Names(), depth)
    options = [text for text, said in (("private=True", func.private), ("pure=False", not func.pure)) if said]
    printer.line(f"@R.function({', '.join(options)})" if options else "@R.function")
    for param in func.params:
        printer.names.define(param)
    sizes = visit.sizes(func)
    for size in sizes:
        printer.names.define(size)
    params = ", ".join(f"{printer.names[p]}: {printer.type(p.type, quoted=True)}" for p in func.params)
    with printer.scope(f"def {name}({params}) -> {printer.type(func.result, quoted=True)}"):
        for size in sizes:
            printer.line(f"{printer.names[size]} = T.{size.dtype}()")
        if func.attrs:
            printer.line(f"R.func_attr({printer.function_attributes(func.attrs)})")
        if any(isinstance(e, (CallTIR, FunctionCall)) for e in visit.expressions(func)):
            printer.line(f"cls = {module}")
        printer.seq(func.body)
        printer.line(f"return {printer.graph(func.body.result)}")
    return printer.lines


def graph_node_text(node: object) -> str | None:
    """Any node or type of graph functions on its own, for messages; None for anything else."""
    printer = GraphPrinter(Names())
    if isinstance(node, TYPES):
        return printer.type(node)
    if isinstance(node, Conditional):
        node = Binding(GraphVar("value", PrimType("bool")), node)
    if isinstance(node, GraphExpr):
        return printer.graph(node)
    if isinstance(node, (Binding, MatchCast)):
        printer.bindings((node,))
    elif isinstance(node, BindingBlock):
        printer.block(node, {b.var for b in node.bindings})
    elif isinstance(node, Seq):
        printer.seq(node)
        printer.line(f"return {printer.graph(node.result)}")
    else:
        return None
    return "\n".join(printer.lines)


class GraphPrinter(SizePrinter, StmtPrinter):
    """Prints the bindings of one function into ``lines``."""

    def seq(self, seq: Seq) -> None:
        """All blocks of a body or branch; what it results in is left to the caller."""
        used = set(visit.uses(seq.result))
        outputs: list[set[GraphVar]] = []
        for block in reversed(seq.blocks):
            outputs.append({b.var for b in block.bindings if b.var in used})
            used.update(v for b in block.bindings for v in visit.uses(b))
        for block, names in zip(seq.blocks, reversed(outputs)):
            self.block(block, names)

    def block(self, block: BindingBlock, outputs: set[GraphVar]) -> None:
        """A block; ``outputs``: of its variables, those that are used after it."""
        if not block.dataflow:
            self.bindings(block.bindings)
            return
        with self._indented("with R.dataflow()"):
            self.bindings(block.bindings)
            names = [self.names[b.var] for b in block.bindings if b.var in outputs]
            self.line(f"R.output({', '.join(names)})")

    def bindings(self, bindings: Iterable[Binding | MatchCast]) -> None:
        """Each on a line, a Conditional on several."""
        for binding in bindings:
            if isinstance(binding, MatchCast):
                value = f"R.match_cast({self.graph(binding.value)}, {self.type(binding.type)})"
                self.line(f"{self.names.define(binding.var)} = {value}")
            elif isinstance(binding.value, Conditional):
                self._conditional(binding.var, binding.value)
            else:
                value = self.graph(binding.value)
                said = isinstance(binding.value, (CallTIR, CallPacked))  # its text says the type already
                declared = "" if said else f": {self.type(binding.var.type)}"
                self.line(f"{self.names.define(binding.var)}{declared} = {value}")

    def graph(self, node: GraphExpr) -> str:
        """A value's text. Raises InvalidModule for a Conditional that is not directly bound."""
        match node:
            case GraphVar():
                return self.names[node]
            case Constant(data=data):
                return constant_text(data)
            case ShapeExpr(values=values):
                return f"R.shape([{self._dims(values)}])"
            case PrimValue(value=value):
                return f"R.prim_value({self.dim(value)})"
            case TupleExpr(fields=fields):
                return self._tuple(fields)
            case TupleItem(value=value, index=index):
                return f"{self.graph(value)}[{index}]"
            case OperatorCall():
                return self._operator(node)
            case CallTIR():
                parts = [f"cls.{node.function}", self._tuple(node.args), f"out_sinfo={self._out(node.out)}"]
                parts += [f"tir_vars=R.shape([{self._dims(node.sizes)}])"] if node.sizes else []
                parts += [f"origin={quote(node.origin)}"] if node.origin else []
                return f"R.call_tir({', '.join(parts)})"
            case CallPacked():
                out = self._out(node.out)
                return f"R.call_dps_packed({quote(node.function)}, {self._tuple(node.args)}, out_sinfo={out})"
            case FunctionCall():
                return f"cls.{node.function}({', '.join(map(self.graph, node.args))})"
        raise InvalidModule(
            f"a {type(node).__name__} in another expression has no printed form", hint="bind it to a variable"
        )

    def type(self, kind: Type, quoted: bool = False) -> str:
        """A type's text; ``quoted``: sizes stand in quotes, as they do before they are declared."""
        match kind:
            case TensorType(shape=shape, dtype=dtype):
                dims = self._dims(shape, quoted) + ("," if len(shape) == 1 else "")
                return f"R.Tensor(({dims}), dtype={quote(dtype)})"
            case TupleType(fields=fields):
                return f"R.Tuple({', '.join(self.type(f, quoted) for f in fields)})"
            case ShapeType(values=values):
                return f"R.Shape([{self._dims(values, quoted)}])"
            case PrimType(dtype=dtype):
                return f"R.Prim({quote(dtype)})"

    def _dims(self, values: Sequence[Expr], quoted: bool = False) -> str:
        return ", ".join(quote(self.dim(v)) if quoted and not isinstance(v, IntImm) else self.dim(v) for v in values)

    @contextmanager
    def _indented(self, header: str) -> Iterator[None]:
        """``header:`` and an indented body whose names stay taken after it."""
        self.line(f"{header}:")
        self._depth += 1
        yield
        self._depth -= 1

    def _conditional(self, var: GraphVar, node: Conditional) -> None:
        """TVM's way: the name is bound as the last thing in either branch."""
        name = self.names.define(var)
        for header, branch in ((f"if {self.graph(node.condition)}", node.then), ("else", node.other)):
            with self._indented(header):
                self.seq(branch)
                self.line(f"{name}: {self.type(var.type)} = {self.graph(branch.result)}")

    def _operator(self, node: OperatorCall) -> str:
        row = OPERATORS.get(node.op)
        args = [self.graph(a) for a in node.args]
        if row is not None and row.variadic:
            single = len(row.inputs) - 1
            args[single:] = [self._tuple(node.args[single:])]
        args += [f"{name}={self._attribute(value)}" for name, value in _explicit(row, node).items()]
        args += [f"origin={quote(node.origin)}"] if node.origin else []
        return f"R.{node.op}({', '.join(args)})"

    def _attribute(self, value: object) -> str:
        if isinstance(value, (tuple, list)):
            items = [self._attribute(item) for item in value]
            return f"({', '.join(items)}{',' if len(items) == 1 else ''})"
        return self.dim(value) if isinstance(value, Expr) else self.value(value)

    def _tuple(self, fields: Sequence[GraphExpr]) -> str:
        """``(a,)``, ``(a, b)``, ``()``"""
        return f"({', '.join(map(self.graph, fields))}{',' if len(fields) == 1 else ''})"

    def _out(self, types: Sequence[TensorType]) -> str:
        """One type, or a list of several."""
        return self.type(types[0]) if len(types) == 1 else f"[{', '.join(map(self.type, types))}]"


def _explicit(row: Operator | None, call: OperatorCall) -> Mapping[str, object]:
    """The attributes to print: all of those that do not fit the operator, which the verifier tells of."""
    try:
        return call.attrs if row is None else row.explicit(call.attrs)
    except InvalidModule:
        return call.attrs
