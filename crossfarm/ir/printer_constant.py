"""Constant tensors as text: small ones as numbers, the others by the digest of their content."""

from __future__ import annotations

import math

import numpy as np

from crossfarm.ir.graph.constant import Array, ConstantData
from crossfarm.ir.printer_expr import quote

#: Constants of more elements are named, not spelled out.
MAX_ELEMENTS = 64


def constant_text(data: ConstantData) -> str:
    """``R.const([1.0, 2.0], "float32")``, or ``R.constant("sha256:…", R.Tensor((2,), dtype="float32"))``.

    The second says which content, not what it is: for large constants, for those whose content is not here, and for
    the few that no list of numbers gives exactly (an empty one, a NaN with a message in its bits).
    """
    if data.known and 0 < math.prod(data.shape) <= MAX_ELEMENTS:
        array = data.array
        numbers = [x.item() for x in array.reshape(-1)]
        if np.array(numbers, array.dtype).tobytes() == array.tobytes():
            return f"R.const({_nested(array)}, {quote(data.dtype)})"
    dims = ", ".join(map(str, data.shape)) + ("," if len(data.shape) == 1 else "")
    return f'R.constant("sha256:{data.digest}", R.Tensor(({dims}), dtype={quote(data.dtype)}))'


def _nested(array: Array) -> str:
    """The numbers as nested lists, a scalar bare."""
    if array.ndim:
        return f"[{', '.join(_nested(part) for part in array)}]"
    value = array.item()
    if not isinstance(value, float):
        return repr(value)
    if not math.isfinite(value):
        return f'T.float64("{value}")'
    short = float(str(array))  # the shortest text that names this number among those of its dtype
    return repr(short if np.asarray(short).astype(array.dtype) == array else value)
