"""Small programs around ``T.dot4``: every sign of its factors, and numbers of lanes that no instruction has."""

from __future__ import annotations

from typing import Any

import numpy as np

from crossfarm.frontends.tvmscript import parse
from crossfarm.ir.module import IRModule

SIGNS = {"ss": ("int8", "int8"), "us": ("uint8", "int8"), "su": ("int8", "uint8"), "uu": ("uint8", "uint8")}
LANES = (1, 2, 3, 4, 8, 16, 24, 48)
#: Enough calls that every pair of extreme values meets.
ROUNDS = 16


def dot_program(lanes: int) -> IRModule:
    """A function for each of SIGNS: ``c[r] = dot4(c[r], a[r], b[r])`` for each of ROUNDS rows."""
    vector = f"r * {lanes}" if lanes == 1 else f"T.Ramp(r * {lanes}, 1, {lanes})"
    bytes_ = f"T.Ramp(r * {4 * lanes}, 1, {4 * lanes})"
    functions = [
        f"""
    @T.prim_func
    def {signs}(a: T.Buffer(({ROUNDS * 4 * lanes},), "{a}"), b: T.Buffer(({ROUNDS * 4 * lanes},), "{b}"),
           c: T.Buffer(({ROUNDS * lanes},), "int32")):
        for r in range({ROUNDS}):
            c[{vector}] = T.dot4(c[{vector}], a[{bytes_}], b[{bytes_}])
"""
        for signs, (a, b) in SIGNS.items()
    ]
    return parse("\n@I.ir_module\nclass Module:" + "".join(functions))


def factors(signs: str, lanes: int, seed: int = 0) -> list[Any]:
    """Random bytes, extremes among them, and accumulators near the ends of int32: sums wrap around."""
    rng = np.random.default_rng(seed)
    arrays = []
    for dtype in SIGNS[signs]:
        info = np.iinfo(dtype)
        values = rng.integers(info.min, info.max, ROUNDS * 4 * lanes, dtype, endpoint=True)
        extreme = rng.choice(np.array([info.min, info.max], dtype), values.shape)
        arrays.append(np.where(rng.random(values.shape) < 0.5, values, extreme))
    ends = np.array([-(2**31), 2**31 - 1, 0], np.int32)
    return [*arrays, rng.choice(ends, ROUNDS * lanes)]


def dot_of(a: Any, b: Any, c: Any) -> Any:
    """What ``dot4`` is, in 64 bits and cut to 32 at the end."""
    exact = (a.astype(np.int64) * b.astype(np.int64)).reshape(-1, 4).sum(axis=1) + c
    return exact.astype(np.int32)
