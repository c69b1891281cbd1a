"""One kernel → LLVM IR for NVIDIA GPUs: what a thread does, by the emitters that CPUs have too.

Pointers say which memory they are into (``addrspace``), so that LLVM knows what cannot overlap, and PTX loads from
global or shared memory instead of finding out at run time. Offsets are of 32 bits where the buffer allows it: a 64-bit
product is four instructions.
"""

from __future__ import annotations

from compiler_service.codegen.c_expr import may_be_wide
from compiler_service.codegen.kernel import Kernel, elements
from compiler_service.codegen.llvm_abilities import Abilities
from compiler_service.codegen.llvm_dot import DotProducts
from compiler_service.codegen.llvm_expr import DIVISIONS
from compiler_service.codegen.llvm_half import HalfConversions, is_half
from compiler_service.codegen.llvm_statement import Metadata, StatementEmitter, size_attribute
from compiler_service.codegen.llvm_text import Value, int_constant, memory_type, register_type, zero
from compiler_service.codegen.ptx_calls import call_of_device
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import Analyzer, Interval, const_int
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Binary, BufferLoad, Call, Expr, IntImm
from crossfarm.ir.stmt import Allocate, BufferStore, Evaluate, For, Stmt
from crossfarm.ir.visitor import children, walk

#: What CUDA's allocator and the agent promise of a tensor and of a place in the workspace, in bytes.
BUFFER_ALIGN = 64
#: Of memory of a group or a thread: the widest load there is.
_INNER_ALIGN = 16
GLOBAL, SHARED, GENERIC = 1, 3, 0
#: Stores that the iterations of loops over a thread's own array may become, so that the array is in registers.
_UNROLLED_STORES = 1024
_ROUNDING = ("add", "sub", "mul", "div")
_INT32 = Interval.of("int32")
_FULLY = '!{!"llvm.loop.unroll.full"}'
_REGISTERS = {
    f"{tag}.{axis}": f"{register}.{axis}"
    for tag, register in (("blockIdx", "ctaid"), ("threadIdx", "tid"))
    for axis in "xyz"
}
#: Every GPU since sm_53 converts float16 by instructions.
ABILITIES = Abilities(HalfConversions(from_single=True, from_double=True), DotProducts(), scales=False)


