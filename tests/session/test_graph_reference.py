"""A graph function on the reference device is evaluated as it was written, with the constants that a client sends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compiler_service.build import build_variant
from crossfarm.artifact import Artifact, write_artifact
from crossfarm.ir.graph import visit
from crossfarm.ir.graph.builder import Builder
from crossfarm.ir.module import IRModule
from crossfarm.ir.serialize import dumps
from crossfarm.target import Target
from crossfarm.wire.v1.compiler_pb2 import BuildOptions
from tests.ir.graph_programs import tensor, weights
from tests.session.harness import open_device


def model() -> IRModule:
    """``main(x) = (x @ (w * s) + b, x @ v)`` for four rows; w * s is prepared, v is raw."""
    b = Builder()
    x = b.parameter("x", tensor(4, 512))
    scaled = b.op("multiply", b.constant(weights(512, 8)), b.constant(weights(512, 1, seed=1)))
    first = b.op("add", b.op("matmul", x, scaled), b.constant(weights(8, seed=2)))
    return IRModule({"main": b.function([first, b.op("matmul", x, b.constant(weights(512, 8, seed=3)))])})


@pytest.fixture
def built() -> Artifact:
    module = model()
    one = build_variant(module, Target.detect(), BuildOptions())
    artifact = write_artifact("model", [one.variant], [one.code], module=dumps(module))
    return artifact.with_constants({c.data.digest: c.data.view for c in visit.constants(module)})


def test_a_model_gives_what_numpy_gives_however_it_was_compiled(built: Artifact, tmp_path: Path) -> None:
    x = weights(4, 512, seed=9)
    assert {entry.name for entry in built.variants[0].entry_points} == {"main", "main_prepare"}
    with open_device("reference", tmp_path) as device:
        main = device.load(built)["main"]
        for _ in range(2):
            first, second = main(x)
            want = x @ (weights(512, 8) * weights(512, 1, seed=1)) + weights(8, seed=2)
            np.testing.assert_array_equal(first, want)
            np.testing.assert_array_equal(second, x @ weights(512, 8, seed=3))
