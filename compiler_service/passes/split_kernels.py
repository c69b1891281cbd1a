"""Host/device split: what runs on a device with thread groups becomes kernels, and a function a list of launches."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from compiler_service.passes.insert_barriers import binds_threads, is_barrier
from compiler_service.symbols import function_symbols
from crossfarm.errors import BuildFailed
from crossfarm.ir import ops
from crossfarm.ir.arith import const_int, structural_key
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.calls import callees_of, is_caller
from crossfarm.ir.expr import Binary, BufferLoad, Call, Expr, IntImm, Not, StringImm, Var
from crossfarm.ir.function import Param, PrimFunc
from crossfarm.ir.module import IRModule
from crossfarm.ir.naming import free_name
from crossfarm.ir.stmt import Allocate, AttrStmt, BufferStore, Evaluate, For, IfThenElse, LetStmt, SeqStmt, Stmt, While
from crossfarm.ir.visitor import Mutator, children, seq, substitute, walk

if TYPE_CHECKING:
    from crossfarm.target import Target

GROUP_TAGS = ("blockIdx.x", "blockIdx.y", "blockIdx.z")
THREAD_TAGS = ("threadIdx.x", "threadIdx.y", "threadIdx.z")
#: Attribute of a function that is a kernel; its value names the function that launches it.
KERNEL_OF = "crossfarm.kernel_of"


@dataclass(frozen=True)
class SplitKernels:
    """Each function that can be called becomes a sequence of ``launch_kernel`` and temporaries in global memory.

    A function that calls others stays as it is: what it launches is what they launch.

    A kernel is a private function: loops bound to thread indices, one for each tag it uses, around the allocations of
    its group's shared memory, around what one thread does. Its parameters are the buffers it touches, then the scalars.

    - Every outermost nest that binds threads is a kernel. Inside, all loops bound to one tag become that tag's one
      index; a loop shorter than the longest with its tag is guarded.
    - A statement that is not inside a loop of each thread tag of its kernel is run by the threads with index 0 there,
      where it stores to memory that others see.
    - What binds no threads runs on one thread, a kernel of its own.
    - A serial loop around kernels stays on the host.
    """

    name: ClassVar[str] = "split_kernels"

    def apply(self, module: IRModule, target: Target) -> IRModule:
        functions: dict[str, PrimFunc] = {}
        taken = set(module.functions)
        called = callees_of(module.prim_funcs)
        for name, func in module.prim_funcs.items():
            if is_caller(func):
                functions[name] = func
                continue
            if func.private and name not in called:
                continue
            split = _Split(name, func, taken)
            functions[name] = split.host()
            functions.update(split.kernels)
        return module.with_functions(functions)


@dataclass
class _Split:
    """One function on its way."""

    name: str
    func: PrimFunc
    taken: set[str]
    kernels: dict[str, PrimFunc] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.symbols = tuple(dict.fromkeys((*function_symbols(self.func), *self._scalars())))
        self.allocated: list[Buffer] = []

    def _scalars(self) -> tuple[Var, ...]:
        return tuple(p for p in self.func.params if isinstance(p, Var))

    def host(self) -> PrimFunc:
        """The function as launches; ``kernels`` is filled."""
        host = replace(self.func, body=self._statement(self.func.body, _Surroundings()))
        returns = [name for name, kernel in self.kernels.items() if _returns(kernel.body)]
        if returns and (len(self.kernels) > 1 or binds_threads(self.kernels[returns[0]].body)):
            raise BuildFailed(
                f"function {self.name!r} returns early, which ends only the thread of kernel {returns[0]!r} that does",
                hint="put what is not to run under the opposite condition, or build for a CPU",
            )
        return host

    # --- the host's part

    def _statement(self, node: Stmt, at: _Surroundings) -> Stmt:
        """What the host does for ``node``."""
        match node:
            case SeqStmt():
                return seq(*(self._statement(s, at) for s in node.stmts))
            case AttrStmt():
                return self._statement(node.body, at)
            case Allocate():
                return self._allocation(node, at)
            case _ if not binds_threads(node):
                return self._launch(node, at)
            case For() if node.kind != "thread_binding":
                return replace(node, kind="serial", body=self._statement(node.body, at.inside(node)))
            case LetStmt() if not _loads(node.value):
                return self._statement(substitute(node.body, {node.var: node.value}), at)
            case IfThenElse() if not _loads(node.condition):
                then = self._statement(node.then_body, at.where(node.condition))
                if node.else_body is None:
                    return then
                return seq(then, self._statement(node.else_body, at.where(Not(node.condition))))
            case LetStmt() | IfThenElse() | While():
                raise BuildFailed(
                    f"function {self.name!r}: whether or how a nest bound to threads runs depends on data that only "
                    "the device has",
                    hint="move the condition into the nest",
                )
        return self._launch(node, at)

    def _allocation(self, node: Allocate, at: _Surroundings) -> Stmt:
        if node.buffer.scope == "global":
            self._check_host_size(node.buffer)
            self.allocated.append(node.buffer)
            return replace(node, body=self._statement(node.body, at))
        # memory of a thread or a group: it goes into the one kernel that uses it
        inward = _inward(node, self.name)
        return self._launch(node, at) if inward is node else self._statement(inward, at)

    def _check_host_size(self, buffer: Buffer) -> None:
        used = {n for extent in buffer.shape for n in walk(extent) if isinstance(n, Var)}
        if unknown := [v.name for v in used if v not in self.symbols]:
            raise BuildFailed(
                f"function {self.name!r} allocates {buffer.name!r}, whose size depends on {', '.join(unknown)}",
                hint="give it a size of constants, dimensions of parameters and scalar parameters",
            )

    def _launch(self, node: Stmt, at: _Surroundings) -> Stmt:
        """A kernel of ``node``, and its launch."""
        name = self._kernel_name()
        for condition in reversed(at.conditions):
            node = IfThenElse(condition, node)
        maker = _KernelMaker(self.name, name, node)
        body = maker.body()
        for buffer in maker.hoisted:
            self._check_host_size(buffer)
            self.allocated.append(buffer)
        known = (*(p for p in self.func.params if isinstance(p, Buffer)), *self.allocated)
        touched = {n for n in walk(body) if isinstance(n, Buffer)}
        buffers = tuple(b for b in known if b in touched)
        used = {n for n in walk(body) if isinstance(n, Var)}
        for buffer in buffers:
            for expr in (*buffer.shape, *buffer.strides, *((buffer.elem_offset,) if buffer.elem_offset else ())):
                used.update(n for n in walk(expr) if isinstance(n, Var))
        loops = tuple(loop.var for loop in at.loops)
        scalars = tuple(v for v in (*self.symbols, *loops) if v in used)
        params, renamed = _renewed(buffers, scalars)
        body = substitute(body, renamed)
        attrs = {k: v for k, v in self.func.attrs.items() if k == "tir.noalias"}
        self.kernels[name] = PrimFunc(params, body, {**attrs, KERNEL_OF: self.name}, private=True)
        arguments = (StringImm(name), *(_address(b) for b in buffers), *scalars)
        launch: Stmt = Evaluate(Call("launch_kernel", arguments, "int32"))
        for buffer in reversed(maker.hoisted):
            launch = Allocate(buffer, launch)
        return launch

    def _kernel_name(self) -> str:
        """``main_kernel``, ``main_kernel_1``, …, in ASCII."""
        base = "".join(c if c.isascii() and (c.isalnum() or c == "_") else f"u{ord(c):x}_" for c in self.name)
        name = free_name(f"{base}_kernel", self.taken)
        self.taken.add(name)
        return name


@dataclass(frozen=True)
class _Surroundings:
    """Loops and conditions of the host's around a nest."""

    loops: tuple[For, ...] = ()
    conditions: tuple[Expr, ...] = ()

    def inside(self, loop: For) -> _Surroundings:
        return replace(self, loops=(*self.loops, loop))

    def where(self, condition: Expr) -> _Surroundings:
        return replace(self, conditions=(*self.conditions, condition))


