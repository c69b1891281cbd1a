"""What an artifact says of a function's parameters."""

from __future__ import annotations

from compiler_service.roles import parameter_roles
from compiler_service.symbols import function_symbols, index_expr
from crossfarm.ir.expr import Var
from crossfarm.ir.function import Param, PrimFunc
from crossfarm.wire.v1 import artifact_pb2


def parameters_of(name: str, lowered: PrimFunc, original: PrimFunc) -> list[artifact_pb2.Parameter]:
    """One message a parameter; roles are judged by the function as it was written.

    Raises:
        BuildFailed: a shape that is made of more than sizes.
    """
    symbols = function_symbols(lowered)
    parameters = [_parameter(name, param, symbols) for param in lowered.params]
    for parameter, role in zip(parameters, parameter_roles(original)):
        parameter.role = role
    return parameters


def _parameter(function: str, param: Param, symbols: tuple[Var, ...]) -> artifact_pb2.Parameter:
    if isinstance(param, Var):
        return artifact_pb2.Parameter(name=param.name, kind=artifact_pb2.Parameter.SCALAR, dtype=param.dtype)
    what = f"the shape of parameter {param.name!r} of function {function!r}"
    return artifact_pb2.Parameter(
        name=param.name,
        kind=artifact_pb2.Parameter.BUFFER,
        dtype=param.dtype,
        shape=[index_expr(extent, symbols, what) for extent in param.shape],
        strides=[index_expr(stride, symbols, what) for stride in param.strides],
    )
