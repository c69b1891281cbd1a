"""What rows are made of: reading stretched inputs, checks of dtypes, literals, rows that work element by element."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from crossfarm.errors import InvalidModule
from crossfarm.ir import dtype as dt
from crossfarm.ir import te
from crossfarm.ir.expr import Expr
from crossfarm.ir.graph import dims
from crossfarm.ir.graph.operator import Array, Attribute, Attrs, Operator, OperatorKind
from crossfarm.ir.graph.types import TensorType
from crossfarm.ir.te import Tensor, Value

Infer = Callable[[Sequence[TensorType], Attrs], Sequence[TensorType]]

#: Dtypes that an operator takes, by the words for them in messages.
DOMAINS: dict[str, Callable[[str], bool]] = {
    "any dtype": lambda dtype: True,
    "numbers": lambda dtype: dt.is_int(dtype) or dt.is_float(dtype),
    "floats": dt.is_float,
    "integers": dt.is_int,
    "bool": dt.is_bool,
    "integers or bool": lambda dtype: dt.is_int(dtype) or dt.is_bool(dtype),
}
#: Floats whose composite functions are computed in float32 and rounded once.
NARROW = ("float16", "bfloat16")


def at(tensor: Tensor, indices: Sequence[Any]) -> Any:
    """The element of an input at a place of the stretched output."""
    inner = indices[len(indices) - tensor.ndim :]
    return tensor[tuple(0 if dims.constant(d) == 1 else i for d, i in zip(tensor.shape, inner))]


def shape_of(out: TensorType) -> tuple[int | Expr, ...]:
    """A result's shape for ``te.compute``: plain ints where constant."""
    return tuple(d if (c := dims.constant(d)) is None else c for d in out.shape)


def named(name: str, infer: Infer) -> Infer:
    """``infer`` whose refusals begin with the operator's name."""

    def refusing(inputs: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
        try:
            return infer(inputs, attrs)
        except InvalidModule as refused:
            if refused.message.startswith(f"operator {name}: "):
                raise
            raise InvalidModule(f"operator {name}: {refused.message}", hint=refused.hint) from None

    return refusing


def one_dtype(inputs: Sequence[TensorType], domain: str = "any dtype") -> str:
    """The dtype that all have. Raises InvalidModule where they differ, or it is outside ``domain``."""
    dtype = inputs[0].dtype
    if any(t.dtype != dtype for t in inputs):
        raise InvalidModule(
            f"tensors must be of one dtype, not {' and '.join(described(t) for t in inputs)}", hint="cast one by astype"
        )
    if not DOMAINS[domain](dtype):
        raise InvalidModule(f"it takes {domain}, not {described(inputs[0])}", hint="cast it by astype")
    return dtype


def described(tensor: TensorType) -> str:
    """For messages: as ``float32(n, 64)``."""
    return f"{tensor.dtype}{dims.text(tensor.shape)}"


def literal(value: float, dtype: str) -> Value:
    """The number as an element. Raises InvalidModule where ``dtype`` cannot hold it."""
    return te.const(value, dtype)


def wide(dtype: str) -> str:
    """The dtype that a composite function of ``dtype`` is computed in."""
    return "float32" if dtype in NARROW else dtype


def wide_array(x: Array) -> Array:
    """As ``wide``, of an array."""
    return x.astype(np.float32) if x.dtype.name in NARROW else x


def pointwise(
    name: str,
    number: int,
    inputs: tuple[str, ...],
    value: Callable[..., Any],
    numpy: Callable[..., Any],
    domain: str = "floats",
    *,
    attributes: tuple[Attribute, ...] = (),
    result: str = "",
    composite: bool = False,
    check: Callable[[TensorType, Attrs], object] = lambda out, attrs: None,
) -> Operator:
    """A row whose elements come from one element of each input, the inputs stretched to one shape.

    Args:
        value: from te values, and the attributes by name, the te value of the result.
        numpy: the same of arrays; those of 16-bit floats come as float32.
        domain: of DOMAINS: which dtypes it takes; all inputs have one.
        result: dtype of the result, "" for that of the inputs.
        composite: more than one operation: 16-bit floats are computed in float32 and rounded at the end.
        check: further checks of infer; raises InvalidModule.
    """

    def infer(types: Sequence[TensorType], attrs: Attrs) -> Sequence[TensorType]:
        dtype = one_dtype(types, domain)
        out = TensorType(dims.broadcast(*(t.shape for t in types)), result or dtype)
        check(out, attrs)
        return [out]

    def compute(tensors: Sequence[Tensor], attrs: Attrs, out: Sequence[TensorType]) -> Sequence[Tensor]:
        def element(*i: Value) -> Value:
            values = [at(t, i) for t in tensors]
            if composite:
                values = [v.astype(wide(v.dtype)) for v in values]
            found: Value = value(*values, **attrs)
            return found.astype(out[0].dtype)

        return [te.compute(shape_of(out[0]), element, name=block_name(name))]

    def reference(arrays: Sequence[Array], attrs: Attrs) -> Sequence[Array]:
        found = np.asarray(numpy(*(wide_array(x) for x in arrays), **attrs))
        return [found.astype(dt.to_numpy(result or dt.from_numpy(arrays[0].dtype)))]

    kind: OperatorKind = "elementwise" if len(inputs) == 1 else "broadcast"
    return operator(name, number, inputs, infer, compute, reference, kind, *attributes)


def operator(
    name: str,
    number: int,
    inputs: tuple[str, ...],
    infer: Infer,
    compute: Callable[[Sequence[Tensor], Attrs, Sequence[TensorType]], Sequence[Tensor]],
    reference: Callable[[Sequence[Array], Attrs], Sequence[Array]],
    kind: OperatorKind,
    *attributes: Attribute,
) -> Operator:
    """A row whose refusals begin with the operator's name; arguments as those of ``Operator``."""
    return Operator(name, number, inputs, named(name, infer), compute, reference, kind, attributes)


def block_name(name: str) -> str:
    """An operator's name as that of a block: ``nn.relu`` is ``relu``."""
    return name.removeprefix("nn.")
