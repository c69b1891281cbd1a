"""Mathematical functions of float32: within the documented errors, right at the edges, and free of libm."""

from __future__ import annotations

import platform
import re
from functools import cache

import numpy as np
import pytest

from compiler_service.build import build_variant
from compiler_service.codegen.vector_math import FUNCTIONS, coefficients
from crossfarm.target import Target
from crossfarm.target.cpu import host_cpu_features
from crossfarm.wire.v1 import compiler_pb2
from tests.compiler.accuracy import REFERENCES, assert_within, functions, samples
from tests.compiler.native import Native
from tests.conftest import ROOT
from tools import fit_polynomials

#: With and without fused multiplication, and every width of vectors.
TARGETS = ("x86-64", "x86-64-v3", "x86-64-v4") if platform.machine() == "x86_64" else ("llvm",)
STEP = 4001


@cache
def _native(name: str, target: str) -> Native:
    if not Target(target).enabled_features() <= host_cpu_features():
        pytest.skip(f"this CPU does not run {target}")
    return Native(functions(name), target)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_results_are_within_the_stated_error_over_all_arguments(name: str, target: str) -> None:
    args = samples(name, STEP)
    got = np.empty_like(args[0])
    _native(name, target)("scalar", *args, got)
    assert_within(name, FUNCTIONS[name].ulp, args, got)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_vectors_and_scalars_have_the_same_bits(name: str, target: str) -> None:
    args = samples(name, STEP * 2048)
    args = [a[: len(a) // 16 * 16] for a in args]
    scalar, vector = np.empty_like(args[0]), np.empty_like(args[0])
    native = _native(name, target)
    native("scalar", *args, scalar)
    for at in range(0, len(scalar), 16):
        native("vector", *(a[at : at + 16] for a in args), vector[at : at + 16])
    np.testing.assert_array_equal(vector, scalar)


@pytest.mark.parametrize("target", ["x86-64", "x86-64-v4", "aarch64-linux-generic", "raspberry-pi/4b"])
def test_no_library_is_needed(target: str) -> None:
    for name in FUNCTIONS:
        built = build_variant(functions(name), Target(target), compiler_pb2.BuildOptions())
        assert list(built.variant.requires.libraries) == [], name


@pytest.mark.parametrize("name", ["exp", "tanh", "erf", "sigmoid", "log"])
def test_a_plain_loop_over_a_function_becomes_vector_code(name: str) -> None:
    options = compiler_pb2.BuildOptions(keep_sources=True)
    built = build_variant(functions(name), Target("x86-64-v3"), options)
    code = built.sources["llvm-optimized.ll"]
    assert "<8 x float>" in code[: code.index("crossfarm_vector")], "the loop of one element at a time stayed so"


def test_the_coefficients_are_what_their_derivation_gives() -> None:
    for fit in fit_polynomials.FITS:
        derived, error = fit.solve()
        kept = getattr(coefficients, fit.name)
        assert len(kept) == len(derived)
        if fit.dtype == "float32":  # elsewhere the last digits are the linear algebra library's
            np.testing.assert_allclose(kept, derived, rtol=1e-3, err_msg=fit.name)
        assert error < (2.0**-24.5 if fit.dtype == "float32" else 2.0**-39), fit.name
    assert tuple(fit_polynomials.turns()) == coefficients.TURNS


def test_the_documented_errors_are_those_stated_in_the_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) \|$", (ROOT / "docs" / "math.md").read_text(), re.MULTILINE)
    assert {name: float(bound) for name, bound in rows} == {name: f.ulp for name, f in FUNCTIONS.items()}
    assert set(REFERENCES) >= set(FUNCTIONS)
