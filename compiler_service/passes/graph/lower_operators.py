"""Operators become tensor programs: each group of operators, or an operator alone, one private PrimFunc.

What an operator computes is written in its row as tensor expressions; those of a group are put together, what only the
group needs as its temporaries. Constants of one element are written into the expressions. Groups that are equal up to
names share a PrimFunc.

A tensor's own elements in the same order under another shape (``reshape`` and its kin) are no work: outside of groups
they stay as ``reshape``, which the lowering of the graph makes a view of the same memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from compiler_service.passes.graph.compose import Composition
from compiler_service.passes.graph.immediate import identifier
from compiler_service.passes.graph.inline_functions import dimensions
from compiler_service.passes.graph.rewrite import Rewriter, is_primitive
from crossfarm.errors import BuildFailed
from crossfarm.ir.function import PrimFunc
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
)
from crossfarm.ir.graph.infer import type_of
from crossfarm.ir.graph.types import TensorType, TupleType, Type
from crossfarm.ir.module import AnyFunction, IRModule
from crossfarm.ir.naming import free_name
from crossfarm.ir.structural import structural_equal, structural_hash

if TYPE_CHECKING:
    from crossfarm.target import Target

#: Operators that give their first input's elements in the same order.
RESHAPES = ("reshape", "squeeze", "expand_dims", "flatten")
#: A program is named after so many of its operators; further ones are not told.
_NAMED = 4


@dataclass(frozen=True)
class LowerOperators:
    """Each call of an operator or of a primitive graph function becomes a ``CallTIR``; those functions are dropped."""

    name: ClassVar[str] = "lower_operators"

    def apply(self, module: IRModule, target: Target) -> IRModule:
        """Raises BuildFailed where a function calls what is no operator and no group of them."""
        if not module.graph_functions:
            return module
        programs = _Programs(module)
        graphs: dict[str, AnyFunction] = {}
        for name, function in module.graph_functions.items():
            if not is_primitive(function):
                graphs[name] = _Lowering(name, programs, module.functions).mutate_function(function)
        kept = {
            name: graphs.get(name, f) for name, f in module.functions.items() if name in graphs or not is_primitive(f)
        }
        return module.with_functions({**kept, **programs.made})


class _Programs:
    """The PrimFuncs made so far: equal ones once."""

    def __init__(self, module: IRModule) -> None:
        self.made: dict[str, PrimFunc] = {}
        self._taken = set(module.functions)
        self._by_hash: dict[int, list[str]] = {}

    def add(self, program: PrimFunc, label: str) -> str:
        """The name of ``program``, or of one that is equal to it."""
        alike = self._by_hash.setdefault(structural_hash(program), [])
        for name in alike:
            if structural_equal(self.made[name], program):
                return name
        name = free_name(label, self._taken)
        self._taken.add(name)
        self.made[name] = program
        alike.append(name)
        return name


class _Lowering(Rewriter):
    """One graph function on its way to calls of tensor programs."""

    def __init__(self, name: str, programs: _Programs, functions: Mapping[str, AnyFunction]) -> None:
        super().__init__(functions)
        self._name = name
        self._programs = programs

    def rewrite(self, var: GraphVar, value: GraphExpr) -> GraphExpr:
        match value:
            case OperatorCall(op=op) if op in RESHAPES and not isinstance(value.args[0], Constant):
                assert isinstance(var.type, TensorType)
                return OperatorCall("reshape", value.args[:1], {"shape": var.type.shape}, value.origin)
            case OperatorCall():
                group = _alone(value, var, [type_of(a, self.functions) for a in value.args])
                return self._call(group, value.args, var.type, value.origin)
            case FunctionCall(function=name):
                callee = self.functions.get(name)
                if callee is None or not is_primitive(callee):
                    raise BuildFailed(
                        f"{self._name} calls {name!r}, which is no group of operators",
                        hint="graph functions are inlined before they are lowered; is there one of that name?",
                    )
                assert isinstance(callee, Function)
                return self._call(callee, value.args, var.type, str(callee.attrs.get("origin", "")))
            case CallPacked(function=name):
                raise BuildFailed(
                    f"{self._name} calls {name!r}, a function of the system that it runs on",
                    hint="such calls are read and printed, but nothing is built from them",
                )
            case Conditional():
                raise BuildFailed(
                    f"{self._name} has an if that could not be resolved",
                    hint="give both branches results of equal types, and only operators in them",
                )
            case _:
                return value

    def _call(self, group: Function, args: Sequence[GraphExpr], out: Type, origin: str) -> CallTIR:
        """The call of the group's program, which fills tensors of the types ``out``."""
        composed = Composition(group, args)
        name = self._programs.add(composed.program, _label(group))
        results = out.fields if isinstance(out, TupleType) else (out,)
        tensors = tuple(t for t in results if isinstance(t, TensorType))
        assert len(tensors) == len(results), f"{name} has results that are no tensors"
        given = {
            inner: outer
            for param, arg in zip(group.params, args)
            for inner, outer in dimensions(param.type, type_of(arg, self.functions))
        }
        sizes = tuple(given.get(size, size) for size in composed.sizes)
        return CallTIR(name, composed.passed, tensors, sizes, origin)


def _alone(call: OperatorCall, var: GraphVar, types: Sequence[Type]) -> Function:
    """One operator as a group."""
    names = operators.get(call.op).inputs
    labels = [names[min(i, len(names) - 1)].rstrip("?*") for i in range(len(types))]
    params = tuple(GraphVar(label, kind) for label, kind in zip(labels, types))
    value = replace(call, args=params)
    return Function(params, visit.in_blocks([Binding(var, value)], var), var.type)


def _label(group: Function) -> str:
    """As ``conv2d_add_relu``."""
    calls = [b.value.op for b in visit.bindings(group.body) if isinstance(b.value, OperatorCall)]
    return identifier("_".join(op.rpartition(".")[2] for op in calls[:_NAMED]))
