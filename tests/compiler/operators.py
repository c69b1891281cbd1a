"""The programs that try every operator and cast on every dtype, grouped, and how their results are compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from crossfarm.ir import dtype as dt
from crossfarm.ir.expr import Binary, Call, Cast, IntImm, Select
from crossfarm.ir.function import PrimFunc
from tests.compiler.programs import Make, elementwise

INTEGERS = (*dt.INTS, *dt.UINTS)
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
DIVISIONS = ("div", "mod", "floordiv", "floormod")

#: Intrinsics of one float argument whose results are the same bits everywhere.
EXACT = ("sqrt", "floor", "ceil", "trunc", "nearbyint", "round", "abs")


def _binary(op: str) -> Make:
    return lambda a, b: Binary(op, a, b)


def call(op: str, dtype: str | None = None) -> Make:
    return lambda *args: Call(op, args, dtype or args[0].dtype)


def _bitwise(dtype: str) -> dict[str, Make]:
    results: dict[str, Make] = {op: _binary(op) for op in ("bitand", "bitor", "bitxor", "shl", "shr")}
    for op in ("popcount", "bitwise_not"):
        results[op] = lambda a, b, op=op: Call(op, (a,), a.dtype)
    results["clz"] = lambda a, b: Call("clz", (a,), "int32")
    results["abs"] = lambda a, b: Call("abs", (a,), a.dtype)
    return results


def _operators(dtype: str) -> dict[str, Make]:
    results: dict[str, Make] = {op: _binary(op) for op in ("min", "max", *COMPARISONS)}
    results["select"] = lambda a, b: Select(Binary("lt", a, b), a, b)
    if dtype == "bool":
        results.update({op: _binary(op) for op in ("bitand", "bitor", "bitxor", "and", "or")})
        return results
    results.update({op: _binary(op) for op in ("add", "sub", "mul")})
    if dtype in INTEGERS:
        results.update(_bitwise(dtype))
    else:
        results["div"] = _binary("div")
        results.update({f"{op}_x": lambda a, b, op=op: Call(op, (a,), "bool") for op in ("isnan", "isinf", "isfinite")})
        results.update({f"{op}_x": lambda a, b, op=op: Call(op, (a,), a.dtype) for op in EXACT})
        results["copysign"] = call("copysign")
    return results


def _divisions(dtype: str) -> dict[str, Make]:
    results = {op: _binary(op) for op in DIVISIONS}
    for constant in (1, 2, 7, *((-1, -3) if dtype in dt.INTS else ())):
        for op in DIVISIONS:
            results[f"{op}_by_{constant}".replace("-", "minus_")] = lambda a, b, op=op, c=constant: Binary(
                op, a, IntImm(c, a.dtype)
            )
    return results


def _casts(source: str) -> dict[str, Make]:
    return {f"to_{target}": lambda a, target=target: Cast(a, target) for target in dt.SCALARS if target != source}


Programs = dict[str, tuple[PrimFunc, tuple[str, ...]]]


def programs_of(group: str) -> Programs:
    """The functions of ``operators``, ``divisions`` or ``casts`` by name, with the dtypes of their inputs.

    Each computes everything on one dtype: ``{dtype}_serial`` of any length, ``{dtype}_vectorized`` of 8 elements.
    """
    make = {"operators": _operators, "divisions": _divisions, "casts": _casts}[group]
    dtypes = {"operators": dt.SCALARS, "divisions": INTEGERS, "casts": dt.SCALARS}[group]
    programs: Programs = {}
    for dtype in dtypes:
        inputs = (dtype,) if group == "casts" else (dtype, dtype)
        programs[f"{dtype}_serial"] = (elementwise(inputs, make(dtype)), inputs)
        programs[f"{dtype}_vectorized"] = (elementwise(inputs, make(dtype), "vectorized", n=8), inputs)
    return programs


def edges(dtype: str) -> np.ndarray[Any, Any]:
    """The values of a dtype where things go wrong."""
    to = dt.to_numpy(dtype)
    if dt.is_bool(dtype):
        return np.array([False, True])
    if dt.is_int(dtype):
        low, high = dt.int_range(dtype)
        middle = (-7, -3, -2, -1, 0, 1, 2, 3, 7, 100, 2**24 + 1, 2**53 + 1, 2**62 + 2**54 + 1)
        return np.array([low, low + 1, *(v for v in middle if low < v < high), high - 1, high], to)
    positive = [0, 0.3, 0.5, 0.999, 1, 1.5, 2.5, 3, 127.6, 255.5, 256, 32767.5, 2.0**31, 2.0**63, 2.0**64, 1e-40, 1e40]
    magnitudes = np.array([*positive, np.inf, np.nan, 1 + 2.0**-8 + 2.0**-40, 65519.999999, 2.0**-149, 6e-8])
    with np.errstate(all="ignore"):
        return np.concatenate([magnitudes, -magnitudes]).astype(to)


def assert_same_bits(
    actual: np.ndarray[Any, Any], expected: np.ndarray[Any, Any], what: str, inputs: list[np.ndarray[Any, Any]]
) -> None:
    """Equal bit by bit, but for which NaN a NaN is."""
    if dt.is_float(dt.from_numpy(actual.dtype)):  # which NaN it is does not matter
        wide = np.float64 if actual.dtype.itemsize == 8 else np.float32
        both = np.isnan(actual.astype(wide)) & np.isnan(expected.astype(wide))
        actual, expected = actual.copy(), expected.copy()
        actual[both] = expected[both] = 0
    same = actual.view(np.uint8).reshape(len(actual), -1) == expected.view(np.uint8).reshape(len(actual), -1)
    wrong = np.flatnonzero(~same.all(axis=1))
    if wrong.size:
        lane = wrong[0]
        given_values = [x[lane] for x in inputs]
        pytest.fail(f"{what} of {given_values} gave {actual[lane]!r}, not {expected[lane]!r}")
