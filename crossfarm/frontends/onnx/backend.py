"""crossfarm as an ``onnx.backend``: runs ONNX models, by the reference interpreter unless a device is plugged in.

::

    from crossfarm.frontends.onnx import backend
    outputs = backend.prepare(model).run([x])

A device is a subclass whose ``runner`` builds a module for it::

    class OnPhone(backend.Backend):
        runner = staticmethod(build_for_phone)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx.backend.base
from onnx import ModelProto, NodeProto, defs, helper

from crossfarm.errors import ArgumentError, InvalidModule
from crossfarm.frontends.onnx import load_onnx
from crossfarm.frontends.onnx.dtypes import ELEMENT_TYPES
from crossfarm.ir import dtype as dt
from crossfarm.ir.graph.expr import Function
from crossfarm.ir.interpreter.graph import evaluate
from crossfarm.ir.module import IRModule

Array = np.ndarray[Any, np.dtype[Any]]
#: Calls a built model: arrays for the parameters of "main" in, its results out.
Call = Callable[[Sequence[Array]], Sequence[Array]]
#: Builds a module once; what it gives is called as often as is wanted.
Runner = Callable[[IRModule], Call]


def interpreted(module: IRModule) -> Call:
    """Runs a module's "main" by the reference interpreter."""

    def call(inputs: Sequence[Array]) -> Sequence[Array]:
        found = evaluate(module, "main", inputs)
        return found if isinstance(found, tuple) else (found,)

    return call


class Prepared(onnx.backend.base.BackendRep):
    """A model that is ready to run.

    Attributes:
        frozen: inputs whose values the model's shapes are made of. A module has them as constants, so that it is made
            anew for each set of their values.
        module: what was built last.
    """

    def __init__(self, model: ModelProto, runner: Runner) -> None:
        """Raises as ``load_onnx``; inputs that shapes depend on are no error, see ``frozen``."""
        initializers = {t.name for t in model.graph.initializer}
        self._model = model
        self._runner = runner
        self._inputs = [i for i in model.graph.input if i.name not in initializers]
        self.frozen = tuple(i.name for i in self._inputs if i.type.WhichOneof("value") != "tensor_type")
        self._call: Call | None = None
        self.module: IRModule | None = None
        if not self.frozen:
            try:
                self._build({})
            except InvalidModule as error:
                if not error.details.get("inputs"):
                    raise
                self.frozen = tuple(error.details["inputs"].split(","))

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The model's outputs, in order; a list for one that is a sequence.

        Args:
            inputs: a sequence in the order of the model's inputs, an array alone, or arrays by name.

        Raises:
            ArgumentError: number, dtype or shape of the inputs.
        """
        given = self._by_name(inputs)
        while self.frozen:
            try:
                self._build(given)
                break
            except InvalidModule as error:
                more = [n for n in error.details.get("inputs", "").split(",") if n and n not in self.frozen]
                if not more:
                    raise
                self.frozen = (*self.frozen, *more)
        assert self._call is not None
        arrays = [np.asarray(given[i.name]) for i in self._inputs if i.name not in self.frozen]
        return self._grouped(self._call(arrays))

    def _by_name(self, inputs: Any) -> dict[str, Any]:
        if isinstance(inputs, Mapping):
            found = dict(inputs)
        else:
            values = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
            found = {i.name: v for i, v in zip(self._inputs, values)}
        missing = [i.name for i in self._inputs if i.name not in found]
        if missing:
            raise ArgumentError(f"no value for input {', '.join(missing)} of {self._model.graph.name!r}")
        return found

    def _build(self, given: Mapping[str, Any]) -> None:
        """Reads and builds the model, for the shapes and frozen values of ``given``."""
        values = {name: given[name] for name in self.frozen}
        shapes = {name: np.shape(value) for name, value in given.items() if name not in values}
        self.module = load_onnx(self._model, shapes=shapes, values=values)
        self._call = self._runner(self.module)

    def _grouped(self, results: Sequence[Array]) -> tuple[Any, ...]:
        """Tensors of one sequence as a list."""
        assert self.module is not None
        main = self.module.graph_functions["main"]
        names = _output_names(main)
        found: list[Any] = []
        left = list(zip(names, results))
        for output in self._model.graph.output:
            kind = output.type.WhichOneof("value")
            if left and left[0][0] == output.name and kind != "sequence_type":
                found.append(left.pop(0)[1])
                continue
            items: list[Array] = []
            while left and left[0][0] == f"{output.name}.{len(items)}":
                items.append(left.pop(0)[1])
            found.append(items)
        return tuple(found)


def _output_names(function: Function) -> Sequence[str]:
    names: Any = function.attrs["output_names"]
    return [str(getattr(n, "value", n)) for n in names]


class Backend(onnx.backend.base.Backend):
    """ONNX's interface to what runs models.

    Attributes:
        runner: builds modules; a subclass for a device sets its own.
        device: what ``supports_device`` says yes to.
    """

    runner: Runner = staticmethod(interpreted)
    device = "CPU"

    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> Prepared:
        """The model, read and built. Raises as ``load_onnx``, ArgumentError for a device that this is not."""
        if not cls.supports_device(device):
            raise ArgumentError(f"this backend runs on {cls.device}, not {device!r}")
        return Prepared(model, cls.runner)

    @classmethod
    def run_model(cls, model: ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any) -> tuple[Any, ...]:
        """``prepare``, then ``run``."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls, node: NodeProto, inputs: Any, device: str = "CPU", outputs_info: Any = None, **kwargs: Any
    ) -> tuple[Any, ...]:
        """One node alone; ``opset_version`` among ``kwargs``, else the newest."""
        arrays = [np.asarray(x) for x in inputs]
        names = [name for name in node.input if name]
        graph = helper.make_graph(
            [node], node.op_type,
            [helper.make_tensor_value_info(n, _element_type(a), a.shape) for n, a in zip(names, arrays)],
            [helper.make_empty_tensor_value_info(name) for name in node.output if name],
        )  # fmt: skip
        version = kwargs.get("opset_version") or defs.onnx_opset_version()
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid(node.domain, version)])
        return cls.run_model(model, arrays, device)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """True for ``device``, with or without a number after it."""
        return device.partition(":")[0] == cls.device


def _element_type(array: Array) -> int:
    return ELEMENT_TYPES[dt.from_numpy(array.dtype)]


prepare = Backend.prepare
run_model = Backend.run_model
run_node = Backend.run_node
supports_device = Backend.supports_device