class _KernelMaker(Mutator):
    """Makes one kernel's body of a nest.

    Attributes:
        hoisted: temporaries of a kernel of one thread that are too large, or of unknown size, for its own memory.
    """

    #: The largest temporary that one thread alone keeps to itself, in elements.
    THREAD_ELEMENTS = 4096

    def __init__(self, function: str, name: str, nest: Stmt) -> None:
        self.function, self.name, self.nest = function, name, nest
        self.extents: dict[str, Expr] = {}
        self.vars: dict[str, Var] = {}
        self.shared: list[Buffer] = []
        self.hoisted: list[Buffer] = []
        self.inside: list[str] = []  # tags of the loops around
        self.own: set[Buffer] = set()
        self.single = not binds_threads(nest)

    def body(self) -> Stmt:
        for node in walk(self.nest):
            if isinstance(node, For) and node.kind == "thread_binding":
                self._declare(node)
        body = self.mutate(self.nest)
        self._check_barriers(body)
        for buffer in reversed(self.shared):
            body = Allocate(buffer, body)
        for tag in (*THREAD_TAGS, *GROUP_TAGS):  # x is innermost
            if tag in self.vars:
                extent = self.extents[tag]
                body = For(self.vars[tag], IntImm(0, extent.dtype), extent, body, "thread_binding", tag)
        return body

    def _declare(self, node: For) -> None:
        tag, extent = node.thread, node.extent
        if tag not in (*THREAD_TAGS, *GROUP_TAGS):
            raise BuildFailed(
                f"function {self.function!r}: loop {node.var.name!r} is bound to {tag}",
                hint=f"bind it to one of {', '.join((*GROUP_TAGS, *THREAD_TAGS))}",
            )
        self.vars.setdefault(tag, Var(tag.replace("Idx.", "_"), node.var.dtype))
        before = self.extents.setdefault(tag, extent)
        if tag in THREAD_TAGS:
            count, longest = const_int(extent), const_int(before)
            if count is None or longest is None:
                raise BuildFailed(
                    f"function {self.function!r}: loop {node.var.name!r} is bound to {tag} and has no constant extent",
                    hint="split it by a constant, and bind the inner loop",
                )
            self.extents[tag] = IntImm(max(count, longest), self.vars[tag].dtype)
        elif structural_key(before) != structural_key(extent):
            raise BuildFailed(
                f"function {self.function!r}: two loops of one kernel are bound to {tag} with different extents",
                hint="give both the same extent, or make them nests of their own",
            )

    # --- statements of one thread

    def mutate_For(self, node: For) -> Stmt:
        if node.kind != "thread_binding":
            changed = self.mutate_children(node)
            return replace(changed, kind="serial") if node.kind == "parallel" else changed
        tag = node.thread
        index = ops.cast(self.vars[tag], node.var.dtype)
        value = index if const_int(node.min) == 0 else Binary("add", node.min, index)
        self.inside.append(tag)
        body = self.mutate(substitute(node.body, {node.var: value}))
        self.inside.pop()
        count = const_int(node.extent)
        if tag in THREAD_TAGS and count != const_int(self.extents[tag]):
            if any(is_barrier(n) for n in walk(body)):
                raise BuildFailed(
                    f"function {self.function!r}: only {count} of the threads along {tag} reach the barrier that the "
                    f"loop {node.var.name!r} needs",
                    hint="bind loops around shared memory that is stored and loaded to the same number of threads",
                )
            body = IfThenElse(Binary("lt", self.vars[tag], IntImm(count or 0, self.vars[tag].dtype)), body)
        return body

    def mutate_BufferStore(self, node: BufferStore) -> Stmt:
        missing = [t for t in self.vars if t in THREAD_TAGS and t not in self.inside]
        groups = [t for t in self.vars if t in GROUP_TAGS and t not in self.inside]
        if node.buffer.scope == "local" or node.buffer in self.own:
            return node
        if node.buffer.scope == "global":
            missing += groups
        if not missing:
            return node
        first: Expr | None = None
        for tag in missing:
            test = Binary("eq", self.vars[tag], IntImm(0, self.vars[tag].dtype))
            first = test if first is None else Binary("and", first, test)
        assert first is not None
        return IfThenElse(first, node)

    def mutate_Allocate(self, node: Allocate) -> Stmt:
        buffer = node.buffer
        count = const_int_shape(buffer)
        if buffer.scope == "shared" and not self.single:
            if count is None:
                raise BuildFailed(
                    f"function {self.function!r}: shared buffer {buffer.name!r} has no constant size where it is used",
                    hint="split its loops by constants, so that a group uses a tile of it",
                )
            self.shared.append(buffer)
            return self.mutate(node.body)
        if self.single and (count is None or count > self.THREAD_ELEMENTS):
            self.hoisted.append(buffer)
            return self.mutate(node.body)
        if count is None or count > self.THREAD_ELEMENTS:
            size = "no constant size" if count is None else f"{count:,} elements"
            raise BuildFailed(
                f"function {self.function!r}: {buffer.name!r}, a temporary of one thread, has {size}",
                hint="compute it in a nest of its own, or in a tile that each thread uses (compute_at)",
            )
        local = buffer if buffer.scope == "local" else replace(buffer, scope="local")
        self.own.add(local)
        body = node.body if local is buffer else substitute(node.body, {buffer: local})
        return replace(node, buffer=local, body=self.mutate(body))

    def _check_barriers(self, body: Stmt) -> None:
        """Raises BuildFailed where threads of one group might not all meet at a barrier."""
        _Uniform(self.function, {v for t, v in self.vars.items() if t in THREAD_TAGS}).check(body)


