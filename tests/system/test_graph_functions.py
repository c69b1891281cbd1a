"""A model from its graph function to numbers, on each kind of device: real programs, weights included."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import crossfarm as cf
from clients.sdk import Farm, connect
from clients.sdk.explanation import Explanation
from crossfarm.frontends.tvmscript import parse
from crossfarm.ir.expr import Var
from crossfarm.ir.graph import dims
from crossfarm.ir.graph.builder import Builder
from crossfarm.ir.graph.expr import TupleExpr
from crossfarm.ir.graph.types import TensorType
from crossfarm.ir.module import IRModule
from crossfarm.wire.v1.artifact_pb2 import Manifest
from tests.compiler.graph.graphs import results
from tests.session.harness import open_device

_RNG = np.random.default_rng(0)
WEIGHTS = _RNG.standard_normal((64, 512), dtype=np.float32)
SCALE = _RNG.standard_normal((64, 512), dtype=np.float32)
BIAS = _RNG.standard_normal(512, dtype=np.float32)
X = _RNG.standard_normal((5, 64), dtype=np.float32)
EXPECTED = np.maximum(X @ (WEIGHTS * SCALE) + BIAS, 0)


def layer() -> IRModule:
    """``relu(x @ (weights * scale) + bias)`` for any number of rows; the product of constants is made beforehand."""
    b = Builder()
    x = b.parameter("x", TensorType((Var("n", "int64"), dims.dim(64)), "float32"))
    weights = b.op("multiply", b.constant(WEIGHTS), b.constant(SCALE))
    product = b.op("matmul", x, weights, origin="MatMul_1")
    result = b.op("nn.relu", b.op("add", product, b.constant(BIAS), origin="Add_2"), origin="Relu_3")
    return IRModule({"main": b.function(result)})


@pytest.fixture(scope="module")
def farm() -> Iterator[Farm]:
    with connect("embedded", embedded_devices="cpu,opencl,vulkan") as opened:
        opened.capabilities()  # its connections are its own, not those of the first test
        yield opened


@pytest.mark.parametrize("kind", ["cpu", "opencl", "vulkan"])
def test_a_model_gives_its_numbers_with_weights_that_no_compiler_saw(kind: str, farm: Farm, tmp_path: Path) -> None:
    with farm.acquire(f"kind={kind}") as device:
        built = farm.build(layer(), device.target)
        assert all(array.tobytes() not in built.data for array in (WEIGHTS, SCALE, WEIGHTS * SCALE))
        built.save(tmp_path / "model.cfa")
        for artifact in (built, cf.Artifact.open(tmp_path / "model.cfa")):
            main = device.load(artifact)["main"]
            assert [main.signature.parameters[i].name for i in main.signature.inputs] == ["x"]
            for rows in (X, X[:2]):
                np.testing.assert_allclose(main(rows), EXPECTED[: len(rows)], rtol=1e-4, atol=1e-4)


def test_a_saved_model_is_built_where_its_weights_are_not(farm: Farm, tmp_path: Path) -> None:
    layer().save(tmp_path / "model.cfir")
    with farm.acquire("kind=cpu") as device:
        artifact = farm.build(tmp_path / "model.cfir", device.target)
        np.testing.assert_allclose(device.load(artifact)["main"](X), EXPECTED, rtol=1e-4, atol=1e-4)


def two_layers() -> IRModule:
    """``relu(x @ w + b) @ v`` for any number of rows."""
    b = Builder()
    x = b.parameter("x", TensorType((Var("n", "int64"), dims.dim(64)), "float32"))
    product = b.op("matmul", x, b.constant(WEIGHTS), origin="MatMul_1")
    hidden = b.op("nn.relu", b.op("add", product, b.constant(BIAS), origin="Add_2"), origin="Relu_3")
    return IRModule({"main": b.function(b.op("matmul", hidden, b.constant(WEIGHTS.T.copy()), origin="MatMul_4"))})


#: Of ``two_layers``, for 5 rows: function, nodes, operations, bytes.
STEPS = [
    ("matmul_add_relu", "MatMul_1, Add_2, Relu_3", 5 * 512 * (2 * 64 + 2), 4 * (5 * 64 + 64 * 512 + 512 + 5 * 512)),
    ("matmul", "MatMul_4", 5 * 64 * 2 * 512, 4 * (5 * 512 + 512 * 64 + 5 * 64)),
]


@pytest.mark.parametrize("kind", ["cpu", "opencl", "vulkan"])
def test_a_profile_tells_time_and_work_of_each_step_of_a_model(kind: str, farm: Farm, tmp_path: Path) -> None:
    with farm.acquire(f"kind={kind}") as device:
        built = farm.build(two_layers(), device.target)
        main = device.load(built)["main"]
        started = time.perf_counter()
        found = main.profile(X, warmup=1, repeat=3)
        elapsed = time.perf_counter() - started
        assert [(s.function, s.origin, s.operations, s.bytes) for s in found.steps] == STEPS
        assert not found.whole
        assert sum(step.share for step in found.steps) == pytest.approx(1)
        assert 0 < sum(map(sum, found.runs)) < elapsed, "steps do not overlap"
        assert [len(run) for run in found.runs] == [2, 2, 2]
        kernels = [launch.kernel for entry in built.variants[0].entry_points[:1] for launch in entry.launch.launches]
        assert [kernel.kernel for step in found.steps for kernel in step.kernels] == kernels
        nothing = main.profile(X[:0], warmup=0, repeat=1)
        assert [s.operations for s in nothing.steps] == [0, 0]
        assert kind == "cpu" or nothing.total == 0, "what has no groups is not launched"
        if kind == "vulkan":
            return
        unnamed = device.load(without_steps(built))["main"].profile(X, warmup=0, repeat=1)
        assert [s.function for s in unnamed.steps] == (kernels or ["main"])
        assert (unnamed.whole, unnamed.total > 0) == (kind == "cpu", True)
        if kind == "cpu":
            for driver in ("null", "reference"):
                with open_device(driver, tmp_path) as other:
                    whole = other.load(built)["main"].profile(X, warmup=0, repeat=2)
                    (step,) = whole.steps
                    assert (whole.whole, step.function, step.operations) == (True, "main", sum(s[2] for s in STEPS))


def without_steps(built: cf.Artifact) -> cf.Artifact:
    """The artifact as releases of before steps made it."""
    manifest = Manifest()
    manifest.CopyFrom(built.manifest)
    for entry in (entry for variant in manifest.variants for entry in variant.entry_points):
        del entry.steps[:]
    return built.rewritten(manifest)


PLACED = """
@I.ir_module
class Halves:
    @T.prim_func
    def double(A: T.Buffer((64,), "float32"), B: T.Buffer((64,), "float32")):
        T.func_attr({"target": T.target("opencl")})
        for i in range(64):
            with T.block("B"):
                v = T.axis.spatial(64, i)
                B[v] = A[v] * T.float32(2)

    @R.function
    def add_one(x: R.Tensor((64,), "float32")) -> R.Tensor((64,), "float32"):
        R.func_attr({"target": T.target("llvm")})
        with R.dataflow():
            y = R.add(x, R.const(1, "float32"))
            R.output(y)
        return y

    @R.function
    def relu(x: R.Tensor((64,), "float32")) -> R.Tensor((64,), "float32"):
        with R.dataflow():
            y = R.nn.relu(x)
            R.output(y)
        return y
