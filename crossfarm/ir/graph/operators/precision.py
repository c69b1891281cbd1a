"""In which dtype sums are kept, and which dtypes an operator takes."""

from __future__ import annotations

from collections.abc import Sequence

from crossfarm.errors import InvalidModule
from crossfarm.ir import dtype as dt
from crossfarm.ir import te
from crossfarm.ir.graph.types import TensorType
from crossfarm.ir.te import Tensor


def accumulator(dtype: str) -> str:
    """What sums of ``dtype`` are kept in: float32 for narrower floats, whose own sums soon stop growing."""
    return "float32" if dtype in ("float16", "bfloat16") else dtype


def rounded(tensor: Tensor, dtype: str) -> Tensor:
    """The same in ``dtype``, in a compute of its own; the tensor itself where it is of that dtype."""
    if tensor.dtype == dtype:
        return tensor
    return te.compute(tensor.shape, lambda *i: tensor[i].astype(dtype), name=f"{tensor.name}_rounded")


def check_floats(name: str, inputs: Sequence[TensorType], what: Sequence[str]) -> None:
    """Raises InvalidModule where an input is no float tensor, or one is of another dtype than the first."""
    for label, given in zip(what, inputs):
        if not dt.is_float(given.dtype):
            raise InvalidModule(f"{name} takes tensors of floats; {label} is {given.dtype}")
        if given.dtype != inputs[0].dtype:
            raise InvalidModule(
                f"{name} takes tensors of one dtype; {what[0]} is {inputs[0].dtype}, {label} is {given.dtype}"
            )
