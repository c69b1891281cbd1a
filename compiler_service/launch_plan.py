"""A function that was split into kernels → the launch plan that its artifact carries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from compiler_service.codegen.kernel import Kernel
from compiler_service.passes.plan_workspace import workspace_plan
from compiler_service.passes.report_failures import FAILURES
from compiler_service.symbols import function_symbols, index_expr
from crossfarm.errors import BuildFailed
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import const_int
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Binary, BufferLoad, Call, Expr, IntImm, StringImm, Var
from crossfarm.ir.function import Param, PrimFunc
from crossfarm.ir.stmt import Allocate, Evaluate, For, SeqStmt, Stmt
from crossfarm.ir.visitor import substitute, walk
from crossfarm.wire.v1 import artifact_pb2 as pb

#: Launches that one function may become.
MAX_LAUNCHES = 4096


@dataclass(frozen=True)
class PlannedFunction:
    """A launch plan, and the messages of its status' nonzero values, in order."""

    plan: pb.LaunchPlan
    failures: tuple[str, ...]


def plan_launches(name: str, func: PrimFunc, kernels: Mapping[str, Kernel]) -> PlannedFunction:
    """The plan of a function that ``split_kernels`` and ``plan_workspace`` have seen.

    Raises:
        BuildFailed: a loop around kernels has no constant extent, or there are too many launches; a size that is none.
    """
    planner = _Planner(name, func, kernels)
    planner.statement(func.body, {})
    return PlannedFunction(planner.plan, planner.failures)


def kernel_message(kernel: Kernel, function: str, shared_bytes: int) -> pb.Kernel:
    """What an artifact says of a kernel."""
    return pb.Kernel(
        name=kernel.name,
        group=kernel.group,
        shared_bytes=shared_bytes,
        functions=[function],
        parameters=[
            pb.KernelParameter(name=p.name, buffer=isinstance(p, Buffer), dtype=p.dtype, written=p in kernel.written)
            for p in kernel.params
        ],
    )


@dataclass
class _Planner:
    name: str
    func: PrimFunc
    kernels: Mapping[str, Kernel]
    failures: tuple[str, ...] = ()
    regions: dict[Buffer, pb.Region] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.symbols = function_symbols(self.func)
        self.workspace = workspace_plan(self.func)
        self.plan = pb.LaunchPlan(
            workspace_bytes=index_expr(self.workspace.size, self.symbols, f"the workspace of function {self.name!r}")
        )

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
            case _:
                raise AssertionError(f"split_kernels left a {type(node).__name__} to the host")

    def _allocation(self, node: Allocate) -> None:
        place, size = node.annotations["place"], node.annotations["bytes"]
        assert isinstance(place, int)
        what = f"the size of {node.buffer.name!r} in function {self.name!r}"
        region = pb.Region(
            offset=index_expr(self.workspace.offsets[place], self.symbols, what),
            bytes=index_expr(size if isinstance(size, Expr) else IntImm(int(str(size)), "int64"), self.symbols, what),
        )
        self.regions[node.buffer] = region
        messages = node.annotations.get(FAILURES)
        if isinstance(messages, tuple):
            self.failures = tuple(str(m) for m in messages)
            self.plan.status.CopyFrom(region)

    def _loop(self, node: For, loops: Mapping[Var, Expr]) -> None:
        start, count = (const_int(substitute(e, dict(loops))) for e in (node.min, node.extent))
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
        name = call.args[0]
        assert isinstance(name, StringImm)
        kernel = self.kernels[name.value]
        what = f"the grid of kernel {kernel.name!r}"
        given = dict(zip(kernel.params, call.args[1:]))  # what the kernel calls a size, in the function's words
        grid = [index_expr(_whole(self._size(g, given, loops)), self.symbols, what) for g in kernel.grid]
        self.plan.launches.append(
            pb.Launch(kernel=kernel.name, grid=grid, arguments=[self._argument(a, loops) for a in call.args[1:]])
        )

    def _size(self, extent: Expr, given: Mapping[Param, Expr], loops: Mapping[Var, Expr]) -> Expr:
        """An expression of a kernel's scalars in the function's symbols."""
        scalars = {param: value for param, value in given.items() if isinstance(param, Var)}
        return substitute(substitute(extent, scalars), dict(loops))

    def _argument(self, expr: Expr, loops: Mapping[Var, Expr]) -> pb.KernelArgument:
        if isinstance(expr, Call) and isinstance(expr.args[0], BufferLoad):
            buffer = expr.args[0].buffer
            if buffer in self.regions:
                return pb.KernelArgument(region=self.regions[buffer])
            return pb.KernelArgument(parameter=self.func.params.index(buffer))
        if isinstance(expr, Var) and expr in self.func.params:
            return pb.KernelArgument(parameter=self.func.params.index(expr))
        size = substitute(expr, dict(loops))
        assert dt.is_int(expr.dtype), "only sizes are no parameters"
        return pb.KernelArgument(size=index_expr(size, self.symbols, f"an argument of a kernel of {self.name!r}"))


def _whole(extent: Expr) -> Expr:
    """Never negative, as a loop of negative extent runs no more than one of 0."""
    if not any(isinstance(n, Var) for n in walk(extent)):
        return extent
    return Binary("max", extent, IntImm(0, extent.dtype))
