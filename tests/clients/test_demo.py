"""The examples, and the demo that runs them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

import crossfarm as cf
from clients.cli.demo import CASES, Case
from clients.sdk.farm import Farm
from tests.clients.conftest import Crossfarm
from tests.conftest import ROOT

ARM64_ROOT = ROOT / ".roots" / "arm64"


def example(case: Case) -> Path:
    return ROOT / "examples" / case.file


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.file)
def test_an_example_reads_back_from_its_own_print(case: Case) -> None:
    mod = cf.load(str(example(case)))
    assert cf.structural_equal(mod, cf.parse(mod.script()))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.file)
def test_an_example_computes_what_its_reference_says(case: Case, farm: Farm) -> None:
    arguments = case.inputs(np.random.default_rng(1))
    with farm.acquire("kind=cpu") as device:
        actual = device.load(farm.build(example(case), device.target))["main"](*arguments)
    np.testing.assert_allclose(actual, case.reference(*arguments), rtol=0, atol=case.tolerance * np.abs(actual).max())


@pytest.mark.emulated
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_demo_runs_everything_on_both_architectures(crossfarm: Crossfarm, farm: Farm) -> None:
    if not ARM64_ROOT.is_dir():
        if os.environ.get("CI"):
            pytest.fail("the arm64 root is missing: make arm64-root")
        pytest.skip("no arm64 root: make arm64-root")
    ran = crossfarm("demo", "--require-aarch64", "--repeat", 2, "--json", farm=farm, timeout=280)
    assert ran.returncode == 0, ran.stderr
    runs = json.loads(ran.stdout)["runs"]
    assert {run["arch"] for run in runs} >= {"aarch64"}
    assert len(runs) == 2 * (len(CASES) + 1)
    allowed = {case.name.removesuffix(".py"): case.tolerance for case in CASES} | {"light_squeezenet.onnx": 1e-3}
    assert all(run["error"] < allowed[run["program"]] and run["median"] > 0 for run in runs)
