"""Kernels written by hand as artifacts, so that the same driver runs them on the same memory as ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import crossfarm as cf
from benchmarks.cpu.sides import CrossfarmCode, Unsupported
from benchmarks.cpu.works import Work
from benchmarks.devices import plain_opencl, plain_script
from benchmarks.devices.plain_opencl import NAME, ROW_THREADS, TILE
from crossfarm.artifact import Artifact, write_artifact
from crossfarm.target import Target
from crossfarm.wire.v1 import artifact_pb2 as pb

#: Threads of a group, or groups, along x, y, z.
Extents = tuple[int, int, int]


@dataclass(frozen=True)
class Plain:
    """A kernel written by hand, for a work's sizes.

    Attributes:
        opencl: in OpenCL C. script: the same in the IR.
        group: threads of a group along x, y, z; grid: groups.
        order: which of the work's inputs each parameter but the last is; the last is the output.
    """

    opencl: str
    script: str
    group: Extents
    grid: Extents
    order: tuple[int, ...]


def plain_kernel(work: Work) -> Plain:
    """The work's. Raises Unsupported where there is none: kernels written by hand are for sizes that tiles divide."""
    at, tile, row = work.sizes, (TILE, TILE, 1), (ROW_THREADS, 1, 1)
    match work.op:
        case "matmul" if at["batch"] == 1 and not (at["m"] % TILE or at["n"] % TILE or at["k"] % TILE):
            return _product(at["m"], at["k"], at["n"], (0, 1))
        case "conv2d" if at["stride"] == at["groups"] == 1 and at["kernel"] == 3:
            channels, size, filters = at["channels"], at["height"], at["out_channels"]
            tiles = -(-size // TILE)
            scripted = plain_script.convolution(channels, size, filters)
            return Plain(plain_opencl.convolution(channels, size), scripted, tile, (tiles, tiles, filters), (0, 1))
        case "conv2d" if at["stride"] == at["groups"] == at["kernel"] == 1 and at["height"] ** 2 % TILE == 0:
            return _product(at["out_channels"], at["channels"], at["height"] ** 2, (1, 0))
        case "softmax" if at["columns"] % ROW_THREADS == 0:
            scripted = plain_script.softmax(at["rows"], at["columns"])
            return Plain(plain_opencl.softmax(at["columns"]), scripted, row, (at["rows"], 1, 1), (0,))
        case "blend" if at["rows"] * at["columns"] % ROW_THREADS == 0:
            elements = at["rows"] * at["columns"]
            return Plain(
                plain_opencl.blend(), plain_script.blend(elements), row, (elements // ROW_THREADS, 1, 1), (0, 1)
            )
    raise Unsupported("nobody wrote a kernel for it by hand")


def _product(m: int, k: int, n: int, order: tuple[int, int]) -> Plain:
    scripted = plain_script.product(m, k, n)
    return Plain(plain_opencl.product(k, n), scripted, (TILE, TILE, 1), (n // TILE, m // TILE, 1), order)


class PlainCode(CrossfarmCode):
    """The kernel written by hand, on the leased device: loaded, called and measured as ours is."""

    def build(self, work: Work) -> Artifact:
        kernel, target = plain_kernel(work), self._device.target
        if target.kind == "opencl":
            return opencl_artifact(kernel, work, target)
        # built with matrices, called with the work's shapes: the kernel is the same
        built = self._farm.build(cf.parse(kernel.script), target=target, schedule="none")
        return relabelled(built, kernel, work)


def opencl_artifact(kernel: Plain, work: Work, target: Target) -> Artifact:
    """The kernel as a file that devices load."""
    parameters = parameters_of(work)
    order = _order(kernel, work)
    launch = pb.Launch(
        kernel=NAME,
        grid=[_size(count) for count in kernel.grid],
        arguments=[pb.KernelArgument(parameter=k) for k in order],
    )
    plan = pb.LaunchPlan(launches=[launch], workspace_bytes=_size(0))
    threads = kernel.group[0] * kernel.group[1] * kernel.group[2]
    variant = pb.Variant(
        target=target.to_proto(),
        requires=pb.Requirements(threads_per_group=threads, device_version="1.2"),
        entry_points=[pb.EntryPoint(name="main", parameters=parameters, launch=plan)],
        runtime="opencl",
        kernels=[
            pb.Kernel(
                name=NAME,
                group=kernel.group,
                functions=["main"],
                parameters=[
                    pb.KernelParameter(name=f"p{k}", buffer=True, dtype="float32", written=k == order[-1])
                    for k in order
                ],
            )
        ],
    )
    return write_artifact(NAME, [variant], [kernel.opencl.encode()])


def relabelled(artifact: Artifact, kernel: Plain, work: Work) -> Artifact:
    """The artifact of the kernel's script, with the work's parameters."""
    (variant,) = artifact.variants
    changed = pb.Variant()
    changed.CopyFrom(variant)
    (entry,) = changed.entry_points
    del entry.parameters[:]
    entry.parameters.extend(parameters_of(work))
    order = _order(kernel, work)
    for launch in entry.launch.launches:
        for argument in launch.arguments:
            argument.parameter = order[argument.parameter]
    return write_artifact(NAME, [changed], [artifact.code(variant)])


def parameters_of(work: Work) -> list[pb.Parameter]:
    """The work's inputs and its output."""
    shapes = [*work.inputs, work.output]
    roles = [pb.Parameter.IN] * len(work.inputs) + [pb.Parameter.OUT]
    return [_parameter(f"p{k}", shape, role) for k, (shape, role) in enumerate(zip(shapes, roles))]


def _order(kernel: Plain, work: Work) -> list[int]:
    """Which of the work's inputs and its output each of the kernel's parameters is."""
    return [*kernel.order, len(work.inputs)]


def _parameter(name: str, shape: Sequence[int], role: pb.Parameter.Role) -> pb.Parameter:
    extents = [_size(extent) for extent in shape]
    return pb.Parameter(name=name, kind=pb.Parameter.BUFFER, dtype="float32", shape=extents, role=role)


def _size(value: int) -> pb.IndexExpr:
    return pb.IndexExpr(ops=[pb.IndexExpr.Op(constant=value)])
