"""Whatever operators, dtypes, ranks and batch: each step keeps what a graph computes, and so does what is built."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from compiler_service.passes.graph import LOWER_GRAPH_STEPS
from compiler_service.passes.graph.lower_graph import LowerGraph
from crossfarm.errors import ProgramError
from crossfarm.ir import dtype as dt
from crossfarm.ir.graph import visit
from crossfarm.ir.module import IRModule
from crossfarm.wire.v1.artifact_pb2 import Parameter
from device_agent.drivers.base import Device
from tests.compiler.graph.graphs import Array, applied, results
from tests.compiler.graph.mixed_graphs import Mixed, assert_close, inputs_for, mixed_graphs
from tests.compiler.graph.running import Running, open_device

#: How many rows inputs of symbolic size have.
BATCHES = (3, 1, 0)
QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large]


@pytest.fixture(scope="module")
def device() -> Iterator[Device]:
    opened = open_device("cpu")
    yield opened
    opened.close()


def assert_same(mixed: Mixed, found: Callable[[list[Array]], list[Array]]) -> None:
    """That ``found`` gives what the function says, for each batch that it says anything of."""
    for batch in BATCHES:
        inputs = inputs_for(mixed.function, batch)
        try:
            expected = results(IRModule({"main": mixed.function}), inputs)
        except ProgramError:
            continue  # some operators refuse empty tensors
        for got, want, exact in zip(found(inputs), expected, mixed.exact, strict=True):
            assert_close(got, want, exact)


@settings(max_examples=15, deadline=None, report_multiple_bugs=False, suppress_health_check=QUIET)
@given(mixed=mixed_graphs())
def test_each_step_keeps_the_numbers(mixed: Mixed) -> None:
    written = IRModule({"main": mixed.function})
    module = written
    for step in LOWER_GRAPH_STEPS:
        if not isinstance(step, LowerGraph):
            before, module = module, applied(module, step)
            if module is not before:
                assert_same(mixed, partial(results, module, contents=written))


@settings(max_examples=8, deadline=None, report_multiple_bugs=False, suppress_health_check=QUIET)
@given(mixed=mixed_graphs())
def test_what_is_built_gives_the_numbers(mixed: Mixed, device: Device) -> None:
    written = IRModule({"main": mixed.function})
    contents = {f"sha256:{c.data.digest}": c.data.array for c in visit.constants(written)}
    running = Running("cpu", device, written)

    def constant(parameter: Parameter) -> Array:
        maker, _, number = parameter.constant.rpartition(":")
        found = contents.get(parameter.constant)
        if found is None:
            found = running(name=maker, constants=constants(maker))[int(number)]
        # constants of the same bytes are one, whatever their dtypes and shapes
        shape = [size.ops[0].constant for size in parameter.shape]
        return np.frombuffer(found.tobytes(), dt.to_numpy(parameter.dtype)).reshape(shape)

    def constants(name: str) -> list[Array]:
        return [constant(p) for p in running.entries[name].parameters if p.constant]

    assert_same(mixed, lambda inputs: running(*inputs, constants=constants("main")))
