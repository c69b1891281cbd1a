"""Values of graph functions, held to their types, and the symbolic sizes that they define.

A tensor is an array, a tuple a tuple of values, a shape a tuple of ints, a number a numpy scalar.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from crossfarm.errors import ArgumentError, InvalidModule
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import const_int
from crossfarm.ir.expr import Expr, Var
from crossfarm.ir.graph.expr import GraphVar
from crossfarm.ir.graph.types import PrimType, ShapeType, TensorType, TupleType, Type
from crossfarm.ir.interpreter.arguments import scalar
from crossfarm.ir.interpreter.expressions import ExprCompiler
from crossfarm.ir.visitor import walk

GraphValue = Any

_NAMES = {TensorType: "a tensor", TupleType: "a tuple", ShapeType: "a shape", PrimType: "a number"}


class Sizes:
    """The symbolic sizes of one call of a graph function."""

    def __init__(self, function: str) -> None:
        self.function = function
        self._known: dict[Var, tuple[int, str]] = {}  # its value, and what defined it

    def number(self, e: Expr) -> Any:
        """What ``e`` is now, a number of its dtype. Raises ProgramError where it divides by zero."""
        exprs = ExprCompiler(self.function)
        value = exprs.compile(e)
        env = exprs.new_env()
        for var in (n for n in walk(e) if isinstance(n, Var)):
            if var not in self._known:
                raise InvalidModule(f"{self.function}: nothing defined the size {var.name!r} yet", hint="verify it")
            env[exprs.slot(var)] = dt.to_numpy(var.dtype).type(self._known[var][0])
        return value(env)

    def dims(self, values: Iterable[Expr | int]) -> tuple[int, ...]:
        """Each as an int."""
        return tuple(self._dim(v) for v in values)

    def _dim(self, value: Expr | int) -> int:
        known = value if isinstance(value, int) else const_int(value)
        return int(self.number(value)) if known is None and isinstance(value, Expr) else int(known or 0)

    def define(self, kind: Type, value: GraphValue, by: str) -> None:
        """Sizes that are bare dimensions of ``kind`` and not known yet become what ``value`` has there.

        ``value`` may be anything: what does not fit is left to ``problem``.
        """
        match kind:
            case TensorType(shape=shape) if isinstance(value, np.ndarray):
                given: tuple[int, ...] = value.shape
            case ShapeType(values=shape) if isinstance(value, tuple):
                given = value
            case TupleType(fields=fields) if isinstance(value, tuple):
                for field, item in zip(fields, value):
                    self.define(field, item, by)
                return
            case _:
                return
        for dim, size in zip(shape, given):
            if isinstance(dim, Var):
                self._known.setdefault(dim, (size, by))

    def problem(self, kind: Type, value: GraphValue) -> str | None:
        """How ``value`` is not of ``kind``, as "float64 where float32 belongs"; None where it is."""
        match kind:
            case TensorType() if isinstance(value, np.ndarray):
                want = dt.to_numpy(kind.dtype)
                if value.dtype != want:
                    return f"{value.dtype} where {want} belongs"
                return self._shape_problem(kind.shape, value.shape)
            case ShapeType(values=values) if isinstance(value, tuple) and all(type(v) is int for v in value):
                return self._shape_problem(values, value)
            case TupleType(fields=fields) if isinstance(value, tuple):
                if len(fields) != len(value):
                    return f"{len(value)} values where {len(fields)} belong"
                found = (self.problem(field, item) for field, item in zip(fields, value))
                return next((p for p in found if p is not None), None)
            case PrimType(dtype=dtype) if isinstance(value, np.generic):
                return None if value.dtype == dt.to_numpy(dtype) else f"{value.dtype} where {dtype} belongs"
            case _:
                return f"{_kind_of(value)} where {_NAMES[type(kind)]} belongs"

    def _shape_problem(self, want: tuple[Expr, ...], have: tuple[int, ...]) -> str | None:
        if len(want) != len(have):
            return f"{len(have)} dimensions where {len(want)} belong"
        for dim, size in zip(want, have):
            if isinstance(dim, Var) and self._known.get(dim, (size,))[0] != size:
                known, by = self._known[dim]
                return f"shape {have}, in which size {dim.name} is {size}; it is {known} by {by}"
        wanted = self.dims(want)
        return None if wanted == have else f"shape {have} where {wanted} belongs"


def argument(function: str, param: GraphVar, value: Any) -> GraphValue:
    """What a caller gave for a parameter: Python's numbers become scalars, or tensors without dimensions.

    Raises:
        ArgumentError: a number that the parameter's dtype does not have.
    """
    kind = param.type
    if isinstance(value, bool | int | float | np.generic) and isinstance(kind, PrimType | TensorType):
        if isinstance(kind, PrimType) or not kind.shape:
            number = scalar(function, Var(param.name, kind.dtype), value)
            return np.asarray(number) if isinstance(kind, TensorType) else number
    elif isinstance(kind, TupleType) and isinstance(value, tuple | list):
        if len(kind.fields) != len(value):
            raise ArgumentError(
                f"{function}: parameter {param.name} was given {len(value)} values where {len(kind.fields)} belong"
            )
        return tuple(argument(function, GraphVar(param.name, f), v) for f, v in zip(kind.fields, value))
    elif isinstance(kind, ShapeType) and isinstance(value, tuple | list):
        return tuple(int(v) for v in value)
    return value


def _kind_of(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return "a tensor"
    return "a tuple" if isinstance(value, tuple) else f"a {type(value).__name__}"
