"""Random modules print and read back exactly."""

from __future__ import annotations

import ast

from hypothesis import HealthCheck, given, settings

from crossfarm.ir.module import IRModule
from crossfarm.ir.printer import print_module
from tests.frontends.generated import modules
from tests.frontends.helpers import round_trips


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(modules())
def test_any_module_round_trips(module: IRModule) -> None:
    round_trips(module)


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(modules())
def test_printed_text_is_python_in_ascii_and_the_same_each_time(module: IRModule) -> None:
    text = print_module(module)
    ast.parse(text)
    assert text.isascii()
    assert print_module(module) == text
