"""Calls of PrimFuncs: each is compiled into closures once, at its first call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from crossfarm.errors import UnsupportedTarget
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.interpreter.arguments import binder
from crossfarm.ir.interpreter.expressions import ExprCompiler, Returned
from crossfarm.ir.interpreter.statements import StmtCompiler, refuse_cooperation
from crossfarm.ir.module import IRModule
from crossfarm.ir.visitor import make_room

Argument = Any
_Call = Callable[[str, Sequence[Argument]], None]
_compiled: WeakKeyDictionary[PrimFunc, _Call] = WeakKeyDictionary()


def run(mod: IRModule, name: str, args: Sequence[Argument], *, in_order: bool = False) -> None:
    """Calls the function ``name`` of a verified module.

    Args:
        args: one a parameter, in order: arrays of the parameter's dtype and shape, which the function reads and
            writes in place; Python numbers or 0-d arrays for scalars.
        in_order: run every loop step by step, never as lanes: the same results, much slower.

    Raises:
        NoSuchFunction: no function of that name.
        ArgumentError: number, kind, dtype or shape of the arguments.
        ProgramError: the program divided by zero, left a buffer, or failed an assertion.
        InvalidModule: a graph function (see ``evaluate``), or lowered code whose threads cooperate, which is not
            interpreted.
    """
    call = _compile(mod, name, in_order)
    # wrapping integers and float overflow are the program's meaning, not something to warn about
    with np.errstate(all="ignore"):
        call(name, args)


def _compile(mod: IRModule, name: str, in_order: bool) -> _Call:
    """What runs a function; remembered where that depends on no other one."""
    func = mod.prim_func(name)
    known = None if in_order else _compiled.get(func)
    if known is not None:
        return known

    def callee(other: str) -> tuple[PrimFunc, Callable[[list[Argument]], None]]:
        run_it = _compile(mod, other, in_order)
        return mod.prim_func(other), lambda args: run_it(other, args)

    exprs = ExprCompiler(name, callee)
    call = _compile_function(name, func, exprs, all_at_once=not in_order)
    if not in_order and not exprs.calls:
        _compiled[func] = call
    return call


def _compile_function(name: str, func: PrimFunc, exprs: ExprCompiler, *, all_at_once: bool) -> _Call:
    make_room()
    refuse_cooperation(name, func.body)
    statements = StmtCompiler(exprs, all_at_once=all_at_once)
    try:
        bind = binder(func, exprs, statements)
        body = statements.compile(func.body)
    except ImportError as failure:
        raise UnsupportedTarget(
            f"function {name!r} uses bfloat16, for which the package ml_dtypes is missing here",
            hint="install ml_dtypes on the device that runs the reference interpreter",
        ) from failure

    def call(name: str, args: Sequence[Argument]) -> None:
        env = exprs.new_env()
        bind(name, args, env)
        try:
            body(env)
        except Returned:
            pass

    return call