class KernelEmitter(StatementEmitter):
    """Emits one kernel.

    Attributes:
        spaces: address space of each pointer, by what stands for it in the text; a thread's own memory has none.
        globals: definitions of the memory that a group shares.
    """

    def __init__(self, kernel: Kernel, metadata: Metadata) -> None:
        super().__init__(kernel.name, ABILITIES, metadata)
        self.kernel = kernel
        self.spaces: dict[str, int] = {}
        self.globals: list[str] = []
        self.analyzer = Analyzer()
        self._wide = True
        self._own: set[Buffer] = set()

    def run(self) -> str:
        """The definition of the kernel, and of its shared memory."""
        arguments = self._bind()
        self._share()
        for var, tag in self.kernel.threads.items():
            self.vars[var] = self._thread_index(tag, var.dtype)
            self.analyzer.bind(var, Interval(0, min(self.kernel.last_index(tag), dt.int_range(var.dtype)[1])))
        self.statement(self.kernel.body)
        self.b.terminate("ret void")
        x, y, z = self.kernel.group
        head = f"define ptx_kernel void @{self.kernel.name}({', '.join(arguments)})"
        attributes = f'nounwind "nvvm.reqntid"="{x},{y},{z}"'
        return "\n".join([*self.globals, f"{head} {attributes} {{\n{self.b.text()}\n}}\n"])

    def _bind(self) -> list[str]:
        arguments = []
        for i, param in enumerate(self.kernel.params):
            name = f"%p{i}"
            if isinstance(param, Buffer):
                flags = f"nofree align {BUFFER_ALIGN}{size_attribute(param)}"
                if self.kernel.is_distinct(param):
                    flags = f"noalias {flags}"
                if param not in self.kernel.written:
                    flags = f"readonly {flags}"
                arguments.append(f"ptr addrspace({GLOBAL}) {flags} {name}")
                self.spaces[name] = GLOBAL
                self.pointers[param] = Value(name, "handle")
            else:
                arguments.append(f"{memory_type(param.dtype)} {name}")
                value = Value(name, param.dtype)
                if dt.is_bool(param.dtype):
                    value = self.b.value("bool", f"icmp ne i8 {name}, 0")
                self.vars[param] = value
        for buffer in self.kernel.buffers:
            self.declare(buffer)  # after all scalars: a stride may be one
        return arguments

    def _share(self) -> None:
        for i, buffer in enumerate(self.kernel.shared):
            name = f"@{self.kernel.name}_shared_{i}"
            type_ = f"[{max(1, elements(buffer))} x {memory_type(buffer.dtype)}]"
            self.globals.append(f"{name} = internal addrspace({SHARED}) global {type_} undef, align {_INNER_ALIGN}")
            self.spaces[name] = SHARED
            self.pointers[buffer] = Value(name, "handle")
            self.declare(buffer)

    def _thread_index(self, tag: str, dtype: str) -> Value:
        last = self.kernel.last_index(tag)
        known = f"range(i32 0, {last + 1}) " if last < (1 << 31) - 1 else ""
        index = self.b.value("int32", f"call {known}i32 @llvm.nvvm.read.ptx.sreg.{_REGISTERS[tag]}()")
        return self.convert(index, dtype)

    # --- statements

    def do_Allocate(self, node: Allocate) -> None:
        buffer = node.buffer
        self._own.add(buffer)
        self.pointers[buffer] = self.b.alloca(memory_type(buffer.dtype), max(1, elements(buffer)), _INNER_ALIGN)
        self.declare(buffer)
        self.statement(node.body)

    def do_Evaluate(self, node: Evaluate) -> None:
        if isinstance(node.value, Call) and node.value.op == "ret":
            self.b.terminate("ret void")  # split_kernels saw to it that nobody waits for this thread
            self.b.open(self.b.name("unreached"))
        else:
            super().do_Evaluate(node)

    def do_For(self, node: For) -> None:
        bounds = self.bounds(node)
        with self.analyzer.scope():
            self.analyzer.bind_loop(node.var, node.min, node.extent)
            self.loop(node, bounds)

    def loop_hint(self, node: For) -> str:
        """A loop over a thread's own array is unrolled: registers have no addresses to compute."""
        count = const_int(node.extent)
        if count is not None and self._over_own(node) and count * self._stores(node.body) <= _UNROLLED_STORES:
            return _FULLY
        return super().loop_hint(node) if node.kind == "unrolled" else ""

    def _over_own(self, node: For) -> bool:
        """Whether the loop's variable picks elements of memory that only this thread has."""
        if node.kind == "vectorized":
            return True
        return any(
            n.buffer in self._own and any(v is node.var for index in n.indices for v in walk(index))
            for n in walk(node.body)
            if isinstance(n, (BufferLoad, BufferStore))
        )

    def _stores(self, node: Stmt) -> int:
        """How many stores ``node`` becomes with its inner loops over own arrays unrolled."""
        if isinstance(node, BufferStore):
            return 1
        inner = sum(self._stores(child) for child in children(node) if isinstance(child, Stmt))
        count = const_int(node.extent) if isinstance(node, For) else None
        return inner * count if isinstance(node, For) and count is not None and self._over_own(node) else inner

    def fail_if(self, condition: Value, message: str) -> None:
        raise AssertionError(f"report_failures left this to a kernel: {message}")

    # --- expressions

    def emit_Call(self, node: Call) -> Value:
        if node.op == "storage_sync":
            self.b.do("call void @llvm.nvvm.barrier.cta.sync.aligned.all(i32 0)")
            return int_constant("int32", 0)
        found = call_of_device(self, node)
        return super().emit_Call(node) if found is None else found

    def emit_Binary(self, node: Binary) -> Value:
        if node.op in DIVISIONS and dt.is_int(node.dtype) and dt.lanes_of(node.dtype) == 1:
            return self._quotient(node, self.emit(node.a), self.emit(node.b))
        return super().emit_Binary(node)

    def binary(self, op: str, a: Value, b: Value, *, divisor_may_be_zero: bool = True) -> Value:
        """float16's operations are instructions, which must not be fused either: each one rounds."""
        if op in _ROUNDING and is_half(a.dtype):
            x, y = self.half.widen(self.b, a), self.half.widen(self.b, b)
            return self.half.narrow(self.b, self.b.value(x.dtype, f"f{op} {x.typed}, {y.text}"), a.dtype)
        return super().binary(op, a, b, divisor_may_be_zero=divisor_may_be_zero)

    def _quotient(self, node: Binary, a: Value, b: Value) -> Value:
        """``a op b`` of signed numbers that are none below 0 as of unsigned ones: half as many instructions.

        A zero divisor is taken for 1: what it means was reported before.
        """
        divisor = self.analyzer.bounds(node.b)
        if 0 in divisor:
            none = self._compare("eq", b, zero(b.dtype))
            b = self.b.value(b.dtype, f"select {none.typed}, {int_constant(b.dtype, 1).typed}, {b.typed}")
        if dt.is_signed(a.dtype) and divisor.low >= 0 and self.analyzer.bounds(node.a).low >= 0:
            return self.b.value(a.dtype, f"{'udiv' if 'div' in node.op else 'urem'} {a.typed}, {b.text}")
        return self.binary(node.op, a, b, divisor_may_be_zero=False)

    # --- memory

    def index(self, node: Expr) -> Value:
        """An index of 32 bits where the buffer at hand has no more elements.

        Only the low bits of what a 64-bit index is made of count, whatever it is, but for divisions.
        """
        if self._wide:
            return super().index(node)
        if isinstance(node, IntImm):
            return int_constant("int32", (node.value + (1 << 31)) % (1 << 32) - (1 << 31))
        if isinstance(node, Binary) and dt.is_signed(node.dtype):
            inside = dt.bits(node.dtype) <= 32 or all(
                _INT32.covers(self.analyzer.bounds(n)) for n in (node, node.a, node.b)
            )
            if node.op in ("add", "sub", "mul"):
                a, b = self.index(node.a), self.index(node.b)
                return self.b.value("int32", f"{node.op} {'nsw ' if inside else ''}{a.typed}, {b.text}")
            if node.op in DIVISIONS and inside:
                return self._quotient(node, self.index(node.a), self.index(node.b))
        return self.convert(self.emit(node), "int32")

    def _offset(self, buffer: Buffer, indices: tuple[Expr, ...]) -> Value:
        around, self._wide = self._wide, may_be_wide(buffer)
        offset = super()._offset(buffer, indices)
        self._wide = around
        return offset

    def _element(self, buffer: Buffer, offset: Value) -> Value:
        base = self.pointers[buffer]
        if offset.text == "0":
            return base
        pointer = self.b.value(
            "handle",
            f"getelementptr inbounds {memory_type(buffer.dtype)}, {self._pointer(base)}, {offset.typed}",
        )
        self.spaces[pointer.text] = self.spaces.get(base.text, GENERIC)
        return pointer

    def _pointer(self, pointer: Value) -> str:
        """As an operand with its type."""
        space = self.spaces.get(pointer.text, GENERIC)
        return f"ptr addrspace({space}) {pointer.text}" if space else f"ptr {pointer.text}"

    def load(self, pointer: Value, dtype: str) -> Value:
        align = max(1, dt.bits(dtype) // 8)
        if not dt.is_bool(dtype):
            return self.b.value(dtype, f"load {register_type(dtype)}, {self._pointer(pointer)}, align {align}")
        raw = self.b.value(dtype, f"load i8, {self._pointer(pointer)}, align 1")
        return self.b.value(dtype, f"icmp ne i8 {raw.text}, 0")

    def _store(self, pointer: Value, value: Value, *, around_caches: bool = False) -> None:
        text = value.typed
        if dt.is_bool(value.dtype):
            text = f"i8 {self.b.value(value.dtype, f'zext {value.typed} to i8').text}"
        self.b.do(f"store {text}, {self._pointer(pointer)}, align {max(1, dt.bits(value.dtype) // 8)}")
