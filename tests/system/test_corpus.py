"""Every program of the corpus, in both dialects, through build → lease → run on this machine's CPU."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import crossfarm as cf
from clients.sdk import Device, Farm
from tests.conftest import CORPUS

CASES: list[dict[str, Any]] = json.loads((CORPUS / "index.json").read_text()) if CORPUS.exists() else []
ON_CPU = [case for case in CASES if not case["needs_gpu_mapping"]]
ON_GPU = [case for case in CASES if case["needs_gpu_mapping"]]


@pytest.fixture(scope="module")
def farm() -> Iterator[Farm]:
    with cf.connect() as farm:
        farm.targets()  # dials the compiler: the connection is the farm's, not a test's
        yield farm


@pytest.fixture(scope="module")
def device(farm: Farm) -> Iterator[Device]:
    with farm.acquire("kind=cpu", timeout=60) as device:
        yield device


def arguments_of(case: dict[str, Any], corpus: Path) -> tuple[list[Any], list[np.ndarray[Any, Any]]]:
    """The inputs in parameter order, and the expected outputs."""
    data = np.load(corpus / f"{case['name']}.npz")
    inputs: list[Any] = [data[f"in_{i}"] for i in range(case["n_in"])]
    scalars = [p["kind"] == "scalar" for p in case["params"] if p["role"] == "in"]
    inputs = [int(x) if scalar else x for x, scalar in zip(inputs, scalars)]
    return inputs, [data[f"out_{i}"] for i in range(case["n_out"])]


@pytest.mark.usefixtures("corpus")
@pytest.mark.parametrize("dialect", ["", ".old"])
@pytest.mark.parametrize("case", ON_CPU, ids=lambda case: case["name"])
def test_a_corpus_program_gives_its_stored_outputs(
    case: dict[str, Any], dialect: str, farm: Farm, device: Device
) -> None:
    module = cf.load(CORPUS / f"{case['name']}{dialect}.py")
    inputs, expected = arguments_of(case, CORPUS)
    loaded = device.load(farm.build(module, target=device.target))
    result = loaded[case["func"]](*inputs)
    outputs = result if isinstance(result, tuple) else (result,)
    assert len(outputs) == len(expected)
    for got, want in zip(outputs, expected):
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want, rtol=case["rtol"], atol=case["atol"], equal_nan=True)


@pytest.mark.usefixtures("corpus")
@pytest.mark.parametrize("case", ON_GPU, ids=lambda case: case["name"])
def test_a_gpu_mapped_program_is_refused_for_a_cpu_with_the_reason(case: dict[str, Any], farm: Farm) -> None:
    module = cf.load(CORPUS / f"{case['name']}.py")
    cf.verify(module)
    with pytest.raises(cf.UserError, match=r"thread|GPU"):
        farm.build(module, target="llvm")