@dataclass
class _Uniform:
    """Finds barriers under conditions that differ between threads of a group.

    Attributes:
        varying: variables that differ between them.
    """

    function: str
    varying: set[Var]

    def check(self, node: Stmt, differs: str = "") -> None:
        if is_barrier(node) and differs:
            raise BuildFailed(
                f"function {self.function!r}: not all threads of a group reach a barrier, which is inside {differs}",
                hint="let the condition guard the statements that need it, not the exchange through shared memory",
            )
        match node:
            case IfThenElse() | While():
                if self._varies(node.condition):
                    differs = "a condition on the thread or on data"
            case For():
                if self._varies(node.min) or self._varies(node.extent):
                    differs = f"loop {node.var.name!r}, whose extent differs between threads"
            case LetStmt():
                if self._varies(node.value):
                    self.varying.add(node.var)
        for child in children(node):
            if isinstance(child, Stmt):
                self.check(child, differs)

    def _varies(self, expr: Expr) -> bool:
        return any(isinstance(n, BufferLoad) or (isinstance(n, Var) and n in self.varying) for n in walk(expr))


def _returns(code: Stmt) -> bool:
    return any(isinstance(n, Call) and n.op == "ret" for n in walk(code))


def _renewed(buffers: tuple[Buffer, ...], scalars: tuple[Var, ...]) -> tuple[tuple[Param, ...], dict[Any, Any]]:
    """Parameters of a kernel's own for what the host calls ``buffers`` and ``scalars``, and which is which."""
    renamed: dict[Any, Any] = {var: Var(var.name, var.dtype) for var in scalars}
    for buffer in buffers:
        renamed[buffer] = replace(
            buffer,
            shape=tuple(substitute(e, renamed) for e in buffer.shape),
            strides=tuple(substitute(e, renamed) for e in buffer.strides),
            elem_offset=None if buffer.elem_offset is None else substitute(buffer.elem_offset, renamed),
        )
    return tuple(renamed[p] for p in (*buffers, *scalars)), renamed