"""


def test_functions_of_one_artifact_are_each_where_they_belong(farm: Farm) -> None:
    x = np.linspace(-1, 1, 64, dtype=np.float32)
    with farm.acquire("kind=cpu") as cpu, farm.acquire("kind=opencl") as gpu:
        built = farm.build(parse(PLACED), [cpu.target, gpu.target], keep_sources=True)
        assert [sorted(e.name for e in v.entry_points) for v in built.variants] == [
            ["add_one", "relu"],
            ["double", "relu"],
        ]
        assert Explanation(built, 1).functions[:2] == ("double", "relu")
        here, there = cpu.load(built), gpu.load(built)
        np.testing.assert_allclose(here["relu"](here["add_one"](there["double"](x))), np.maximum(2 * x + 1, 0))
        np.testing.assert_allclose(there["relu"](x), np.maximum(x, 0))
        with pytest.raises(cf.errors.NoSuchFunction, match=r"for this device.*'double' is there for opencl"):
            here["double"]


def test_weights_that_a_cpu_wants_in_another_order_are_laid_out_once(farm: Farm) -> None:
    """One weight for many rows and few, and a convolution in groups."""
    b = Builder()
    w = b.constant(WEIGHTS[:, :499], "weights")
    products = [b.op("matmul", b.parameter(f"x{n}", TensorType(dims.dims((n, 64)), "float32")), w) for n in (128, 4)]
    image = b.parameter("image", TensorType(dims.dims((1, 8, 6, 16)), "float32"))
    filters = b.constant(_RNG.standard_normal((12, 4, 3, 3), dtype=np.float32), "filters")
    model = IRModule({"main": b.function(TupleExpr((*products, b.op("nn.conv2d", image, filters, groups=2))))})
    given = [_RNG.standard_normal(shape, dtype=np.float32) for shape in ((128, 64), (4, 64), (1, 8, 6, 16))]
    with farm.acquire("kind=cpu") as device:
        loaded = device.load(farm.build(model, device.target))
        found = loaded["main"](*given)
        names = [p.name for p in loaded["main"].signature.parameters]
    assert {"weights_packed", "filters_packed"} <= set(names)
    assert "filters" not in names
    prepare = next(entry for entry in loaded.variant.entry_points if entry.name == "main_prepare")
    assert len(prepare.steps) == 2, "one weight for one layout, and the filters"
    for got, expected in zip(found, results(model, given), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_a_device_that_interprets_programs_evaluates_models(tmp_path: Path, farm: Farm) -> None:
    artifact = farm.build(layer())
    with open_device("reference", tmp_path) as device:
        np.testing.assert_allclose(device.load(artifact)["main"](X), EXPECTED, rtol=1e-4, atol=1e-4)
