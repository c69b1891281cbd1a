"""Every program of the corpus gives its stored outputs, under the default schedules and as it is written."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import crossfarm as cf
from tests.conformance.conftest import OnDevice
from tests.conftest import CORPUS

#: As they are written, all loops of a convolution run in one thread, and some drivers leave loops after so many turns.
LONG_LOOPS = ("squeezenet64_fused_conv2d3_add2_relu2",)
CASES: list[dict[str, Any]] = json.loads((CORPUS / "index.json").read_text()) if CORPUS.exists() else []


@pytest.mark.usefixtures("corpus")
@pytest.mark.parametrize("schedule", ["default", "none"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_a_corpus_program_gives_its_stored_outputs(
    case: dict[str, Any], schedule: str, on_device: OnDevice, kind: str
) -> None:
    module = cf.load(CORPUS / f"{case['name']}.py")
    data = np.load(CORPUS / f"{case['name']}.npz")
    if kind == "cpu" and case["needs_gpu_mapping"]:
        with pytest.raises(cf.BuildFailed, match="mapped to a GPU"):
            on_device.load(module)
        return
    limit = int(str(on_device.device.target.attributes.get("loop_iterations", 0)))
    if limit and schedule == "none" and case["name"] in LONG_LOOPS:
        with pytest.raises(cf.BuildFailed, match="stops a thread's loops after"):
            on_device.load(module, schedule=schedule)
        return
    inputs: list[Any] = [data[f"in_{i}"] for i in range(case["n_in"])]
    scalars = [p["kind"] == "scalar" for p in case["params"] if p["role"] == "in"]
    inputs = [int(x) if scalar else x for x, scalar in zip(inputs, scalars)]
    result = on_device.load(module, schedule=schedule)[case["func"]](*inputs)
    outputs = result if isinstance(result, tuple) else (result,)
    assert len(outputs) == case["n_out"]
    for position, got in enumerate(outputs):
        want = data[f"out_{position}"]
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want, rtol=case["rtol"], atol=case["atol"], equal_nan=True)