def _loads(expr: Expr) -> bool:
    return any(isinstance(n, BufferLoad) for n in walk(expr))


def const_int_shape(buffer: Buffer) -> int | None:
    """How many elements a buffer has, where that is a constant."""
    count = 1
    for extent in buffer.shape:
        value = const_int(extent)
        if value is None:
            return None
        count *= value
    return count


def _inward(node: Allocate, function: str) -> Stmt:
    """The allocation moved into the one top-level nest that uses it."""
    body = node.body
    match body:
        case SeqStmt():
            users = [i for i, s in enumerate(body.stmts) if any(n is node.buffer for n in walk(s))]
            if len(users) == 1:
                at = users[0]
                return SeqStmt((*body.stmts[:at], replace(node, body=body.stmts[at]), *body.stmts[at + 1 :]))
            raise BuildFailed(
                f"function {function!r}: {node.buffer.name!r} is {node.buffer.scope} memory, and {len(users)} kernels "
                "use it",
                hint="what one kernel leaves for another must be in global memory (set_scope)",
            )
        case Allocate() | AttrStmt():
            return replace(body, body=_inward(replace(node, body=body.body), function))
        case For() if body.kind != "thread_binding" and binds_threads(body.body):
            return replace(body, body=_inward(replace(node, body=body.body), function))
        case For(kind="thread_binding"):
            return _below_threads(node, body)
    return node


def _below_threads(node: Allocate, body: For) -> Stmt:
    """Inside the loops over groups and threads, where the kernel's own statements begin."""
    inner: Stmt = body.body
    if isinstance(inner, For) and inner.kind == "thread_binding":
        return replace(body, body=_below_threads(node, inner))
    return replace(body, body=replace(node, body=inner))


def _address(buffer: Buffer) -> Expr:
    zeros = tuple(IntImm(0, "int32") for _ in buffer.shape)
    return Call("address_of", (BufferLoad(buffer, zeros),), "handle")
