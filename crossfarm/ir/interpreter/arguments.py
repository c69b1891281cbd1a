"""Binding a call's arguments to parameters and symbolic sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from crossfarm.errors import ArgumentError
from crossfarm.ir import dtype as dt
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.interpreter.expressions import Env, ExprCompiler
from crossfarm.ir.interpreter.statements import StmtCompiler

Bind = Callable[[str, Sequence[Any], Env], None]


def binder(func: PrimFunc, exprs: ExprCompiler, statements: StmtCompiler) -> Bind:
    """A function that puts arguments and the symbolic sizes they define into an environment.

    It raises ArgumentError naming function, parameter, what was expected and what was given.
    """
    slots = [exprs.slot(p) for p in func.params]
    exprs.bound |= {p for p in func.params if isinstance(p, Var)}
    buffers = [p for p in func.params if isinstance(p, Buffer)]
    matchers = [statements.matcher(b) for b in buffers]
    shapes = [[exprs.compile(e) for e in b.shape] for b in buffers]

    def bind(name: str, args: Sequence[Any], env: Env) -> None:
        if len(args) != len(func.params):
            names = ", ".join(p.name for p in func.params)
            raise ArgumentError(f"{name} takes {len(func.params)} arguments ({names}), not {len(args)}")
        for param, place, value in zip(func.params, slots, args):
            env[place] = _array(name, param, value) if isinstance(param, Buffer) else scalar(name, param, value)
        for match in matchers:
            match(env, 0)
        for buffer, shape in zip(buffers, shapes):
            want, have = tuple(int(e(env)) for e in shape), env[exprs.slot(buffer)].shape
            if want != have:
                raise ArgumentError(f"{name}: parameter {buffer.name} has shape {want}, the argument {have}")

    return bind


def _array(function: str, param: Buffer, value: Any) -> np.ndarray[Any, Any]:
    if not isinstance(value, np.ndarray):
        raise ArgumentError(
            f"{function}: parameter {param.name} takes an array of {param.dtype}, not a {type(value).__name__}"
        )
    if value.dtype != dt.to_numpy(param.dtype):
        raise ArgumentError(f"{function}: parameter {param.name} is {param.dtype}, the argument {value.dtype}")
    if value.ndim != len(param.shape):
        raise ArgumentError(
            f"{function}: parameter {param.name} has {len(param.shape)} dimensions, the argument {value.ndim}"
        )
    return value


def scalar(function: str, param: Var, value: Any) -> Any:
    """A number as numpy's scalar of the parameter's dtype. Raises ArgumentError for what is none or does not fit."""
    if isinstance(value, np.ndarray | np.generic) and value.ndim == 0:
        value = value.item()
    kinds = (bool, int, float) if dt.is_float(param.dtype) else (bool, int)
    if not isinstance(value, kinds):
        raise ArgumentError(
            f"{function}: parameter {param.name} takes a number of {param.dtype}, not a {type(value).__name__}"
        )
    if not dt.is_float(param.dtype):
        low, high = dt.int_range(param.dtype)
        if not low <= value <= high:
            raise ArgumentError(f"{function}: parameter {param.name} is {param.dtype}, which has no {value}")
    return dt.to_numpy(param.dtype).type(value)
