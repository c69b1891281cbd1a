"""ONNX's own node tests, by its own runner, on each kind of device: what passed still does."""

from __future__ import annotations

import os

import pytest

from clients.sdk import Device, Farm
from tests.conformance import onnx_nodes

pytestmark = [pytest.mark.models, pytest.mark.timeout(1800)]


def test_the_node_tests_that_passed_still_pass(farm: Farm, device: Device, kind: str) -> None:
    if not onnx_nodes.listed(kind).exists():
        missing = f"nobody has listed what passes on {kind}: python -m tests.conformance.onnx_nodes {kind}"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    names = set(onnx_nodes.listed(kind).read_text().split())
    assert names
    found = onnx_nodes.run(onnx_nodes.on(farm, device), names.__contains__)
    assert {name: wrong for name, wrong in found.items() if wrong} == {}
    assert set(found) == names
