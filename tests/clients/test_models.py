"""Artifacts with constants on the command line: what is shown of them, and that nobody is asked for them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from clients.sdk.farm import Farm, connect
from crossfarm.artifact import Artifact
from tests.clients.conftest import Crossfarm
from tests.clients.test_cli import expect_failure, parsed
from tests.session import model as sample
from tests.session.model import CONTENT, EXPECTED, W_DIGEST, V, W, X


@pytest.fixture(scope="module")
def farm(own_places: Path) -> Iterator[Farm]:
    """A private farm with a processor and an OpenCL device."""
    with connect("embedded", embedded_devices="cpu,opencl") as opened:
        opened.capabilities()
        yield opened


@pytest.fixture(scope="module")
def core() -> Artifact:
    return sample.build()


@pytest.fixture
def model(core: Artifact, tmp_path: Path) -> Path:
    core.with_constants(CONTENT).save(tmp_path / "model.cfa")
    return tmp_path / "model.cfa"


def test_a_model_is_run_by_its_inputs(crossfarm: Crossfarm, farm: Farm, model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    ran = crossfarm("run", model, "--select", "kind=opencl", "--input", "X=@x.npy", "--json", farm=farm)
    assert ran.returncode == 0, ran.stderr
    (output,) = parsed(ran)["outputs"]
    assert (output["name"], output["values"]) == ("Y", EXPECTED.tolist())


def test_inputs_are_made_up_and_outputs_named(crossfarm: Crossfarm, farm: Farm, model: Path) -> None:
    ran = crossfarm("run", model, "--size", "n=5", "--select", "kind=cpu", farm=farm)
    assert ran.returncode == 0, ran.stderr
    row = ran.stdout.splitlines()[1]
    assert row.startswith("Y: float32[n]")
    assert row.endswith("…")


def test_a_constant_is_not_the_callers_to_give(crossfarm: Crossfarm, farm: Farm, model: Path) -> None:
    ran = crossfarm("run", model, "--select", "kind=cpu", "--input", "W=40000xf32=1", "--json", farm=farm)
    expect_failure(ran, 1, "ArgumentError", "constant, which comes with the artifact")


def test_a_core_alone_says_where_its_constants_are(
    crossfarm: Crossfarm, farm: Farm, core: Artifact, tmp_path: Path
) -> None:
    unseen = f"sha256:{W_DIGEST[::-1]}"  # by any device of this farm
    sample.with_origins(core, {("other", "W"): unseen}).save(tmp_path / "core.cfa")
    ran = crossfarm("run", "core.cfa", "-f", "other", "--select", "kind=cpu", "--json", farm=farm)
    expect_failure(ran, 1, "NotFound", "nor here: W", "the file that the built artifact was saved to")


def test_times_of_steps_are_shown_with_what_they_are_of_the_model(
    crossfarm: Crossfarm, farm: Farm, model: Path
) -> None:
    job = ("bench", model, "--size", "n=64", "--repeat", 2, "--min-repeat-ms", 0, "--profile")
    shown = crossfarm(*job, "--select", "kind=opencl", farm=farm)
    assert "100.0%" in shown.stdout
    assert "Mul_0+Add_1 of main" in shown.stdout
    assert shown.stderr == ""
    document = parsed(crossfarm(*job, "--select", "kind=cpu", "--json", farm=farm))["profile"]
    (step,) = document["steps"]
    assert not document["whole"], "what makes no calls is one step"
    assert (step["function"], step["origin"]) == ("main", "Mul_0+Add_1 of main")
    assert (step["operations"], step["bytes"], step["kernels"]) == (2 * 64, 3 * 4 * 64 + 2 * 4, [])
    assert len(document["runs"]) == 2


def test_constants_are_listed_and_inputs_shown_without_them(
    crossfarm: Crossfarm, core: Artifact, model: Path, tmp_path: Path
) -> None:
    core.save(tmp_path / "core.cfa")
    shown = crossfarm("inspect", model).stdout
    assert "main(X: float32[n]) -> Y: float32[n]" in shown
    assert f"2 constants, {(W.nbytes + V.nbytes) / 1024:.1f} KiB, in this file" in shown
    assert "not in this file" in crossfarm("inspect", "core.cfa").stdout
    document = parsed(crossfarm("inspect", model, "--json"))
    first = document["constants"][0]
    assert (first["digest"], first["bytes"], first["here"]) == (W_DIGEST, W.nbytes, True)
    assert "first_prepare.W: float32[40000]" in first["used_as"]
    assert document["digest"] == core.digest


def test_constants_come_out_as_files_for_other_programs(crossfarm: Crossfarm, model: Path, tmp_path: Path) -> None:
    assert crossfarm("inspect", model, "--sources", "out").returncode == 0
    assert (tmp_path / "out" / f"constant-{W_DIGEST}").read_bytes() == W.tobytes()
    plan = json.loads((tmp_path / "out" / "variant-1-launch.json").read_text())["functions"]
    origins = {p["name"]: p.get("constant") for p in plan["main"]["parameters"]}
    assert origins == {"X": None, "Y": None, "W": f"sha256:{W_DIGEST}", "P": "main_prepare:0"}
