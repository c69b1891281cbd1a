"""A function that was split into kernels → the launch plan that its artifact carries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from compiler_service.codegen.kernel import Kernel
from compiler_service.passes.report_failures import FAILURES
from compiler_service.passes.workspace import DEVICE_ALIGN, round_up, workspace_plan
from compiler_service.symbols import function_symbols, index_expr
from crossfarm.errors import BuildFailed
from crossfarm.ir import dtype as dt
from crossfarm.ir import ops
from crossfarm.ir.arith import const_int, fold_int, wrap
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.calls import ProgramCall, element_of, is_caller
from crossfarm.ir.expr import Binary, BufferLoad, Call, Cast, Expr, IntImm, StringImm, Var
from crossfarm.ir.function import Param, PrimFunc
from crossfarm.ir.stmt import Allocate, AttrStmt, Evaluate, For, SeqStmt, Stmt
from crossfarm.ir.visitor import substitute, walk
from crossfarm.wire.v1 import artifact_pb2 as pb

#: Launches that one function may become.
MAX_LAUNCHES = 4096


@dataclass(frozen=True)
class PlannedFunction:
    """A launch plan, the messages of its status' nonzero values, in order, and how many launches each call of another
    function became, or the function itself where it makes none."""

    plan: pb.LaunchPlan
    failures: tuple[str, ...]
    launches: tuple[int, ...]


def plan_launches(
    name: str, func: PrimFunc, kernels: Mapping[str, Kernel], callees: Mapping[str, PrimFunc] = MappingProxyType({})
) -> PlannedFunction:
    """The plan of a function that ``split_kernels`` and ``plan_workspace`` have seen; of one that calls others, their
    plans one after the other, in its own sizes, arguments and workspace.

    Args:
        callees: the functions that it may call.

    Raises:
        BuildFailed: a loop around kernels has no constant extent, or there are too many launches; a size that is none.
    """
    symbols = function_symbols(func)
    size = index_expr(workspace_plan(func).size, symbols, f"the workspace of function {name!r}")
    plan = pb.LaunchPlan(workspace_bytes=size)
    given = {param: pb.KernelArgument(parameter=i) for i, param in enumerate(func.params)}
    planner = _Planner(name, func, kernels, callees, plan, symbols, given)
    planner.statement(func.body, {})
    counts = planner.calls if is_caller(func) else [len(plan.launches)]
    return PlannedFunction(plan, planner.failures, tuple(counts))


def kernel_message(
    kernel: Kernel, functions: Sequence[str], shared_bytes: int, parts: Mapping[str, int] = MappingProxyType({})
) -> pb.Kernel:
    """What an artifact says of a kernel.

    Args:
        functions: the entry points that launch it.
        parts: names of buffers that take several bindings, and how many.
    """
    return pb.Kernel(
        name=kernel.name,
        group=kernel.group,
        shared_bytes=shared_bytes,
        functions=functions,
        parameters=[
            pb.KernelParameter(
                name=p.name,
                buffer=isinstance(p, Buffer),
                dtype=p.dtype,
                written=p in kernel.written,
                parts=parts.get(p.name, 0),
            )
            for p in kernel.params
        ],
    )


@dataclass
class _Planner:
    """Appends a function's launches to a plan.

    Attributes:
        symbols: of the entry point, which all sizes are in.
        given: what each parameter is in the entry point's words.
        names: what the function's own sizes and scalar parameters are in the entry point's; none where it is that.
        start: byte of the entry point's workspace where the function's own begins.
        calls: how many launches each call became.
        failures: messages of the plan's status.
        regions: of the temporaries.
    """

    name: str
    func: PrimFunc
    kernels: Mapping[str, Kernel]
    callees: Mapping[str, PrimFunc]
    plan: pb.LaunchPlan
    symbols: tuple[Var, ...]
    given: dict[Param, pb.KernelArgument]
    names: Mapping[Var, Expr] = field(default_factory=dict)
    start: Expr = field(default_factory=lambda: IntImm(0, "int64"))
    calls: list[int] = field(default_factory=list)
    failures: tuple[str, ...] = ()
    regions: dict[Buffer, _Region] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.workspace = workspace_plan(self.func)

    def statement(self, node: Stmt, loops: Mapping[Var, Expr]) -> None:
        match node:
            case SeqStmt():
                for s in node.stmts:
                    self.statement(s, loops)
            case Allocate():
                self._allocation(node)
                self.statement(node.body, loops)
            case For():
                self._loop(node, loops)
            case Evaluate(value=Call(op="launch_kernel") as call):
                self._launch(call, loops)
            case Evaluate(value=Call(op="call_function", args=args)) | AttrStmt(body=Evaluate(value=Call(args=args))):
                before = len(self.plan.launches)
                self._call(ProgramCall(_text(args[0]), args[1:]))
                self.calls.append(len(self.plan.launches) - before)
            case _:
                raise AssertionError(f"split_kernels left a {type(node).__name__} to the host")

    def _allocation(self, node: Allocate) -> None:
        place, size = node.annotations["place"], node.annotations["bytes"]
        assert isinstance(place, int)
        region = _Region(
            self._add(self.start, self._own(self.workspace.offsets[place])),
            self._own(size if isinstance(size, Expr) else IntImm(int(str(size)), "int64")),
        )
        self.regions[node.buffer] = region
        messages = node.annotations.get(FAILURES)
        if isinstance(messages, tuple):
            self.failures = tuple(str(m) for m in messages)
            self.plan.status.CopyFrom(self._region(region, f"the size of {node.buffer.name!r}"))

    def _loop(self, node: For, loops: Mapping[Var, Expr]) -> None:
        start, count = (const_int(self._own(e, loops)) for e in (node.min, node.extent))
        if start is None or count is None:
            raise BuildFailed(
                f"function {self.name!r}: loop {node.var.name!r} is around kernels and has no constant extent",
                hint="bind it too, or move it inside the loops that are bound to thread indices",
            )
        for value in range(start, start + count):
            self.statement(node.body, {**loops, node.var: IntImm(value, node.var.dtype)})

    def _launch(self, call: Call, loops: Mapping[Var, Expr]) -> None:
        if len(self.plan.launches) == MAX_LAUNCHES:
            raise BuildFailed(
                f"function {self.name!r} would launch more than {MAX_LAUNCHES} kernels",
                hint="move the loop around them inside the loops that are bound to thread indices",
            )
        kernel = self.kernels[_text(call.args[0])]
        what = f"the grid of kernel {kernel.name!r}"
        # what the kernel calls a size, in the function's words
        given = {p: a for p, a in zip(kernel.params, call.args[1:]) if isinstance(p, Var)}
        grid = [self._index(_whole(self._own(substitute(g, given), loops)), what) for g in kernel.grid]
        arguments = [self._argument(a, loops) for a in call.args[1:]]
        self.plan.launches.append(pb.Launch(kernel=kernel.name, grid=grid, arguments=arguments))

    def _argument(self, expr: Expr, loops: Mapping[Var, Expr]) -> pb.KernelArgument:
        if isinstance(expr, Call) and isinstance(expr.args[0], BufferLoad):
            buffer = expr.args[0].buffer
            if buffer in self.regions:
                region = self._region(self.regions[buffer], f"the size of {buffer.name!r}")
                return pb.KernelArgument(region=region)
            return self.given[buffer]
        if isinstance(expr, Var) and expr in self.given:
            return self.given[expr]
        assert dt.is_int(expr.dtype), "only sizes are no parameters"
        return pb.KernelArgument(size=self._index(self._own(expr, loops), "an argument of a kernel"))

    # --- calls of other functions

    def _call(self, call: ProgramCall) -> None:
        """The callee's launches, on what the call gives it."""
        callee = self.callees[call.function]
        values = call.values(callee)
        given: dict[Param, pb.KernelArgument] = {}
        for param, first in call.buffers(callee):
            given[param] = self._part(param, first, values)
        for scalar in (p for p in callee.params if isinstance(p, Var)):
            given[scalar] = self._argument(values[scalar], {})
        lent = [self._offset(element_of(memory)) for memory in call.extra(callee)]
        inner = _Planner(
            call.function, callee, self.kernels, self.callees, self.plan, self.symbols, given, values,
            lent[0] if lent else IntImm(0, "int64"),
        )  # fmt: skip
        inner.statement(callee.body, {})

    def _part(self, param: Buffer, first: BufferLoad, values: Mapping[Var, Expr]) -> pb.KernelArgument:
        """What a callee's buffer is: a parameter of this function, or as much of a region as it has bytes."""
        if first.buffer not in self.regions:
            return self.given[first.buffer]
        size: Expr = IntImm(dt.itemsize(param.dtype), "int64")
        for extent in param.shape:
            size = Binary("mul", size, ops.cast(substitute(extent, dict(values)), "int64"))
        part = _Region(self._offset(first), round_up(self._own(size), DEVICE_ALIGN))
        return pb.KernelArgument(region=self._region(part, f"the size of {param.name!r}"))

    def _offset(self, first: BufferLoad) -> Expr:
        """Byte of the workspace where an element of a region is; indices of regions that have parts are bytes."""
        (index,) = first.indices
        return self._add(self.regions[first.buffer].offset, index)

    # --- sizes

    def _own(self, expr: Expr, loops: Mapping[Var, Expr] | None = None) -> Expr:
        """A size of this function in the entry point's symbols."""
        return _folded(substitute(expr, {**self.names, **(loops or {})}))

    def _add(self, a: Expr, b: Expr) -> Expr:
        return _folded(Binary("add", a, b))

    def _index(self, expr: Expr, what: str) -> pb.IndexExpr:
        return index_expr(_folded(expr), self.symbols, f"{what} of function {self.name!r}")

    def _region(self, region: _Region, what: str) -> pb.Region:
        return pb.Region(offset=self._index(region.offset, what), bytes=self._index(region.size, what))


@dataclass(frozen=True)
class _Region:
    """Part of the entry point's workspace, in its symbols."""

    offset: Expr
    size: Expr


def _text(expr: Expr) -> str:
    assert isinstance(expr, StringImm)
    return expr.value


def _folded(expr: Expr) -> Expr:
    """The expression with its constants worked out."""
    match expr:
        case Binary(op=op, a=a, b=b):
            a, b = _folded(a), _folded(b)
            if isinstance(a, IntImm) and isinstance(b, IntImm):
                value = fold_int(op, a.value, b.value, a.dtype)
                if value is not None:
                    return IntImm(value, a.dtype)
            if isinstance(a, IntImm) and a.value == 0 and op == "add":
                return b
            return expr if a is expr.a and b is expr.b else Binary(op, a, b)
        case Cast(value=IntImm(value=number)) if dt.is_int(expr.dtype):
            return IntImm(wrap(number, expr.dtype), expr.dtype)
        case _:
            return expr


def _whole(extent: Expr) -> Expr:
    """Never negative, as a loop of negative extent runs no more than one of 0."""
    if not any(isinstance(n, Var) for n in walk(extent)):
        return extent
    return Binary("max", extent, IntImm(0, extent.dtype))
