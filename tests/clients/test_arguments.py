"""Arguments on the command line: how values are written, made up and compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.cli.arguments import Inputs, compare, load_array
from crossfarm.artifact import Signature
from crossfarm.artifact.sizes import expression
from crossfarm.errors import ArgumentError, Mismatch, UsageError
from crossfarm.wire.v1.artifact_pb2 import EntryPoint, Parameter


def signature() -> Signature:
    """f(A: float32[n, 4], B: int8[n + 1], s: float32, k: int32) -> C: float32[n]"""
    symbols = {"n": 0}

    def buffer(name: str, dtype: str, role: Parameter.Role, *shape: int | str | tuple[object, ...]) -> Parameter:
        extents = [expression(extent, symbols) for extent in shape]
        return Parameter(name=name, kind=Parameter.BUFFER, dtype=dtype, role=role, shape=extents)

    return Signature(
        EntryPoint(
            name="f",
            symbols=list(symbols),
            parameters=[
                buffer("A", "float32", Parameter.IN, "n", 4),
                buffer("B", "int8", Parameter.INOUT, ("ADD", "n", 1)),
                Parameter(name="s", kind=Parameter.SCALAR, dtype="float32"),
                Parameter(name="k", kind=Parameter.SCALAR, dtype="int32"),
                buffer("C", "float32", Parameter.OUT, "n"),
            ],
        )
    )


def arguments(*given: str, sizes: tuple[str, ...] = (), seed: int = 0) -> list[Any]:
    return Inputs(signature(), given, sizes, seed=seed).arguments()


def test_values_are_written_by_shape_dtype_and_numbers() -> None:
    a, b, s, k = arguments("A=1x4xf32=1, 2,3 4", "B=2xi8=-1,0x7f", "s=2.5", "3=-7")
    np.testing.assert_array_equal(a, np.array([[1, 2, 3, 4]], np.float32))
    np.testing.assert_array_equal(b, np.array([-1, 127], np.int8))
    assert (s, k) == (2.5, -7)


def test_one_value_fills_the_array() -> None:
    a, *_ = arguments("A=3x4xf32=0.5")
    np.testing.assert_array_equal(a, np.full((3, 4), 0.5, np.float32))


def test_a_file_gives_the_array(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(8, dtype=np.float32).reshape(2, 4))
    a, b, *_ = arguments(f"A=@{tmp_path / 'a.npy'}")
    assert a.shape == (2, 4)
    assert b.shape == (3,)


def test_random_inputs_take_their_sizes_from_what_is_given_and_repeat_with_the_seed() -> None:
    first, again, other = (arguments(sizes=("n=5",), seed=seed) for seed in (1, 1, 2))
    assert first[0].shape == (5, 4)
    assert first[1].shape == (6,)
    assert first[1].dtype == np.int8
    np.testing.assert_array_equal(first[0], again[0])
    assert not np.array_equal(first[0], other[0])


def test_a_size_that_nothing_defines_is_asked_for() -> None:
    with pytest.raises(ArgumentError, match="how large n is") as caught:
        arguments()
    assert "--size n=" in caught.value.hint


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("A", "not NAME=VALUE"),
        ("A=", "not NAME=VALUE"),
        ("A=2x2xq7=1", "cannot read the value"),
        ("A=f32x2", "cannot read the value"),
        ("A=2x4xf32=1,2,3", "needs 8"),
        ("A=2x4xf32=one", "not a number"),
        ("B=2xi8=1,300", "does not fit int8"),
        ("s=x", "not a number"),
        ("A=@/nowhere.npy", "cannot read the array"),
    ],
)
def test_a_value_that_cannot_be_read_is_a_usage_error(given: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        arguments(given)


def test_an_unknown_parameter_is_named_with_the_signature() -> None:
    with pytest.raises(ArgumentError, match="no parameter 'Z'") as caught:
        arguments("Z=1")
    assert "A: float32[n, 4]" in caught.value.hint


def test_nothing_in_a_file_is_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "evil.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(UsageError, match="cannot read the array"):
        load_array(tmp_path / "evil.npy")


def test_a_mismatch_names_the_worst_element_and_how_large_it_is() -> None:
    expected = np.array([[1.0, 2.0], [3.0, 4.0]])
    actual = np.array([[1.0, 2.5], [3.0, 8.0]])
    comparison = compare("C", actual, expected, rtol=1e-3, atol=0)
    assert (comparison.max_abs, comparison.max_rel, comparison.worst) == (4.0, 1.0, (1, 1))
    with pytest.raises(Mismatch, match=r"2 of 4 elements; the worst is C\[1, 1\] = 8.0, expected 4.0"):
        comparison.check(1e-3, 0)


def test_nan_equals_nan_and_infinities_equal_themselves() -> None:
    special = np.array([np.nan, np.inf, -np.inf, 0.0])
    assert compare("C", special, special, rtol=0, atol=0).wrong == 0
    assert compare("C", special, special[::-1], rtol=1, atol=1).wrong == 4


def test_large_integers_compare_exactly() -> None:
    large = np.array([2**63 - 1])
    assert compare("C", large, large - 1, rtol=0, atol=0).wrong == 1
    assert compare("C", large, large, rtol=0, atol=0).wrong == 0


def test_another_shape_is_a_mismatch() -> None:
    with pytest.raises(Mismatch, match="shape"):
        compare("C", np.zeros(2), np.zeros((1, 2)), rtol=0, atol=0)


def test_empty_outputs_compare_as_equal() -> None:
    assert compare("C", np.zeros((0, 3)), np.zeros((0, 3)), rtol=0, atol=0).count == 0
