"""The comparison on devices: kernels written by hand compute the same, launches are taken apart rightly, tables."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

import crossfarm as cf
from benchmarks.cpu import programs
from benchmarks.cpu.peers import Peer
from benchmarks.cpu.sides import Unsupported
from benchmarks.cpu.turns import OURS, Effort, Measured
from benchmarks.cpu.works import Work, convolution, matmul
from benchmarks.devices import comparison, works
from benchmarks.devices.comparison import FARM, DeviceBench, FarmCalls
from benchmarks.devices.launching import BARE, OurDriver
from benchmarks.devices.one_launch import OneLaunch
from benchmarks.devices.plain import opencl_artifact, plain_kernel, relabelled
from benchmarks.peers.serving import Array, inputs
from benchmarks.report import Samples
from clients.sdk.farm import Farm
from compiler_service.build import build_variant
from crossfarm.artifact import Artifact, write_artifact
from crossfarm.errors import NoSuchDevice
from crossfarm.ir.interpreter import run
from crossfarm.target import Target
from crossfarm.wire.v1.compiler_pb2 import BuildOptions
from device_agent import drivers

SMALL = [
    matmul("product", 1, 32, 16, 48),
    convolution(3, 20, 2, 3, 1, groups=1),
    convolution(16, 8, 32, 1, 1, groups=1),
    Work("softmax", "softmax", {"rows": 3, "columns": 512}, programs.softmax(3, 512), ((3, 512),), (3, 512)),
    Work("blend", "blend", {"rows": 2, "columns": 256}, programs.blend(2, 256), ((2, 256),) * 2, (2, 256)),
]


def expected(work: Work) -> Array:
    result = np.zeros(work.output, np.float32)
    run(cf.parse(work.program), "main", [*inputs(*work.inputs), result])
    return result


def built(program: str, target: Target, schedule: str = "") -> Artifact:
    made = build_variant(cf.parse(program), target, BuildOptions(schedule=schedule))
    return write_artifact("built", [made.variant], [made.code])


@pytest.fixture(scope="module", params=sorted(BARE))
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A kind of device that is here; never skipped in CI."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POCL_CACHE_DIR", str(tmp_path_factory.mktemp("pocl")))
        if not drivers.get(request.param).probe():
            if os.environ.get("CI"):
                pytest.fail(f"no {request.param} device")
            pytest.skip(f"no {request.param} device")
        yield str(request.param)


def by_hand(work: Work, target: Target) -> Artifact:
    kernel = plain_kernel(work)
    if target.kind == "opencl":
        return opencl_artifact(kernel, work, target)
    return relabelled(built(kernel.script, target, "none"), kernel, work)


@pytest.mark.parametrize("work", SMALL, ids=lambda work: work.name)
def test_a_kernel_written_by_hand_computes_what_the_program_says(work: Work, kind: str) -> None:
    device = drivers.get(kind).probe()[0]
    arrays = [*inputs(*work.inputs), np.zeros(work.output, np.float32)]
    ours = OurDriver(by_hand(work, device.target), arrays, kind, device.attributes["name"])
    ours.run(1)
    np.testing.assert_allclose(ours.output(), expected(work), rtol=1e-4, atol=1e-5)


def test_a_bare_launch_gives_what_the_driver_gives(kind: str) -> None:
    work = next(works.launches())
    device = drivers.get(kind).probe()[0]
    artifact = built(work.program, device.target)
    arrays = inputs(*work.inputs, work.output)
    bare = BARE[kind][1](OneLaunch.of(artifact, arrays), device.attributes["name"])
    ours = OurDriver(artifact, arrays, kind, device.attributes["name"])
    for number in (1, 130):
        for launcher in (bare, ours):
            launcher.run(number)
        np.testing.assert_array_equal(bare.output(), ours.output())
    np.testing.assert_allclose(bare.output(), expected(work), rtol=1e-6)


@pytest.mark.parametrize("quick", [False, True])
def test_every_kernel_of_the_comparison_was_written_by_hand(quick: bool) -> None:
    for work in (*works.arithmetic(quick), *works.memory_bound(quick)):
        kernel = plain_kernel(work)
        grid = built(kernel.script, Target("vulkan"), "none").variants[0].entry_points[0].launch.launches[0].grid
        assert tuple(count.ops[0].constant for count in grid) == kernel.grid


def test_sizes_that_tiles_do_not_divide_are_refused() -> None:
    with pytest.raises(Unsupported):
        plain_kernel(matmul("odd", 1, 33, 16, 16))


def test_a_function_of_several_launches_is_no_single_one() -> None:
    softmax = built(programs.softmax(4, 8), Target("opencl"), "none")
    with pytest.raises(ValueError, match="launches"):
        OneLaunch.of(softmax, inputs((4, 8), (4, 8)))


class NoDevices:
    """A farm without a device."""

    def acquire(self, selector: str) -> Any:
        raise NoSuchDevice(f"no {selector}")


def test_a_kind_that_is_not_here_is_said_to_be_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench = DeviceBench(
        cast(Farm, NoDevices()), cast(Peer, None), tmp_path, tmp_path / "log", Effort.of(quick=True), threads=1
    )
    for section, count in ((comparison.launches, 1), (comparison.kernels, 2)):
        tables = list(section(bench))
        assert len(tables) == count * len(comparison.KINDS)
        for table in tables:
            assert "no OpenCL device" in table.markdown() or "no Vulkan device" in table.markdown()
    assert "skipped" in capsys.readouterr().err


def test_launches_are_held_against_bare_ones() -> None:
    measured = Measured(
        next(works.launches()), {OURS: Samples([2e-5]), "bare x": Samples([1e-5]), FARM: Samples([4e-5])}
    )
    (row,) = comparison.launch_table("Launches", [measured], "bare x").rows
    assert row[1:] == ("20 µs", "10 µs", "40 µs", "0.50", "0.25", "≥ 0.8 × bare x", "no")


def test_single_calls_of_the_farm_are_averaged_over_many(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = FarmCalls(cast(Any, None), cast(Any, SimpleNamespace()), None)
    asked: dict[str, Any] = {}

    def benchmark(**plan: Any) -> list[float]:
        asked.update(plan)
        return [1.0, 3.0] * (plan["repeat"] // 2)

    monkeypatch.setattr(calls, "_benchmark", benchmark)
    calls.queued = False
    assert calls.measure(3, 0.01) == [2.0, 2.0, 2.0]
    assert asked["min_repeat_ms"] == 0
