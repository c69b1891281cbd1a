"""ONNX Runtime as a peer: each work as a model of one operator, on its default CPU provider.

With ``--weights initializers`` what is constant in a network (a convolution's weights, a normalization's scale) is a
constant of the model, which ONNX Runtime lays out for itself beforehand; with ``inputs`` it arrives with each call, as
it does at crossfarm. What a call with nothing to do takes, measured with a model of one Identity on one number, is
taken off.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, checker, helper, numpy_helper

from benchmarks.peers.serving import Array, PythonRunner, Runner, Unsupported, Work, inputs, samples, serve

_OPSET = 20
_IR_VERSION = 10


@dataclass(frozen=True)
class Operator:
    """A model of one node. ``inputs``: shapes by name, ``constants``: which of them a network knows beforehand."""

    kind: str
    inputs: Mapping[str, tuple[int, ...]]
    output: tuple[int, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    constants: tuple[str, ...] = ()
    axes: tuple[int, ...] | None = None


class OnnxRuntime:
    """Makes sessions. Args: threads: of each operator."""

    def __init__(self, threads: int, constant_weights: bool) -> None:
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = threads
        self._options.inter_op_num_threads = 1
        self._options.log_severity_level = 3  # old models list their weights as inputs, which it warns of one by one
        self._constant_weights = constant_weights
        nothing = self._runner(Operator("Identity", {"X": (1,)}, (1,)), overhead=0.0)
        self.overhead = statistics.median(samples(nothing, repeat=9, min_seconds=0.01))

    def prepare(self, work: Work) -> Runner:
        if work["op"] == "model":
            return self._bound(onnxruntime.InferenceSession(work["program"], self._options), work)
        return self._runner(_operator(work["op"], work["sizes"]), self.overhead)

    def _bound(self, session: onnxruntime.InferenceSession, work: Work) -> Runner:
        """A whole model of one input and one output, run on what the benchmark gives every side."""
        (array,), (given,) = inputs(*work["inputs"]), (i for i in session.get_inputs() if i.name == work["input_name"])
        binding = session.io_binding()
        kept = onnxruntime.OrtValue.ortvalue_from_numpy(array)
        binding.bind_ortvalue_input(given.name, kept)
        result = onnxruntime.OrtValue.ortvalue_from_numpy(np.empty(work["output"], np.float32))
        binding.bind_ortvalue_output(session.get_outputs()[0].name, result)
        return PythonRunner(lambda: session.run_with_iobinding(binding), result.numpy, overhead=0.0)

    def _runner(self, operator: Operator, overhead: float) -> Runner:
        arrays = dict(zip(operator.inputs, inputs(*operator.inputs.values())))
        constant = operator.constants if self._constant_weights else ()
        model = _model(operator, {name: arrays[name] for name in constant})
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), self._options, providers=["CPUExecutionProvider"]
        )
        output = np.empty(operator.output, np.float32)
        binding = session.io_binding()
        kept = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(array)
            for name, array in arrays.items()
            if name not in constant
        }
        for name, value in kept.items():
            binding.bind_ortvalue_input(name, value)
        result = onnxruntime.OrtValue.ortvalue_from_numpy(output)
        binding.bind_ortvalue_output("Y", result)
        return PythonRunner(lambda: session.run_with_iobinding(binding), result.numpy, overhead=overhead)


def _operator(op: str, sizes: dict[str, int]) -> Operator:
    match op:
        case "matmul":
            head = (sizes["batch"],) if sizes["batch"] > 1 else ()
            a, b = (*head, sizes["m"], sizes["k"]), (*head, sizes["k"], sizes["n"])
            return Operator("MatMul", {"A": a, "B": b}, (*head, sizes["m"], sizes["n"]), constants=("B",))
        case "conv2d":
            return _convolution(**sizes)
    rows, columns = sizes["rows"], sizes["columns"]
    whole = (rows, columns)
    match op:
        case "softmax":
            return Operator("Softmax", {"X": whole}, whole, {"axis": 1})
        case "layer_norm":
            shapes = {"X": whole, "W": (columns,), "B": (columns,)}
            return Operator("LayerNormalization", shapes, whole, {"axis": 1, "epsilon": 1e-5}, ("W", "B"))
        case "gelu":
            return Operator("Gelu", {"X": whole}, whole, {"approximate": "none"})
        case "transpose":
            return Operator("Transpose", {"X": whole}, (columns, rows), {"perm": [1, 0]})
        case "sum_last" | "sum_first" | "sum_all":
            axes, shape = {"sum_last": ((1,), (rows,)), "sum_first": ((0,), (columns,)), "sum_all": ((0, 1), ())}[op]
            return Operator("ReduceSum", {"X": whole}, shape, {"keepdims": 0}, axes=axes)
    raise Unsupported(f"no model for {op}")


def _convolution(channels: int, height: int, out_channels: int, kernel: int, stride: int, groups: int) -> Operator:
    out = -(-height // stride)
    attributes = {
        "kernel_shape": [kernel, kernel],
        "strides": [stride, stride],
        "pads": [kernel // 2] * 4,
        "group": groups,
    }
    shapes = {"X": (1, channels, height, height), "W": (out_channels, channels // groups, kernel, kernel)}
    return Operator("Conv", shapes, (1, out_channels, out, out), attributes, ("W",))


def _model(operator: Operator, constants: dict[str, Array]) -> Any:
    names = list(operator.inputs)
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    if operator.axes is not None:
        names.append("axes")
        initializers.append(numpy_helper.from_array(np.asarray(operator.axes, np.int64), "axes"))
    node = helper.make_node(operator.kind, names, ["Y"], **operator.attributes)
    given = [_value(name, shape) for name, shape in operator.inputs.items() if name not in constants]
    graph = helper.make_graph([node], "work", given, [_value("Y", operator.output)], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    checker.check_model(model)
    return model


def _value(name: str, shape: Sequence[int]) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def main() -> None:
    parser = argparse.ArgumentParser(description="the ONNX Runtime side of the comparison of code")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--weights", choices=["initializers", "inputs"], required=True)
    options = parser.parse_args()
    runtime = OnnxRuntime(options.threads, options.weights == "initializers")
    serve(f"ONNX Runtime {onnxruntime.__version__}", runtime.prepare)


if __name__ == "__main__":
    main()
