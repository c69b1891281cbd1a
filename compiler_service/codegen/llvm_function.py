"""A lowered PrimFunc → LLVM functions: the body, the bodies of its parallel loops, and the exported entry that unpacks
the call.

A function of calls marks its begin and the end of each for the runtime, which takes the times where somebody asked.

A function that others call has a body alone; they pass it pointers, sizes and parts of their own workspace, and hand
its status on as one of theirs.

A body takes each buffer as a pointer of its own (``noalias`` where the program promises it), so that LLVM can keep
accumulators in registers and vectorize without runtime checks; temporaries in the workspace arrive the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from compiler_service.codegen.llvm_abilities import Abilities
from compiler_service.codegen.llvm_expr import ExprEmitter
from compiler_service.codegen.llvm_parallel import RUNTIME_SYMBOL, ParallelEmitter
from compiler_service.codegen.llvm_statement import WORKSPACE_ALIGN, Metadata, size_attribute
from compiler_service.codegen.llvm_text import Value, register_type
from compiler_service.passes.workspace import workspace_plan
from compiler_service.symbols import function_symbols
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.calls import ProgramCall, is_caller
from crossfarm.ir.expr import Call, IntImm, StringImm, Var
from crossfarm.ir.function import PrimFunc


@dataclass(frozen=True)
class FunctionText:
    """LLVM IR of a function.

    Attributes:
        symbol: the exported name, if it is exported.
        text: all definitions.
        declarations: of the external functions it calls, by name.
        loops: metadata nodes its loops refer to.
        failures: messages of its nonzero statuses, in order.
        func: what it was made of.
    """

    symbol: str
    text: str
    declarations: dict[str, str]
    loops: list[str]
    failures: tuple[str, ...]
    func: PrimFunc

    @property
    def body(self) -> str:
        """Symbol of the function that has the code."""
        return f'"{self.symbol}.body"'


def emit_function(
    name: str, func: PrimFunc, can: Abilities, first_metadata: int, callees: Mapping[str, FunctionText]
) -> FunctionText:
    """LLVM IR of ``func``, an entry too unless it is private; its metadata is numbered from ``first_metadata``.

    Args:
        callees: the functions that it may call.
    """
    return _FunctionEmitter(name, func, can, first_metadata, callees).run()


#: What tells the runtime that a call of another function has returned, see ``runtime/profile.c``.
MARK_SYMBOL = "crossfarmrt_mark"
_MARK_DECLARATION = f"declare hidden void @{MARK_SYMBOL}(i32)"


class _FunctionEmitter(ParallelEmitter):
    def __init__(
        self, name: str, func: PrimFunc, can: Abilities, first_metadata: int, callees: Mapping[str, FunctionText]
    ) -> None:
        super().__init__(name, _symbol(name), can, Metadata(first_metadata))
        self.func = func
        self.callees = callees
        self.statuses: dict[str, int] = {}  # how many precede a callee's own
        self.marks = 0

    def run(self) -> FunctionText:
        symbol = self.symbol
        arguments = self._bind()
        if is_caller(self.func):
            self._mark()
        self.statement(self.func.body)
        body = f'"{symbol}.body"'
        text = f"define internal i32 @{body}({', '.join(arguments)}) #1 {{\n{self.finish()}\n}}\n"
        if not self.func.private:
            text += f'\ndefine i32 @"{symbol}"(ptr %workspace, ptr %slots) #0 {{\n{self._entry(body)}\n}}\n'
        text = "\n".join([*self.outlined, text])
        messages = tuple(self.failures.messages)
        return FunctionText(symbol, text, self.externs, self.metadata.nodes, messages, self.func)

    def call(self, node: Call) -> None:
        """A call of another function; a status that is not zero is returned."""
        name, *args = node.args
        assert isinstance(name, StringImm)
        callee = self.callees[name.value]
        call, func = ProgramCall(name.value, tuple(args)), callee.func
        values = {var: self.emit(value) for var, value in call.values(func).items()}
        arguments = [
            values[param] if isinstance(param, Var) else self.emit(arg) for param, arg in zip(func.params, call.args)
        ]
        inner = ExprEmitter(self.function, self.can)
        inner.b, inner.vars = self.b, values
        arguments.extend(values[symbol] for symbol in function_symbols(func))
        for lent in call.extra(func):
            memory = self.emit(lent)
            for offset in workspace_plan(func).offsets:
                part = f"getelementptr inbounds i8, {memory.typed}, {inner.index(offset).typed}"
                arguments.append(self.b.value("handle", part))
        status = self.b.value("int32", f"call i32 @{callee.body}({', '.join(a.typed for a in arguments)})")
        if callee.failures or RUNTIME_SYMBOL in callee.declarations:
            self._hand_on(status, name.value, callee.failures)
        self._mark()

    def _mark(self) -> None:
        """A function of calls marks its begin, and then the end of each."""
        self.externs[MARK_SYMBOL] = _MARK_DECLARATION
        self.b.do(f"call void @{MARK_SYMBOL}(i32 {self.marks})")
        self.marks += 1

    def _hand_on(self, status: Value, name: str, messages: tuple[str, ...]) -> None:
        """Returns a callee's status where it is not zero. What is negative means the same everywhere."""
        if name not in self.statuses:
            self.statuses[name] = len(self.failures.messages)
            self.failures.messages.extend(messages)
        failed = self.b.value("bool", f"icmp ne {status.typed}, 0")
        stop, after = self.b.name("fail"), self.b.name("ok")
        self.b.branch(failed, stop, after)
        self.b.open(stop)
        own = self.b.value("bool", f"icmp sgt {status.typed}, 0")
        moved = self.b.value("int32", f"add {status.typed}, {self.statuses[name]}")
        code = self.b.value("int32", f"select {own.typed}, {moved.typed}, {status.typed}")
        self.b.terminate(f"ret i32 {code.text}")
        self.b.open(after)

    def _bind(self) -> list[str]:
        """Puts parameters, symbols and workspace buffers in scope; the body's parameter list."""
        noalias = " noalias" if self._promises_noalias() else ""
        arguments = []
        for i, param in enumerate(self.func.params):
            if isinstance(param, Var):
                self.vars[param] = Value(f"%p{i}", param.dtype)
                arguments.append(f"{register_type(param.dtype)} %p{i}")
            else:
                self.pointers[param] = Value(f"%p{i}", "handle")
                self.attributes[param] = f"{noalias} nofree{size_attribute(param)}"
                arguments.append(f"ptr{self.attributes[param]} %p{i}")
        for i, symbol in enumerate(function_symbols(self.func)):
            self.vars.setdefault(symbol, Value(f"%s{i}", symbol.dtype))
            arguments.append(f"{register_type(symbol.dtype)} %s{i}")
        self.plan = workspace_plan(self.func)
        self.regions = [Value(f"%w{i}", "handle") for i in range(len(self.plan.offsets))]
        arguments.extend(f"ptr noalias nofree align {WORKSPACE_ALIGN} {r.text}" for r in self.regions)
        for param in self.func.params:
            if isinstance(param, Buffer):
                self.declare(param)
        return arguments

    def _promises_noalias(self) -> bool:
        value = self.func.attrs.get("tir.noalias", False)
        return bool(value.value) if isinstance(value, IntImm) else bool(value)

    def _entry(self, body: str) -> str:
        """Code of the exported function: slots → arguments, offsets → pointers, then the call."""
        e = ExprEmitter(self.function, self.can)
        e.failures = self.failures
        arguments: list[Value] = []

        def slot(position: int, dtype: str) -> Value:
            pointer = e.b.value("handle", f"getelementptr inbounds i64, ptr %slots, i64 {position}")
            return e.load(pointer, dtype) if dtype != "handle" else e.b.value(dtype, f"load ptr, ptr {pointer.text}")

        for i, param in enumerate(self.func.params):
            value = slot(i, param.dtype if isinstance(param, Var) else "handle")
            if isinstance(param, Var):
                e.vars[param] = value
            arguments.append(value)
        for i, symbol in enumerate(function_symbols(self.func)):
            value = slot(len(self.func.params) + i, "int64")
            narrow = e.convert(value, symbol.dtype)
            if symbol in e.vars:
                differ = e.binary("ne", e.vars[symbol], narrow)
                e.fail_if(
                    differ,
                    f"argument {symbol.name!r} of function {self.function!r} differs from the dimension of that name",
                )
            e.vars.setdefault(symbol, narrow)
            arguments.append(narrow)
        for offset in self.plan.offsets:
            arguments.append(e.b.value("handle", f"getelementptr inbounds i8, ptr %workspace, {e.index(offset).typed}"))
        status = e.b.value("int32", f"call i32 @{body}({', '.join(a.typed for a in arguments)})")
        e.b.terminate(f"ret i32 {status.text}")
        for code, block in self.failures.blocks.items():
            if any(f"label %{block}," in line for line in e.b.lines):
                e.b.open(block)
                e.b.terminate(f"ret i32 {code}")
        return e.b.text()


def _symbol(name: str) -> str:
    """The exported name of a function, in ASCII: linkers and their scripts disagree on anything else."""
    return "crossfarm_" + "".join(c if c.isascii() and (c.isalnum() or c == "_") else f"u{ord(c):x}_" for c in name)
