"""What an artifact says of a function's parameters."""

from __future__ import annotations

from compiler_service.passes.graph.lift_constants import CONSTANTS
from compiler_service.passes.graph.lower_graph import NAMES, OUTPUTS
from compiler_service.roles import parameter_roles
from compiler_service.symbols import function_symbols, index_expr
from crossfarm.ir.calls import is_caller
from crossfarm.ir.expr import Var
from crossfarm.ir.function import Param, PrimFunc
from crossfarm.ir.module import IRModule
from crossfarm.ir.stmt import AttrValue
from crossfarm.wire.v1 import artifact_pb2


def parameters_of(name: str, lowered: PrimFunc, original: IRModule) -> list[artifact_pb2.Parameter]:
    """One message a parameter; roles are judged by the function as it was written, a graph function's by its type.

    Raises:
        BuildFailed: a shape that is made of more than sizes.
    """
    symbols = function_symbols(lowered)
    parameters = [_parameter(name, param, symbols) for param in lowered.params]
    if is_caller(lowered):
        _describe(parameters, lowered)
        return parameters
    for parameter, role in zip(parameters, parameter_roles(original.prim_func(name))):
        parameter.role = role
    return parameters


def _describe(parameters: list[artifact_pb2.Parameter], lowered: PrimFunc) -> None:
    """Roles, names and sources of a graph function's parameters: inputs, outputs, constants."""
    names, constants = (tuple(map(str, _items(lowered.attrs.get(key)))) for key in (NAMES, CONSTANTS))
    outputs = int(str(lowered.attrs[OUTPUTS]))
    first = len(parameters) - len(constants)
    for index, (parameter, text) in enumerate(zip(parameters, names, strict=True)):
        parameter.name = text
        parameter.role = artifact_pb2.Parameter.OUT if first - outputs <= index < first else artifact_pb2.Parameter.IN
        if index >= first:
            parameter.constant = constants[index - first]


def _items(value: AttrValue) -> tuple[AttrValue, ...]:
    return value if isinstance(value, tuple) else ()


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
