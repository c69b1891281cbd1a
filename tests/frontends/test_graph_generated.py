"""Random graph functions print and read back exactly."""

from __future__ import annotations

import ast

from hypothesis import HealthCheck, given, settings

from crossfarm.ir.module import IRModule
from tests.frontends.helpers import round_trips
from tests.ir.graph_programs import calls, every_graph_node
from tests.ir.graph_programs import modules as meaningful
from tests.ir.graph_strategies import modules


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(modules())
def test_any_module_of_graph_functions_round_trips(module: IRModule) -> None:
    text = round_trips(module)
    ast.parse(text)
    assert text.isascii()


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(meaningful())
def test_functions_that_mean_something_round_trip(module: IRModule) -> None:
    round_trips(module)


def test_every_node_round_trips() -> None:
    round_trips(every_graph_node())
    round_trips(calls())
