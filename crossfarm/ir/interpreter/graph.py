"""Evaluates graph functions, one binding after the other: operators by the ``reference`` of their rows.

What an operator, a PrimFunc or a ``match_cast`` gives is held to the type of the variable that it is bound to. A value
is dropped after its last use, so that a large model needs the memory of what is alive at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from crossfarm.errors import ArgumentError, InvalidModule, ProgramError, UnsupportedTarget
from crossfarm.ir import dtype as dt
from crossfarm.ir.graph import operators, visit
from crossfarm.ir.graph.expr import (
    Binding,
    CallPacked,
    CallTIR,
    Conditional,
    Constant,
    Function,
    FunctionCall,
    GraphExpr,
    GraphVar,
    OperatorCall,
    PrimValue,
    Seq,
    ShapeExpr,
    TupleExpr,
    TupleItem,
)
from crossfarm.ir.interpreter.programs import run
from crossfarm.ir.interpreter.statements import fresh_memory
from crossfarm.ir.interpreter.values import GraphValue, Sizes, argument
from crossfarm.ir.module import IRModule
from crossfarm.ir.visitor import make_room


def evaluate(mod: IRModule, name: str, inputs: Sequence[Any]) -> GraphValue:
    """What the graph function ``name`` of a verified module returns.

    Args:
        inputs: one a parameter, in order: arrays of its dtype and shape, Python numbers for scalars, tuples for tuples
            and shapes. They are read only.

    Returns:
        An array, or for a tuple a tuple of such. It may share memory with inputs and constants.

    Raises:
        NoSuchFunction: no function of that name.
        ArgumentError: number, kind, dtype or shape of the inputs; two of them give one size different values.
        ProgramError: an operator refuses the values it meets, or a ``match_cast`` does not hold.
        NotFound: the content of a constant is not here.
        InvalidModule: a tensor program (see ``run``), or a call of a function of the system.
    """
    func = mod[name]
    if not isinstance(func, Function):
        raise InvalidModule(
            f"{name!r} of module {mod.name!r} is a tensor program, not a graph function",
            hint="call it with crossfarm.ir.interpreter.run, which takes arrays for its results too",
        )
    make_room()
    try:
        # wrapping integers and float overflow are the program's meaning, not something to warn about
        with np.errstate(all="ignore"):
            return _called(mod, name, func, inputs)
    except ImportError as failure:
        raise UnsupportedTarget(
            f"graph function {name!r} uses bfloat16, for which the package ml_dtypes is missing here",
            hint="install ml_dtypes on the device that runs the reference interpreter",
        ) from failure


def _called(mod: IRModule, name: str, func: Function, inputs: Sequence[Any]) -> GraphValue:
    if len(inputs) != len(func.params):
        names = ", ".join(p.name for p in func.params)
        raise ArgumentError(f"{name} takes {len(func.params)} inputs ({names}), not {len(inputs)}")
    frame = _Frame(mod, name)
    for param, value in zip(func.params, inputs):
        frame.values[param] = given = argument(name, param, value)
        frame.sizes.define(param.type, given, f"parameter {param.name}")
    for param in func.params:
        problem = frame.sizes.problem(param.type, frame.values[param])
        if problem is not None:
            raise ArgumentError(f"{name}: parameter {param.name} was given {problem}")
    return frame.body(func.body, func.params)


class _Frame:
    """One call of a graph function: its variables' values and its sizes."""

    def __init__(self, mod: IRModule, name: str) -> None:
        self.mod = mod
        self.name = name
        self.values: dict[GraphVar, GraphValue] = {}
        self.sizes = Sizes(name)

    def body(self, seq: Seq, params: Sequence[GraphVar] = ()) -> GraphValue:
        """Runs a body or branch; what it defines, and ``params``, is dropped after its last use."""
        done = _last_uses(seq, params)
        for position, binding in enumerate(visit.bindings(seq)):
            value = self.value(binding.value)
            if isinstance(binding, Binding):
                self._hold(binding, value)
            else:
                self.sizes.define(binding.type, value, f"match_cast {binding.var.name}")
                problem = self.sizes.problem(binding.type, value)
                if problem is not None:
                    raise ProgramError(
                        f"{self.name}: match_cast of {binding.var.name} met {problem}", details={"function": self.name}
                    )
            self.values[binding.var] = value
            del value
            for var in done[position]:
                del self.values[var]
        return self.value(seq.result)

    def _hold(self, binding: Binding, value: GraphValue) -> None:
        problem = self.sizes.problem(binding.var.type, value)
        if problem is not None:
            raise ProgramError(
                f"{self.name}: {_described(binding.value)} gives {problem}", details={"function": self.name}
            )

    def value(self, expr: GraphExpr) -> GraphValue:
        match expr:
            case GraphVar():
                return self.values[expr]
            case Constant(data=data):
                return data.array
            case ShapeExpr(values=values):
                return self.sizes.dims(values)
            case PrimValue(value=number):
                return self.sizes.number(number)
            case TupleExpr(fields=fields):
                return tuple(self.value(f) for f in fields)
            case TupleItem(value=whole, index=index):
                return self.value(whole)[index]
            case OperatorCall():
                return self._operator(expr)
            case CallTIR():
                return self._tensor_program(expr)
            case FunctionCall(function=function, args=args):
                return _called(self.mod, function, self.mod.graph_functions[function], [self.value(a) for a in args])
            case Conditional(condition=condition, then=then, other=other):
                return self.body(then if self.value(condition) else other)
            case CallPacked(function=function):
                raise InvalidModule(
                    f"{self.name}: {function!r} is a function of the system a module was made for, which is not here",
                    hint="write what it does as operators or as a tensor program",
                )
            case _:
                raise AssertionError(type(expr).__name__)

    def _operator(self, call: OperatorCall) -> GraphValue:
        row = operators.get(call.op)
        attrs = row.complete(call.attrs)
        for attribute in row.attributes:
            if attribute.kind == "dims":
                attrs[attribute.name] = self.sizes.dims(attrs[attribute.name])
        args = [self.value(a) for a in call.args]
        left_out: list[Any] = [None] * (0 if row.variadic else len(row.inputs) - len(args))
        try:
            results = row.reference([*args, *left_out], attrs)
        except (ValueError, IndexError, ArithmeticError) as failure:
            shapes = " and ".join(f"{a.dtype}{list(a.shape)}" for a in args)
            raise ProgramError(
                f"{self.name}: {_described(call)} refuses {shapes or 'its attributes'}: {failure}",
                details={"function": self.name},
            ) from failure
        return _one_or_tuple([np.asarray(r) for r in results])

    def _tensor_program(self, call: CallTIR) -> GraphValue:
        args = [self.value(a) for a in call.args]
        out = [fresh_memory(self.sizes.dims(kind.shape), dt.to_numpy(kind.dtype)) for kind in call.out]
        run(self.mod, call.function, [*args, *out, *(self.sizes.number(s) for s in call.sizes)])
        return _one_or_tuple(out)


def _one_or_tuple(values: Sequence[GraphValue]) -> GraphValue:
    return values[0] if len(values) == 1 else tuple(values)


def _described(expr: GraphExpr) -> str:
    """What computed a value, for messages."""
    match expr:
        case OperatorCall(op=op, origin=origin):
            return f"operator {op}" + (f" ({origin})" if origin else "")
        case CallTIR(function=function) | FunctionCall(function=function):
            return f"the call of {function}"
        case _:
            return f"a {type(expr).__name__}"


def _last_uses(seq: Seq, params: Sequence[GraphVar]) -> list[list[GraphVar]]:
    """For each binding of ``seq`` the variables, of those it defines and ``params``, that nothing needs after it."""
    found = list(visit.bindings(seq))
    last = dict.fromkeys(params, 0)
    for position, binding in enumerate(found):
        last[binding.var] = position
        last.update((var, position) for var in visit.uses(binding) if var in last)
    done: list[list[GraphVar]] = [[] for _ in found]
    kept = visit.uses(seq.result)
    for var, position in last.items():
        if var not in kept and found:
            done[position].append(var)
    return done
