"""ONNX's node tests by ONNX's own runner, on the devices of a farm.

``python -m tests.conformance.onnx_nodes cpu`` runs them all on that kind of device and writes which pass to
``onnx_nodes_cpu.txt`` beside this file; a test holds the device to it.
"""

from __future__ import annotations

import sys
import unittest
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import onnx.backend.test

import crossfarm as cf
from clients.sdk import Device, Farm
from crossfarm.frontends.onnx import backend
from crossfarm.frontends.onnx.backend import Array, Call
from crossfarm.ir.module import IRModule

#: What the nine light models and transformers are made of: kinds that run kernels are held to these operators.
MODEL_OPERATORS = (
    "Add", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat", "Conv", "Div", "Dropout", "Erf", "Exp",
    "Expand", "Flatten", "Gather", "Gelu", "Gemm", "GlobalAveragePool", "Identity", "LRN", "LayerNormalization",
    "MatMul", "MaxPool", "Mul", "Pow", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
    "ReduceSumSquare", "Relu", "Reshape", "Sigmoid", "Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Sub", "Sum",
    "Tanh", "Transpose", "Unsqueeze", "Where",
)  # fmt: skip


def listed(kind: str) -> Path:
    """The file with the tests that pass on that kind of device."""
    return Path(__file__).with_name(f"onnx_nodes_{kind}.txt")


def on(farm: Farm, device: Device) -> type[backend.Backend]:
    """The backend that builds for ``device`` and runs there."""

    def runner(module: IRModule) -> Call:
        artifact = farm.build(module, target=device.target)

        def call(inputs: Sequence[Array]) -> Sequence[Array]:
            with device.load(artifact) as loaded:  # a session holds only so many modules at once
                found = loaded["main"](*inputs)
                return [np.asarray(r) for r in (found if isinstance(found, tuple | list) else [found])]

        return call

    return type("OnFarm", (backend.Backend,), {"runner": staticmethod(runner)})


def run(chosen: type[backend.Backend], names: Callable[[str], bool]) -> dict[str, str]:
    """Each test whose name is wanted with what is wrong, "" where nothing is."""
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = onnx.backend.test.BackendTest(chosen, __name__).test_cases["OnnxBackendNodeModelTest"]
        for test in unittest.defaultTestLoader.loadTestsFromTestCase(cases):
            name = test.id().rpartition(".")[2]
            if not name.endswith("_cpu") or not names(name.removesuffix("_cpu")):
                continue
            result = unittest.TestResult()
            test.run(result)
            wrong = [*result.failures, *result.errors, *result.skipped]
            found[name.removesuffix("_cpu")] = wrong[0][1].strip().splitlines()[-1] if wrong else ""
    return found


def with_model_operators() -> set[str]:
    """Names of the tests of ``MODEL_OPERATORS``."""
    from tools.onnx_coverage import cases

    return {name for name, case in cases().items() if case.model.graph.node[0].op_type in MODEL_OPERATORS}


def main(kinds: Iterable[str]) -> None:
    """Runs the tests on each kind of device and writes their lists."""
    chosen = with_model_operators()
    for kind in kinds:
        with cf.connect("embedded", embedded_devices=kind) as farm, farm.acquire(f"kind={kind}") as device:
            found = run(on(farm, device), lambda name, kind=kind: kind == "cpu" or name in chosen)  # type: ignore[misc]
        listed(kind).write_text("".join(f"{name}\n" for name, wrong in sorted(found.items()) if not wrong))
        for name, wrong in found.items():
            if wrong:
                print(f"{kind} {name}: {wrong}")
        print(f"{kind}: {sum(not wrong for wrong in found.values())} of {len(found)} pass")


if __name__ == "__main__":
    main(sys.argv[1:])
