"""Launch plans are checked once, and worked out for each combination of shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from crossfarm.artifact import Binding, DeviceCapabilities, Signature, select_variant, write_artifact
from crossfarm.artifact.launches import LaunchPlanner, ParameterOf, Place
from crossfarm.artifact.sizes import expression
from crossfarm.errors import ArgumentError, IncompatibleArtifact, InvalidArtifact
from crossfarm.target import Target
from crossfarm.wire.v1 import artifact_pb2 as pb
from tests.artifact import samples

GROUPS = ("FLOORDIV", ("ADD", "n", 63), 64)


def entry() -> pb.EntryPoint:
    """``main`` of the samples as two kernels: A, the temporary T; then T, B, C and the size m."""
    made = samples.entry_point()
    made.ClearField("native")
    size = lambda value: expression(value, samples.SYMBOLS)  # noqa: E731
    region = pb.Region(offset=size(512), bytes=size(("MUL", "n", 4)))
    made.launch.workspace_bytes.CopyFrom(size(("ADD", ("MUL", "n", 4), 512)))
    one = size(1)
    made.launch.launches.add(
        kernel="first", grid=[size(GROUPS), one, one],
        arguments=[pb.KernelArgument(parameter=0), pb.KernelArgument(region=region)],
    )  # fmt: skip
    made.launch.launches.add(
        kernel="second", grid=[size("m"), one, one],
        arguments=[
            pb.KernelArgument(region=region), pb.KernelArgument(parameter=1), pb.KernelArgument(parameter=3),
            pb.KernelArgument(size=size("m")), pb.KernelArgument(parameter=2),
        ],
    )  # fmt: skip
    return made


def variant(made: pb.EntryPoint | None = None, **requires: Any) -> pb.Variant:
    buffer = lambda name, written=False: pb.KernelParameter(  # noqa: E731
        name=name, buffer=True, dtype="float32", written=written
    )
    first = pb.Kernel(name="first", group=[64, 1, 1], parameters=[buffer("A"), buffer("T", True)])
    second = pb.Kernel(
        name="second", group=[32, 2, 1],
        parameters=[buffer("T"), buffer("B"), buffer("C", True), pb.KernelParameter(name="m", dtype="int64"),
                    pb.KernelParameter(name="s", dtype="int32")],
    )  # fmt: skip
    return pb.Variant(
        target=Target("opencl").to_proto(),
        requires=pb.Requirements(**requires),
        entry_points=[made or entry()],
        runtime="opencl",
        kernels=[first, second],
    )


def planned(n: int, m: int, made: pb.EntryPoint | None = None) -> list[tuple[str, tuple[int, ...], tuple[object, ...]]]:
    whole = variant(made)
    planner = LaunchPlanner(whole.entry_points[0], whole)
    bytes_ = Signature(entry())._workspace
    assert bytes_ is not None
    binding = Binding((n, m), (), (), bytes_.evaluate((n, m)))
    return [(launch.kernel.name, launch.grid, launch.values) for launch in planner.launches(binding)]


def test_grids_and_arguments_follow_the_sizes() -> None:
    assert planned(130, 7) == [
        ("first", (3, 1, 1), (ParameterOf(0), Place(512, 520))),
        ("second", (7, 1, 1), (Place(512, 520), ParameterOf(1), ParameterOf(3), 7, ParameterOf(2))),
    ]


def test_an_empty_grid_launches_nothing() -> None:
    assert [name for name, _, _ in planned(0, 7)] == ["second"]


def test_a_grid_beyond_any_device_is_refused() -> None:
    with pytest.raises(ArgumentError, match="grid of 4294967296"):
        planned(1, 1 << 32)


BROKEN: dict[str, Callable[[pb.EntryPoint], object]] = {
    "launches a kernel 'third'": lambda e: setattr(e.launch.launches[0], "kernel", "third"),
    "gives a kernel its parameter 9": lambda e: setattr(e.launch.launches[0].arguments[0], "parameter", 9),
    "does not fit it": lambda e: setattr(e.launch.launches[0].arguments[0], "parameter", 2),
    "malformed grid": lambda e: e.launch.launches[0].grid.pop(),
    "wrong number of arguments": lambda e: e.launch.launches[1].arguments.pop(),
    "malformed size": lambda e: e.launch.launches[0].grid[0].ops.pop(),
    "a kind that this release does not know": lambda e: e.launch.launches[0].arguments[0].ClearField("parameter"),
}


@pytest.mark.parametrize("reason", BROKEN)
def test_a_malformed_plan_is_refused(reason: str) -> None:
    made = entry()
    BROKEN[reason](made)
    with pytest.raises(InvalidArtifact, match=reason):
        planned(1, 1, made)


def test_a_region_beyond_the_workspace_is_refused() -> None:
    made = entry()
    made.launch.launches[0].arguments[1].region.offset.CopyFrom(expression(1 << 20, samples.SYMBOLS))
    with pytest.raises(InvalidArtifact, match="uses more of the workspace than it has"):
        planned(4, 4, made)


@pytest.mark.parametrize(
    ("requires", "lacks"),
    [
        ({"device_features": ["float64", "int8"]}, "needs float64, int8, which the device does not have"),
        ({"threads_per_group": 512}, "has groups of 512 threads, the device allows 256"),
        ({"shared_bytes": 65536}, "needs 65,536 bytes of shared memory, the device has 32,768"),
        ({"device_version": "2.1"}, "needs opencl 2.1, the device has 1.2"),
    ],
)
def test_what_a_device_lacks_for_kernels_is_named(requires: dict[str, object], lacks: str) -> None:
    device = DeviceCapabilities("opencl", "", "", threads_per_group=256, shared_bytes=32768, version="1.2")
    artifact = write_artifact("kernels", [variant(**requires)], [b"code"])
    with pytest.raises(IncompatibleArtifact, match=lacks):
        select_variant(artifact, device)
    assert select_variant(write_artifact("kernels", [variant()], [b"code"]), device).runtime == "opencl"
