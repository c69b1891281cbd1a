"""A function's arguments on the command line: ``--input``, ``--output`` and ``--expect``.

| written | means |
| --- | --- |
| ``A=@a.npy`` | the array in a file |
| ``A=2x2xf32=1,2,3,4`` | an array by shape, dtype and values in row-major order; one value fills it |
| ``A=2x2xf32`` | an array of that shape and dtype with random values |
| ``n=5`` | a scalar |
| nothing | random values of the shape that the function says; sizes that nothing defines come from ``--size n=128`` |

``A`` is the parameter's name or its number from 0. Random floats are standard normal, integers −8…8 (0…8 unsigned),
the same for the same ``--seed``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crossfarm.artifact import Signature
from crossfarm.artifact.sizes import Size
from crossfarm.errors import ArgumentError, Mismatch, UsageError
from crossfarm.ir import dtype as dt
from crossfarm.wire.v1.artifact_pb2 import IndexExpr, Parameter

Array = np.ndarray[Any, np.dtype[Any]]

#: A typed array is written by hand or by a script; larger ones come from files.
MAX_RANDOM_BYTES = 4 << 30

_SHORT = {
    "i1": "bool", "i8": "int8", "i16": "int16", "i32": "int32", "i64": "int64",
    "u8": "uint8", "u16": "uint16", "u32": "uint32", "u64": "uint64",
    "f16": "float16", "bf16": "bfloat16", "f32": "float32", "f64": "float64",
}  # fmt: skip
_TYPED = re.compile(r"(?P<shape>(?:\d+x)*)(?P<dtype>[a-z]+\d*)(?:=(?P<values>.*))?", re.DOTALL)


def split_assignment(text: str, option: str) -> tuple[str, str]:
    """``"A=value"`` → (A, value). Raises UsageError."""
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise UsageError(f"{option} {text!r} is not NAME=VALUE", hint=f"write {option} A=@a.npy or A=2x2xf32=1,2,3,4")
    return name.strip(), value.strip()


class Inputs:
    """Makes the arguments of one call from what the command line says."""

    def __init__(self, signature: Signature, given: Sequence[str], sizes: Sequence[str], *, seed: int) -> None:
        """
        Args:
            given: the ``--input`` texts; sizes: the ``--size`` texts.
        Raises:
            UsageError: a text that cannot be read. ArgumentError: a parameter that is not there, or a wrong dtype.
        """
        self._signature = signature
        self._random = np.random.default_rng(seed)
        self._sizes = read_sizes(sizes)
        self._values: dict[int, Any] = {}
        for text in given:
            name, value = split_assignment(text, "--input")
            index = parameter_index(signature, name)
            self._values[index] = self._read(value, signature.parameters[index])

    def arguments(self) -> list[Any]:
        """One value per input of the function, in parameter order: arrays and Python numbers.

        Raises:
            ArgumentError: a size that nothing defines.
        """
        sizes = self._all_sizes()
        made = []
        for index in self._signature.inputs:
            value = self._values.get(index)
            if value is None:
                parameter = self._signature.parameters[index]
                if parameter.kind == Parameter.SCALAR:
                    value = self._random_scalar(parameter, sizes)
                else:
                    shape = tuple(self._evaluate(expr, sizes) for expr in parameter.shape)
                    value = self._random_array(shape, parameter.dtype)
            made.append(value)
        return made

    def outputs(self) -> dict[int, Any]:
        """What was given for parameters that the function only writes: arrays that it is to fill."""
        return {index: value for index, value in self._values.items() if index in self._signature.outputs}

    def _read(self, text: str, parameter: Parameter) -> Any:
        if text.startswith("@"):
            return as_dtype(load_array(Path(text[1:])), parameter)
        if parameter.kind == Parameter.SCALAR:
            return _number(text.rpartition("=")[2], parameter.dtype)
        match = _TYPED.fullmatch(text)
        dtype = _SHORT.get(match["dtype"], match["dtype"]) if match is not None else ""
        if match is None or dtype not in dt.SCALARS:
            raise UsageError(
                f"cannot read the value {text!r} of {parameter.name}",
                hint="write @FILE.npy, or SHAPExDTYPE=VALUES such as 2x2xf32=1,2,3,4",
            )
        shape = tuple(int(extent) for extent in match["shape"].split("x")[:-1])
        if match["values"] is None:
            return self._random_array(shape, dtype)
        return _fill(shape, dtype, match["values"], parameter.name)

    def _random_array(self, shape: tuple[int, ...], dtype: str) -> Array:
        count = int(np.prod(shape, dtype=object))
        if count * dt.itemsize(dtype) > MAX_RANDOM_BYTES:
            raise ArgumentError(f"an array of shape {shape} is too large to make up", hint="give it with --input")
        if dt.is_float(dtype):
            return self._random.standard_normal(shape, dtype=np.float32).astype(dt.to_numpy(dtype))
        low, high = (0, 2) if dt.is_bool(dtype) else (0, 9) if dt.is_unsigned(dtype) else (-8, 9)
        return self._random.integers(low, high, shape).astype(dt.to_numpy(dtype))

    def _random_scalar(self, parameter: Parameter, sizes: Mapping[str, int]) -> int | float:
        if parameter.name in sizes:
            return sizes[parameter.name]
        if dt.is_float(parameter.dtype):
            return float(self._random.standard_normal())
        return int(self._random.integers(0, 2 if dt.is_bool(parameter.dtype) else 9))

    def _all_sizes(self) -> dict[str, int]:
        """The sizes that ``--size`` and the given arrays define."""
        sizes = dict(self._sizes)
        for index, value in self._values.items():
            parameter = self._signature.parameters[index]
            if parameter.kind == Parameter.SCALAR:
                sizes.setdefault(parameter.name, int(value))
                continue
            for extent, expr in zip(np.shape(value), parameter.shape):
                if len(expr.ops) == 1 and expr.ops[0].WhichOneof("op") == "symbol":
                    sizes.setdefault(self._signature.symbols[expr.ops[0].symbol], int(extent))
        return sizes

    def _evaluate(self, expr: IndexExpr, sizes: Mapping[str, int]) -> int:
        """The value of a size expression. Raises ArgumentError for a size that nothing defines."""
        symbols = self._signature.symbols
        for op in expr.ops:
            if op.WhichOneof("op") == "symbol" and symbols[op.symbol] not in sizes:
                name = symbols[op.symbol]
                raise ArgumentError(
                    f"{self._signature}: nothing says how large {name} is", hint=f"add --size {name}=128"
                )
        size = Size(expr, len(symbols))
        try:
            return max(0, size.evaluate([sizes.get(name, 0) for name in symbols]))
        except ZeroDivisionError:
            raise ArgumentError(f"{self._signature}: the size {size.text(symbols)} divides by zero") from None


@dataclass(frozen=True)
class Comparison:
    """How an output compares with what was expected.

    Attributes:
        name: the output's.
        max_abs, max_rel: largest absolute and relative difference; infinite where only one is a number.
        worst: index of the element that lies furthest outside the tolerance.
        wrong, count: elements outside the tolerance, of how many.
        actual, expected: the worst element's values.
    """

    name: str
    max_abs: float
    max_rel: float
    worst: tuple[int, ...]
    wrong: int
    count: int
    actual: Any
    expected: Any

    def check(self, rtol: float, atol: float) -> None:
        """Raises Mismatch where elements lie outside the tolerance."""
        if self.wrong:
            where = f"[{', '.join(map(str, self.worst))}]" if self.worst else ""
            raise Mismatch(
                f"{self.name} differs from what was expected in {self.wrong} of {self.count} elements; the worst is "
                f"{self.name}{where} = {self.actual}, expected {self.expected}; largest absolute error "
                f"{self.max_abs:.3g}, relative {self.max_rel:.3g} (allowed: atol {atol:g}, rtol {rtol:g})",
                hint="if that is within what the program promises, widen --rtol or --atol",
                details={"output": self.name, "max_abs": repr(self.max_abs), "max_rel": repr(self.max_rel)},
            )


def compare(name: str, actual: Array, expected: Array, *, rtol: float, atol: float) -> Comparison:
    """Compares as ``numpy.isclose`` does (|actual − expected| ≤ atol + rtol·|expected|), NaN equal to NaN.

    Raises:
        Mismatch: the shapes differ.
    """
    if actual.shape != expected.shape:
        raise Mismatch(f"{name} has shape {actual.shape}, expected {expected.shape}")
    exact = np.result_type(actual.dtype, expected.dtype).kind in "iub" and rtol == 0
    wide = object if exact else np.float64  # integers beyond 2**53 compare as they are
    a, e = actual.astype(wide), expected.astype(wide)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        same = (a == e) | ((a != a) & (e != e))
        difference = np.where(same, 0.0, np.abs(a - e)).astype(np.float64)
        difference[np.isnan(difference)] = np.inf
        magnitude = np.abs(e).astype(np.float64)
        relative = np.where(difference == 0, 0.0, difference / magnitude)
        relative[np.isnan(relative)] = np.inf
        excess = difference - (atol + rtol * np.where(np.isfinite(magnitude), magnitude, 0.0))
    wrong = int(np.count_nonzero(excess > 0))
    worst = np.unravel_index(int(np.argmax(excess)), actual.shape) if actual.size else ()
    index = tuple(int(i) for i in worst)
    return Comparison(
        name=name,
        max_abs=float(difference.max(initial=0.0)),
        max_rel=float(relative.max(initial=0.0)),
        worst=index,
        wrong=wrong,
        count=actual.size,
        actual=actual[index] if actual.size else None,
        expected=expected[index] if actual.size else None,
    )


def parameter_index(signature: Signature, name: str) -> int:
    """The parameter of that name or number. Raises ArgumentError, for constants too."""
    for index, parameter in enumerate(signature.parameters):
        if name in (parameter.name, str(index)):
            if parameter.constant:
                raise ArgumentError(
                    f"{name!r} of {signature.name} is a constant, which comes with the artifact",
                    hint=f"its signature is {signature}",
                )
            return index
    raise ArgumentError(f"{signature.name} has no parameter {name!r}", hint=f"its signature is {signature}")


def load_array(path: Path) -> Array:
    """The array in a ``.npy`` file; nothing is unpickled. Raises UsageError."""
    try:
        loaded = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as failure:
        reason = failure.strerror if isinstance(failure, OSError) and failure.strerror else failure
        raise UsageError(f"cannot read the array {path}: {reason}") from failure
    if not isinstance(loaded, np.ndarray):
        loaded.close()
        raise UsageError(f"{path} holds several arrays", hint="give a .npy file with one")
    return loaded


def save_array(path: Path, array: Array) -> None:
    """Writes ``array`` as ``.npy``. Raises UsageError."""
    try:
        with path.open("wb") as file:
            np.save(file, array, allow_pickle=False)
    except OSError as failure:
        raise UsageError(f"cannot write the array {path}: {failure.strerror}") from failure


def as_dtype(array: Array, parameter: Parameter) -> Any:
    """What a file holds as the parameter takes it: a number for a scalar; bfloat16, which .npy stores as raw bytes,
    gets its dtype back."""
    if parameter.kind == Parameter.SCALAR:
        if array.size != 1:
            raise ArgumentError(f"{parameter.name} is a scalar, its file has shape {array.shape}")
        return array.reshape(()).item()
    if array.dtype.kind == "V" and parameter.dtype == "bfloat16" and array.dtype.itemsize == 2:
        return array.view(dt.to_numpy("bfloat16"))
    return array


def read_sizes(texts: Sequence[str]) -> dict[str, int]:
    """``--size`` texts as numbers by name. Raises UsageError."""
    sizes = {}
    for text in texts:
        name, value = split_assignment(text, "--size")
        if not value.isdecimal():
            raise UsageError(f"--size {text!r}: {value!r} is not a whole number")
        sizes[name] = int(value)
    return sizes


def _number(text: str, dtype: str) -> int | float:
    try:
        return float(text) if dt.is_float(dtype) else int(text, 0)
    except ValueError:
        raise UsageError(f"{text!r} is not a number of {dtype}") from None


def _fill(shape: tuple[int, ...], dtype: str, text: str, name: str) -> Array:
    numbers = [_number(word, dtype) for word in re.split(r"[\s,;\[\]]+", text) if word]
    count = int(np.prod(shape, dtype=object))
    if len(numbers) not in (1, count):
        raise UsageError(f"{name} has {len(numbers)} values, its shape {shape} needs {count} (or one for all)")
    try:
        return np.broadcast_to(np.array(numbers, dtype=dt.to_numpy(dtype)), (count,)).reshape(shape).copy()
    except OverflowError:
        raise UsageError(f"a value of {name} does not fit {dtype}") from None
