"""A call of a tensor program, held against its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compiler_service.passes.graph.values import NumberValue, TensorValue
from crossfarm.errors import InvalidModule
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import const_int
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.calls import size_symbols
from crossfarm.ir.expr import Expr, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.graph import dims
from crossfarm.ir.visitor import substitute


@dataclass(frozen=True)
class Matched:
    """What a call gives besides its arguments.

    Attributes:
        sizes: the callee's, in the order of ``size_symbols``.
        unproven: pairs of sizes that must be equal and are not known to be, with what they are about.
    """

    sizes: tuple[Expr, ...]
    unproven: tuple[tuple[Expr, Expr, str], ...]


def match_call(caller: str, name: str, callee: PrimFunc, args: Sequence[TensorValue | NumberValue]) -> Matched:
    """The sizes of ``callee`` by what it is given, one argument a parameter.

    Raises:
        InvalidModule: number, kind, dtype or shape of the arguments; the message names caller, callee and parameter.
    """
    where = f"function {caller!r} calls {name!r}"
    if len(args) != len(callee.params):
        raise InvalidModule(f"{where} with {len(args)} arguments and results; it takes {len(callee.params)}")
    known: dict[Var, Expr] = {}
    dimensions: list[tuple[Expr, Expr, str]] = []
    for param, arg in zip(callee.params, args):
        if isinstance(param, Var):
            if not isinstance(arg, NumberValue) or not dt.is_int(param.dtype):
                raise InvalidModule(f"{where}, whose parameter {param.name!r} is no tensor and no integer size")
            known[param] = arg.expr
        else:
            dimensions.extend(_dimensions(param, arg, where))
    for inner, outer, _ in dimensions:
        if isinstance(inner, Var):
            known.setdefault(inner, outer)
    unproven = []
    for inner, outer, what in dimensions:
        expected = dims.dim(substitute(inner, known))
        if dims.same(expected, outer):
            continue
        if const_int(expected) is not None and const_int(outer) is not None:
            raise InvalidModule(f"{where} with {dims.text([outer])[1:-1]} for {what}, which is {const_int(expected)}")
        unproven.append((expected, outer, what))
    return Matched(tuple(known[symbol] for symbol in size_symbols(callee)), tuple(unproven))


def _dimensions(param: Buffer, arg: TensorValue | NumberValue, where: str) -> list[tuple[Expr, Expr, str]]:
    """The callee's and the caller's word for each dimension."""
    if isinstance(arg, NumberValue) or (arg.type.dtype, arg.type.ndim) != (param.dtype, len(param.shape)):
        given = "a number" if isinstance(arg, NumberValue) else f"{arg.type.dtype}{dims.text(arg.type.shape)}"
        raise InvalidModule(
            f"{where} with {given} for {param.name!r}, which is a {param.dtype} tensor of {len(param.shape)} dimensions"
        )
    demands = (*param.strides, *(() if param.elem_offset is None else (param.elem_offset,)))
    if not all(isinstance(d, Var) for d in demands):
        raise InvalidModule(
            f"{where}, whose parameter {param.name!r} has strides or an offset",
            hint="values between calls are compact: let it take such",
        )
    return [
        (inner, outer, f"dimension {axis} of {param.name!r}")
        for axis, (inner, outer) in enumerate(zip(param.shape, arg.type.shape))
    ]
