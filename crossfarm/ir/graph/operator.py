"""What an operator of graph functions is: one row that says everything there is to know of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from crossfarm.errors import InvalidModule
from crossfarm.ir import dtype as dt
from crossfarm.ir.expr import Expr, FloatImm, IntImm
from crossfarm.ir.graph.types import TensorType
from crossfarm.ir.te import Tensor

Array = np.ndarray[Any, np.dtype[Any]]
#: An operator's attributes by name, complete and checked: see ``Operator.complete``.
Attrs = Mapping[str, Any]

#: How an operator reads its inputs, which decides what it may be fused with (TVM calls these pattern kinds):
#: ``elementwise`` one element each at the same place, ``broadcast`` the same with stretched inputs, ``injective`` one
#: element each at a place worked out from the output's, ``reduction`` many elements of one input, ``contraction`` sums
#: of products (elementwise consumers fuse into it), ``opaque`` none of these: never fused.
OperatorKind = Literal["elementwise", "broadcast", "injective", "reduction", "contraction", "opaque"]

#: What an attribute holds. ``dims`` are ints or int64 expressions; a kind that begins with "optional " may be None.
AttributeKind = Literal[
    "int", "float", "bool", "text", "dtype", "ints", "floats", "dims", "number",
    "optional int", "optional float", "optional ints", "optional dtype", "optional number",
]  # fmt: skip

#: Stands for "must be given".
REQUIRED: Any = object()


@dataclass(frozen=True)
class Attribute:
    """One attribute: its name in script, what it holds, and its default."""

    name: str
    kind: AttributeKind
    default: Any = REQUIRED


@dataclass(frozen=True)
class Operator:
    """A row of the table.

    Attributes:
        name: in script after ``R.``, as ``nn.conv2d``.
        id: stable number in serialized modules, never reused.
        inputs: names of the tensors it takes; those that end in "?" may be left out, from the last one backwards; the
            last may end in "*": any number of them, written as a tuple.
        attributes: in the order in which script may give them.
        infer: types of its results from those of its inputs. Raises InvalidModule, naming what does not fit.
        compute: the results as tensor expressions of the inputs; what the compiler lowers. ``out`` is what ``infer``
            gave. Inputs that were left out are None.
        reference: the results by numpy: the meaning, which the lowering is checked against. It is called as ``compute``
            is: None for inputs that were left out, ``dims`` as ints.
        kind: how it reads its inputs.
    """

    name: str
    id: int
    inputs: tuple[str, ...]
    infer: Callable[[Sequence[TensorType], Attrs], Sequence[TensorType]]
    compute: Callable[[Sequence[Tensor], Attrs, Sequence[TensorType]], Sequence[Tensor]]
    reference: Callable[[Sequence[Array], Attrs], Sequence[Array]]
    kind: OperatorKind
    attributes: tuple[Attribute, ...] = ()

    @property
    def variadic(self) -> bool:
        return bool(self.inputs) and self.inputs[-1].endswith("*")

    @property
    def least_inputs(self) -> int:
        """How many inputs must be given."""
        return sum(not name.endswith(("?", "*")) for name in self.inputs)

    def check_inputs(self, count: int) -> None:
        """Raises InvalidModule where an operator cannot be called with ``count`` tensors."""
        if count < self.least_inputs or (count > len(self.inputs) and not self.variadic):
            names = ", ".join(self.inputs)
            raise InvalidModule(f"operator {self.name} takes ({names}), not {count} tensors")

    def complete(self, attrs: Mapping[str, Any]) -> dict[str, Any]:
        """All attributes, defaults filled in, as plain Python values (``dims`` as ints where constant).

        Raises:
            InvalidModule: an unknown attribute, one that is missing, or one that holds something else.
        """
        known = {a.name: a for a in self.attributes}
        for name in attrs:
            if name not in known:
                there = ", ".join(known) or "none"
                raise InvalidModule(f"operator {self.name} has no attribute {name!r}; it has: {there}")
        found = {}
        for name, attribute in known.items():
            value = attrs.get(name, attribute.default)
            if value is REQUIRED:
                raise InvalidModule(f"operator {self.name} needs its attribute {name!r}")
            found[name] = self._checked(attribute, value)
        return found

    def explicit(self, attrs: Mapping[str, Any]) -> dict[str, Any]:
        """Those of ``attrs`` that differ from the defaults, as ``complete`` gives them: what text has to say.

        Raises:
            InvalidModule: as ``complete`` does.
        """
        defaults = {a.name: self._checked(a, a.default) for a in self.attributes if a.default is not REQUIRED}
        complete = self.complete(attrs)
        # as text: 1 and True, 0.0 and -0.0 are equal to Python
        return {k: v for k, v in complete.items() if k not in defaults or repr(v) != repr(defaults[k])}

    def _checked(self, attribute: Attribute, value: Any) -> Any:
        kind = attribute.kind.removeprefix("optional ")
        if value is None and kind != attribute.kind:
            return None
        plain = _plain(value)
        match kind:
            case "int":
                fits = type(plain) is int
            case "float":
                fits = type(plain) in (int, float)
                plain = float(plain) if fits else plain
            case "number":
                fits = type(plain) in (int, float, bool)
            case "bool":
                fits = type(plain) is bool or plain in (0, 1)
                plain = bool(plain) if fits else plain
            case "text":
                fits = isinstance(plain, str)
            case "dtype":
                fits = isinstance(plain, str) and plain in dt.SCALARS
            case "ints":
                fits = isinstance(plain, tuple) and all(type(v) is int for v in plain)
            case "floats":
                fits = isinstance(plain, tuple) and all(type(v) in (int, float) for v in plain)
                plain = tuple(float(v) for v in plain) if fits else plain
            case "dims":
                fits = isinstance(plain, tuple) and all(type(v) is int or isinstance(v, Expr) for v in plain)
            case _:
                raise AssertionError(kind)
        if not fits:
            raise InvalidModule(
                f"operator {self.name}: attribute {attribute.name!r} must be {attribute.kind}, not {value!r}"
            )
        return plain


def _plain(value: Any) -> Any:
    """Constants of the IR as Python's, lists as tuples."""
    if isinstance(value, (IntImm, FloatImm)):
        return bool(value.value) if value.dtype == "bool" else value.value
    if isinstance(value, (list, tuple)):
        return tuple(_plain(v) for v in value)
    return value
