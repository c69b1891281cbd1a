"""Launch plans: which kernels a call runs, with what grid and arguments, checked once and worked out for each shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crossfarm.artifact.sizes import Size
from crossfarm.errors import ArgumentError, InvalidArtifact
from crossfarm.ir import dtype as dt
from crossfarm.wire.v1.artifact_pb2 import EntryPoint, IndexExpr, Kernel, KernelArgument, Parameter, Region, Variant

if TYPE_CHECKING:
    from crossfarm.artifact.signature import Binding

MAX_LAUNCHES = 1 << 16
MAX_KERNEL_PARAMETERS = 1024
#: No device has a larger grid in one direction, or a group of more threads.
MAX_GRID = (1 << 31) - 1
MAX_GROUP = 4096


@dataclass(frozen=True, slots=True)
class Place:
    """Part of the workspace, in bytes."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class ParameterOf:
    """The argument of the call that is that parameter of the entry point."""

    index: int


#: What a kernel's parameter is given: a buffer of the call or of the workspace, a scalar of the call, or an integer.
KernelValue = ParameterOf | Place | int


@dataclass(frozen=True, slots=True)
class LaunchOf:
    """One launch of a call.

    Attributes:
        kernel: what the artifact says of it: group, parameters.
        grid: thread groups along x, y, z; each is at least 1.
        values: one a parameter of the kernel.
        position: in the plan, which may have launches that this call has no groups for.
    """

    kernel: Kernel
    grid: tuple[int, int, int]
    values: tuple[KernelValue, ...]
    position: int = 0


class LaunchPlanner:
    """An entry point's launch plan, ready to be worked out.

    Raises:
        InvalidArtifact: the plan names what is not there, or is malformed.
    """

    def __init__(self, entry: EntryPoint, variant: Variant) -> None:
        self.entry = entry
        self.kernels: Mapping[str, Kernel] = {kernel.name: kernel for kernel in variant.kernels}
        plan = entry.launch
        if len(plan.launches) > MAX_LAUNCHES:
            raise InvalidArtifact(f"function {entry.name!r} has {len(plan.launches)} launches; at most {MAX_LAUNCHES}")
        self._workspace = self._size(plan.workspace_bytes)
        self._status = self._region(plan.status) if plan.HasField("status") else None
        self._launches = [
            (
                self._kernel(launch.kernel),
                [self._size(g) for g in launch.grid],
                [self._value(a) for a in launch.arguments],
            )
            for launch in plan.launches
        ]
        for kernel, grid, values in self._launches:
            self._check(kernel, grid, values)

    def launches(self, binding: Binding) -> list[LaunchOf]:
        """What a call with these sizes runs, in order. Raises ArgumentError where a size makes no sense."""
        found = []
        for position, (kernel, grid, values) in enumerate(self._launches):
            x, y, z = (self._evaluate(g, binding) for g in grid)
            if not (x and y and z):
                continue
            if max(x, y, z) > MAX_GRID:
                raise ArgumentError(f"{self.entry.name} would launch {kernel.name} with a grid of {x} × {y} × {z}")
            found.append(LaunchOf(kernel, (x, y, z), tuple(self._worked_out(v, binding) for v in values), position))
        return found

    def by_position(self, launches: Sequence[LaunchOf], times: Sequence[float]) -> tuple[float, ...]:
        """Times of these launches as times of all the plan's, 0 for those that are not among them."""
        found = [0.0] * len(self._launches)
        for launch, time in zip(launches, times, strict=True):
            found[launch.position] = time
        return tuple(found)

    def status(self, binding: Binding) -> Place | None:
        """Where the kernels write what failed; None where nothing can."""
        return None if self._status is None else self._place(self._status, binding)

    # --- checks, once

    def _kernel(self, name: str) -> Kernel:
        try:
            kernel = self.kernels[name]
        except KeyError:
            raise self._bad(f"launches a kernel {name[:80]!r} that is not there") from None
        if len(kernel.group) != 3 or not all(1 <= g <= MAX_GROUP for g in kernel.group):
            raise self._bad(f"launches kernel {name!r} with a malformed group")
        return kernel

    def _size(self, expr: IndexExpr) -> Size:
        try:
            return Size(expr, len(self.entry.symbols))
        except ValueError as failure:
            raise self._bad(f"has a malformed size: {failure}") from None

    def _region(self, region: Region) -> tuple[Size, Size]:
        return self._size(region.offset), self._size(region.bytes)

    def _value(self, argument: KernelArgument) -> ParameterOf | tuple[Size, Size] | Size:
        which = argument.WhichOneof("value")
        if which == "parameter":
            index = argument.parameter
            if index >= len(self.entry.parameters):
                raise self._bad(f"gives a kernel its parameter {index}, which it does not have")
            return ParameterOf(index)
        if which == "region":
            return self._region(argument.region)
        if which == "size":
            return self._size(argument.size)
        raise self._bad("gives a kernel an argument of a kind that this release does not know")

    def _check(self, kernel: Kernel, grid: Sequence[Size], values: Sequence[object]) -> None:
        if len(grid) != 3 or len(values) != len(kernel.parameters) or len(values) > MAX_KERNEL_PARAMETERS:
            raise self._bad(f"launches kernel {kernel.name!r} with a malformed grid or wrong number of arguments")
        for value, parameter in zip(values, kernel.parameters):
            if parameter.dtype not in dt.SCALARS:
                raise self._bad(f"has a kernel {kernel.name!r} with an unknown dtype {parameter.dtype[:40]!r}")
            if isinstance(value, ParameterOf):
                given = self.entry.parameters[value.index]
                is_buffer = given.kind == Parameter.BUFFER
                fits = is_buffer == parameter.buffer and given.dtype == parameter.dtype
            else:
                fits = parameter.buffer == isinstance(value, tuple)
            if not fits:
                raise self._bad(f"gives kernel {kernel.name!r} an argument for {parameter.name!r} that does not fit it")

    def _bad(self, what: str) -> InvalidArtifact:
        return InvalidArtifact(f"function {self.entry.name!r} {what}", hint="build the artifact again")

    # --- for each combination of shapes

    def _worked_out(self, value: ParameterOf | tuple[Size, Size] | Size, binding: Binding) -> KernelValue:
        if isinstance(value, ParameterOf):
            return value
        return self._place(value, binding) if isinstance(value, tuple) else value.evaluate(binding.symbols)

    def _place(self, region: tuple[Size, Size], binding: Binding) -> Place:
        offset, size = (self._evaluate(s, binding) for s in region)
        if offset + size > binding.workspace_bytes:
            raise self._bad("uses more of the workspace than it has")
        return Place(offset, size)

    def _evaluate(self, size: Size, binding: Binding) -> int:
        try:
            value = size.evaluate(binding.symbols)
        except ZeroDivisionError:
            value = -1
        if value < 0:
            raise ArgumentError(f"{self.entry.name}: the size {size.text(self.entry.symbols)} makes no sense here")
        return value
