"""Signatures: what a function takes and gives, checked and bound to the shapes of one call.

``Signature(entry_point)`` is made once per function, ``bind(arguments)`` runs on each call, on the client and again in
the worker. What ``bind`` finds depends only on dtypes and shapes (and on scalars that are sizes), so it is remembered
by those: a call with shapes seen before costs about a microsecond.

Sizes are ``IndexExpr`` messages in postfix order. A symbol is defined by the first dimension (else stride) of an
argument that is that bare symbol, or by the scalar parameter of its name; each further dimension is then checked.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossfarm.artifact.sizes import Size
from crossfarm.errors import ArgumentError, InvalidArtifact
from crossfarm.ir import dtype as dt
from crossfarm.wire.v1.artifact_pb2 import EntryPoint, IndexExpr, Parameter

MAX_PARAMETERS = 4096
MAX_RANK = 64
MAX_SYMBOLS = 1024
#: No argument of a real call is larger; an expression that says so is wrong.
MAX_ELEMENTS = 1 << 48
#: Combinations of shapes remembered per function before starting over.
_REMEMBERED = 1024

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Binding:
    """One call's sizes.

    Attributes:
        symbols: value of each symbol, in the entry point's order.
        shapes: shape of each parameter, None for a scalar.
        nbytes: bytes of each buffer parameter, 0 for a scalar.
        workspace_bytes: scratch memory that the call needs.
    """

    symbols: tuple[int, ...]
    shapes: tuple[Shape | None, ...]
    nbytes: tuple[int, ...]
    workspace_bytes: int


class Signature:
    """A function's parameters, compiled for fast binding.

    Attributes:
        name: the function's.
        entry: the message it was made from.
        parameters: the entry's, as a tuple.
        inputs: indices of the parameters that a caller gives: scalars and buffers that are read.
        outputs: indices of the buffers that are only written: returned unless the caller gives them.
        constants: indices of the buffers that who loads the artifact gives, see ``crossfarm.artifact.constants``.

    Raises:
        InvalidArtifact: the entry point is malformed; the message names function and parameter.
    """

    def __init__(self, entry: EntryPoint) -> None:
        self.name = entry.name
        self.entry = entry
        self.parameters = tuple(entry.parameters)
        self.symbols = tuple(entry.symbols)
        self.constants = tuple(i for i, p in enumerate(self.parameters) if p.constant)
        self.outputs = tuple(i for i, p in enumerate(self.parameters) if is_output(p) and not p.constant)
        self.inputs = tuple(i for i, p in enumerate(self.parameters) if not is_output(p) and not p.constant)
        self._callers = tuple(i for i, p in enumerate(self.parameters) if not p.constant)
        self._cache: dict[Any, Binding] = {}
        self._check()
        integers = (*dt.INTS, *dt.UINTS)
        names = {p.name: i for i, p in enumerate(self.parameters) if p.kind == Parameter.SCALAR and p.dtype in integers}
        self._scalars = tuple((i, p.dtype) for i, p in enumerate(self.parameters) if p.kind == Parameter.SCALAR)
        self._sizes = tuple((k, names[s]) for k, s in enumerate(self.symbols) if s in names)
        self._buffers = tuple(i for i, p in enumerate(self.parameters) if p.kind == Parameter.BUFFER)
        self._shapes = tuple(tuple(self._size(e, p.name) for e in p.shape) for p in self.parameters)
        self._strides = tuple(tuple(self._size(e, p.name) for e in p.strides) for p in self.parameters)
        workspace = entry.launch.workspace_bytes if entry.HasField("launch") else entry.native.workspace_bytes
        self._workspace = self._size(workspace, "workspace") if workspace.ops else None
        # where each symbol is defined, in order of preference: (parameter, axis, from the shape or the strides)
        self._definitions: list[list[tuple[int, int, bool]]] = [[] for _ in self.symbols]
        for of_shape, table in ((True, self._shapes), (False, self._strides)):
            for i, exprs in enumerate(table):
                for axis, expr in enumerate(exprs):
                    if expr.symbol >= 0:
                        self._definitions[expr.symbol].append((i, axis, of_shape))

    def arrange(self, args: Sequence[Any], out: Any = None) -> list[Any]:
        """What a caller wrote as one entry per parameter, None for constants and where an output is to be made.

        Args:
            args: the inputs in parameter order; or one argument for each parameter but constants, outputs included.
            out: the output to fill, or a sequence of them (None entries allowed) where there are several.

        Raises:
            ArgumentError: wrong number of arguments or of outputs.
        """
        placed: list[Any] = [None] * len(self.parameters)
        if len(args) == len(self._callers) and out is None:
            for i, arg in zip(self._callers, args):
                placed[i] = arg
            return placed
        if len(args) != len(self.inputs):
            raise ArgumentError(
                f"{self.name} takes {_count(len(self.inputs), 'argument')} ({self._names(self.inputs)}), "
                f"got {len(args)}",
                hint=f"its signature is {self}",
            )
        for i, arg in zip(self.inputs, args):
            placed[i] = arg
        if out is not None:
            outs = list(out) if isinstance(out, (tuple, list)) else [out]
            if len(outs) != len(self.outputs):
                raise ArgumentError(
                    f"{self.name} has {_count(len(self.outputs), 'output')} ({self._names(self.outputs)}), out= gives "
                    f"{len(outs)}"
                )
            for i, arg in zip(self.outputs, outs):
                placed[i] = arg
        return placed

    def bind(self, args: Sequence[Any]) -> Binding:
        """Checks one entry per parameter (see ``arrange``) and derives the call's sizes.

        Args:
            args: buffers as anything with ``shape`` (a tuple) and ``dtype`` (numpy's, or a name); scalars as Python or
                numpy numbers; None for an output that is to be made, and for a constant that is yet to come.

        Raises:
            ArgumentError: number, dtype, shape or kind of an argument; names function, parameter, expected and got.
        """
        try:
            key = (
                tuple([None if (a := args[i]) is None else (a.dtype, a.shape) for i in self._buffers]),
                tuple([args[i] for _, i in self._sizes]),
            )
            if len(args) == len(self.parameters) and (known := self._cache.get(key)) is not None:
                for i, dtype in self._scalars:
                    self._check_scalar(i, dtype, args[i])
                return known
        except (AttributeError, TypeError, IndexError):
            key = None  # not a buffer, not hashable, too few: the slow way says which
        binding = self._bind(args)
        if key is not None:
            if len(self._cache) >= _REMEMBERED:
                self._cache.clear()
            self._cache[key] = binding
        return binding

    def scalar_bits(self, index: int, value: Any) -> int:
        """A scalar argument as its 64-bit slot: integers extended by their sign, floats as the bits of their dtype."""
        dtype = self.parameters[index].dtype
        self._check_scalar(index, dtype, value)
        if dt.is_float(dtype):
            raw = np.array(value, dtype=dt.to_numpy(dtype)).tobytes()
            return int.from_bytes(raw, "little")
        return int.from_bytes(struct.pack("<q" if not dt.is_unsigned(dtype) else "<Q", int(value)), "little")

    def __str__(self) -> str:
        """As ``main(A: float32[n, 128], s: int32) -> C: float32[n, n]``."""
        given = ", ".join(self.describe(i) for i in self.inputs)
        made = ", ".join(self.describe(i) for i in self.outputs)
        return f"{self.name}({given})" + (f" -> {made}" if made else "")

    def describe(self, index: int) -> str:
        """One parameter as ``A: float32[n, 128]``."""
        p = self.parameters[index]
        dims = f"[{', '.join(self._text(e) for e in self._shapes[index])}]" if p.kind == Parameter.BUFFER else ""
        return f"{p.name}: {p.dtype}{dims}"

    # -- the slow way, once per combination of shapes --------------------------------------------------------------

    def _bind(self, args: Sequence[Any]) -> Binding:
        if len(args) != len(self.parameters):
            raise ArgumentError(f"{self.name} has {_count(len(self.parameters), 'parameter')}, got {len(args)}")
        shapes = [self._shape_given(i, arg) for i, arg in enumerate(args)]
        symbols = self._define(args, shapes)
        for i in self._buffers:
            expected = tuple(self._evaluate(e, symbols, i) for e in self._shapes[i])
            if shapes[i] is None:
                shapes[i] = expected
            elif shapes[i] != expected:
                self._refuse_shape(i, shapes[i], expected, symbols)
            strides = tuple(self._evaluate(e, symbols, i) for e in self._strides[i])
            if strides and strides != _compact(expected) and 0 not in expected:
                raise ArgumentError(
                    f"{self.name}: argument {self.parameters[i].name} needs strides {strides}; only compact "
                    f"arrays, here {_compact(expected)}, can be passed"
                )
        nbytes = [0] * len(args)
        for i in self._buffers:
            shape = shapes[i]
            assert shape is not None
            elements = 1
            for extent in shape:
                elements *= extent
            if elements > MAX_ELEMENTS:
                raise ArgumentError(f"{self.name}: argument {self.parameters[i].name} would have {elements} elements")
            nbytes[i] = elements * dt.itemsize(self.parameters[i].dtype)
        workspace = self._evaluate(self._workspace, symbols, -1) if self._workspace else 0
        if workspace > MAX_ELEMENTS:
            raise ArgumentError(f"{self.name} would need {workspace} bytes of workspace at these sizes")
        return Binding(tuple(symbols), tuple(shapes), tuple(nbytes), workspace)

    def _shape_given(self, index: int, arg: Any) -> Shape | None:
        """The shape of a buffer argument, its kind and dtype checked; None for a scalar and an absent output."""
        p = self.parameters[index]
        if p.kind == Parameter.SCALAR:
            self._check_scalar(index, p.dtype, arg)
            return None
        if arg is None:
            if not is_output(p) and not p.constant:
                raise ArgumentError(f"{self.name}: argument {p.name} is missing", hint=f"its signature is {self}")
            return None
        shape, dtype = getattr(arg, "shape", None), getattr(arg, "dtype", None)
        if shape is None or dtype is None:
            raise ArgumentError(
                f"{self.name}: argument {p.name} must be an array ({self.describe(index)}), got {type(arg).__name__}",
                hint="pass a numpy array or a device tensor",
            )
        name = dtype if isinstance(dtype, str) else getattr(dtype, "name", str(dtype))
        if name != p.dtype:
            raise ArgumentError(
                f"{self.name}: argument {p.name} must have dtype {p.dtype}, got {name}",
                hint=f"convert it with .astype({p.dtype!r})" if p.dtype != "bfloat16" else "",
            )
        if len(shape) != len(p.shape):
            raise ArgumentError(
                f"{self.name}: argument {p.name} must have {_count(len(p.shape), 'dimension')} "
                f"({self.describe(index)}), got shape {tuple(shape)}"
            )
        return tuple(int(extent) for extent in shape)

    def _define(self, args: Sequence[Any], shapes: Sequence[Shape | None]) -> list[int]:
        values: list[int | None] = [None] * len(self.symbols)
        for symbol, index in self._sizes:
            values[symbol] = int(args[index])
        for symbol, places in enumerate(self._definitions):
            for index, axis, of_shape in places:
                shape = shapes[index]
                if values[symbol] is None and shape is not None:
                    values[symbol] = shape[axis] if of_shape else _compact(shape)[axis]
        for symbol, value in enumerate(values):
            if value is None:
                raise ArgumentError(
                    f"{self.name}: size {self.symbols[symbol]!r} is not defined by the arguments given",
                    hint="pass the output too (out=): its shape defines the size",
                )
        return [value for value in values if value is not None]

    def _check_scalar(self, index: int, dtype: str, value: Any) -> None:
        kind = type(value)
        if dt.is_float(dtype):
            if kind is float or (kind is not bool and isinstance(value, (int, float, np.floating, np.integer))):
                return
        elif isinstance(value, (int, np.integer, np.bool_)):
            low, high = dt.int_range(dtype)
            if low <= int(value) <= high:
                return
            raise ArgumentError(
                f"{self.name}: argument {self.parameters[index].name} must lie in {dtype}'s {low} to {high}, "
                f"got {value}"
            )
        wanted = "a number" if dt.is_float(dtype) else "an integer"
        raise ArgumentError(
            f"{self.name}: argument {self.parameters[index].name} must be {wanted} ({dtype}), got {kind.__name__}"
        )

    def _evaluate(self, size: Size, symbols: Sequence[int], index: int) -> int:
        """The value of a size of parameter ``index``, or of the workspace for -1."""
        try:
            value = size.evaluate(symbols)
            said = f"is {value}"
        except ZeroDivisionError:
            value, said = -1, "divides by zero"
        if value < 0:
            where = f"argument {self.parameters[index].name}" if index >= 0 else "the workspace"
            raise ArgumentError(f"{self.name}: the size {self._text(size)} of {where} {said}{self._where(symbols)}")
        return value

    def _refuse_shape(self, index: int, got: Shape | None, expected: Shape, symbols: Sequence[int]) -> None:
        assert got is not None
        axis = next(k for k, (a, b) in enumerate(zip(got, expected)) if a != b)
        raise ArgumentError(
            f"{self.name}: argument {self.parameters[index].name} must have shape {expected} "
            f"({self.describe(index)}{self._where(symbols)}), got {got}: dimension {axis} differs"
        )

    def _where(self, symbols: Sequence[int]) -> str:
        return ", where " + ", ".join(f"{n} = {v}" for n, v in zip(self.symbols, symbols)) if self.symbols else ""

    def _size(self, expr: IndexExpr, of: str) -> Size:
        try:
            return Size(expr, len(self.symbols))
        except ValueError as failure:
            raise InvalidArtifact(f"{of[:80]!r} of function {self.name!r} has a malformed size: {failure}") from None

    def _text(self, size: Size) -> str:
        return size.text(self.symbols)

    def _names(self, indices: Sequence[int]) -> str:
        return ", ".join(self.parameters[i].name for i in indices) or "none"

    def _check(self) -> None:
        """Refuses an entry point that a sound writer never makes."""
        if len(self.parameters) > MAX_PARAMETERS or len(self.symbols) > MAX_SYMBOLS:
            raise InvalidArtifact(f"function {self.name!r} has too many parameters or symbols")
        if len(set(self.symbols)) != len(self.symbols):
            raise InvalidArtifact(f"function {self.name!r} names a symbol twice")
        for p in self.parameters:
            where = f"parameter {p.name[:80]!r} of function {self.name!r}"
            if p.kind not in (Parameter.BUFFER, Parameter.SCALAR):
                raise InvalidArtifact(f"{where} has a kind that this release does not know ({p.kind})")
            if p.dtype not in dt.SCALARS:
                raise InvalidArtifact(f"{where} has an unknown dtype {p.dtype[:40]!r}")
            if p.kind == Parameter.BUFFER and p.role not in (Parameter.IN, Parameter.OUT, Parameter.INOUT):
                raise InvalidArtifact(f"{where} has a role that this release does not know ({p.role})")
            if len(p.shape) > MAX_RANK or len(p.strides) not in (0, len(p.shape)):
                raise InvalidArtifact(f"{where} has {len(p.shape)} dimensions and {len(p.strides)} strides")


def is_output(parameter: Parameter) -> bool:
    """True for a buffer that is only written."""
    return parameter.kind == Parameter.BUFFER and parameter.role == Parameter.OUT


def _compact(shape: Shape) -> Shape:
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    return tuple(strides)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
