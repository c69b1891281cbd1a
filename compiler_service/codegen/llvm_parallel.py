"""Parallel loops: a loop's body becomes a function of its own, which the threads of ``runtime/threads.c`` run.

What the body uses of the function around it is captured: pointers, sizes and scalars, written into a structure on the
caller's stack. ::

    crossfarm_main.parallel0(closure, begin, end, scratch)       reads the structure, and calls
    crossfarm_main.parallel0.body(captured…, begin, end, regions…)

so that each captured buffer is a pointer parameter again, with all that LLVM is told of a function's own: what is lost
in a structure in memory is what lets inner loops vectorize. Temporaries of the body lie in the thread's scratch memory.
A parallel loop inside another one is an ordinary loop.
"""

from __future__ import annotations

from compiler_service.codegen.llvm_abilities import Abilities
from compiler_service.codegen.llvm_statement import WORKSPACE_ALIGN, Metadata, StatementEmitter
from compiler_service.codegen.llvm_text import Value, register_type
from compiler_service.passes.workspace import scratch_plan
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Expr, Var
from crossfarm.ir.stmt import For
from crossfarm.ir.visitor import walk

#: What a library with parallel loops needs of the runtime.
RUNTIME_SYMBOL = "crossfarmrt_parallel"
_DECLARATION = f"declare hidden i32 @{RUNTIME_SYMBOL}(ptr, ptr, i64, i64)"


class ParallelEmitter(StatementEmitter):
    """Emits statements whose parallel loops run on threads.

    Attributes:
        outlined: definitions of the loops' functions.
    """

    def __init__(self, function: str, symbol: str, can: Abilities, metadata: Metadata) -> None:
        super().__init__(function, can, metadata)
        self.symbol = symbol
        self.outlined: list[str] = []

    def parallel(self, node: For) -> None:
        """Emits the loop's functions, and here the call that runs them."""
        start = self.convert(self.emit(node.min), node.var.dtype)
        extent = self.convert(self.emit(node.extent), "int64")
        variables, buffers = self._captured(node)
        values = [start, *(self.vars[v] for v in variables), *(self.pointers[b] for b in buffers)]
        plan = scratch_plan(node)
        name = f'"{self.symbol}.parallel{len(self.outlined)}"'

        inner = StatementEmitter(self.function, self.can, self.metadata)
        inner.externs = self.externs
        inner.failures.messages = self.failures.messages
        names = [f"%c{i}" for i in range(len(values))]
        inner.vars = {v: Value(n, v.dtype) for v, n in zip(variables, names[1:])}
        inner.pointers = {b: Value(n, "handle") for b, n in zip(buffers, names[1 + len(variables) :])}
        inner.strides = {b: self.strides[b] for b in buffers}
        inner.regions = [Value(f"%w{i}", "handle") for i in range(len(plan.offsets))]
        inner.loop(node, (_bound(inner, node.var, names[0], "%begin"), _bound(inner, node.var, names[0], "%end")))
        attributes = [""] * (1 + len(variables)) + [self.attributes[b] for b in buffers]
        parameters = [f"{register_type(v.dtype)}{a} {n}" for v, a, n in zip(values, attributes, names)]
        parameters += ["i64 %begin", "i64 %end"]
        parameters += [f"ptr noalias nofree align {WORKSPACE_ALIGN} {r.text}" for r in inner.regions]
        body = f'{name[:-1]}.body"'
        self.outlined.append(
            f"define internal i32 @{body}({', '.join(parameters)}) #1 {{\n{inner.finish()}\n}}\n\n"
            f"define internal i32 @{name}(ptr %closure, i64 %begin, i64 %end, ptr %scratch) #0 {{\n"
            f"{self._unpack(body, values, variables, plan.offsets)}\n}}\n"
        )
        self._call(name, values, extent, self.index(plan.size))

    def _captured(self, node: For) -> tuple[list[Var], list[Buffer]]:
        """Variables and buffers from around the loop that its body or the sizes in it use, in order of first use."""
        variables: dict[Var, None] = {}
        buffers: dict[Buffer, None] = {}

        def look(tree: Expr | For) -> None:
            for used in walk(tree):
                if isinstance(used, Var) and used in self.vars:
                    variables.setdefault(used)
                elif isinstance(used, Buffer) and used not in seen:
                    seen.add(used)
                    if used in self.pointers:
                        buffers.setdefault(used)
                    for size in (*used.shape, *self.strides.get(used, used.strides)):
                        look(size)
                    if used.elem_offset is not None:
                        look(used.elem_offset)

        seen: set[Buffer] = set()
        look(node)
        look(scratch_plan(node).size)
        return list(variables), list(buffers)

    def _unpack(self, body: str, values: list[Value], variables: list[Var], offsets: tuple[Expr, ...]) -> str:
        """Code between the runtime and the loop's body: structure → arguments, offsets → pointers, then the call."""
        e = StatementEmitter(self.function, self.can, self.metadata)
        arguments = []
        for i, value in enumerate(values):
            pointer = e.b.value("handle", _field("%closure", values, i))
            arguments.append(e.b.value(value.dtype, f"load {register_type(value.dtype)}, ptr {pointer.text}"))
        e.vars = dict(zip(variables, arguments[1:]))
        arguments += [Value("%begin", "int64"), Value("%end", "int64")]
        for offset in offsets:
            arguments.append(e.b.value("handle", f"getelementptr inbounds i8, ptr %scratch, {e.index(offset).typed}"))
        status = e.b.value("int32", f"call i32 @{body}({', '.join(a.typed for a in arguments)})")
        e.b.terminate(f"ret i32 {status.text}")
        return e.b.text()

    def _call(self, name: str, values: list[Value], extent: Value, scratch: Value) -> None:
        """Fills the structure and runs the loop; a status that is not zero is returned."""
        self.externs[RUNTIME_SYMBOL] = _DECLARATION
        closure = self.b.alloca(_structure(values), 1, WORKSPACE_ALIGN)
        for i, value in enumerate(values):
            pointer = self.b.value("handle", _field(closure.text, values, i))
            self.b.do(f"store {value.typed}, ptr {pointer.text}")
        arguments = f"ptr @{name}, {closure.typed}, {extent.typed}, {scratch.typed}"
        status = self.b.value("int32", f"call i32 @{RUNTIME_SYMBOL}({arguments})")
        failed = self.b.value("bool", f"icmp ne {status.typed}, 0")
        stop, after = self.b.name("fail"), self.b.name("ok")
        self.b.branch(failed, stop, after)
        self.b.open(stop)
        self.b.terminate(f"ret i32 {status.text}")
        self.b.open(after)


def _bound(inner: StatementEmitter, var: Var, start: str, iteration: str) -> Value:
    """The loop variable's value at an iteration's number."""
    offset = inner.convert(Value(iteration, "int64"), var.dtype)
    return inner.b.value(var.dtype, f"add nsw {offset.typed}, {start}")


def _structure(values: list[Value]) -> str:
    return f"{{ {', '.join(register_type(v.dtype) for v in values)} }}"


def _field(pointer: str, values: list[Value], number: int) -> str:
    return f"getelementptr inbounds {_structure(values)}, ptr {pointer}, i32 0, i32 {number}"
