"""Operators become tensor programs: each group of operators, or an operator alone, one private PrimFunc.

What an operator computes is written in its row as tensor expressions; those of a group are put together, what only the
group needs as its temporaries. Constants of one element are written into the expressions. Groups that are equal up to
names share a PrimFunc.

A tensor's own elements in the same order under another shape (``reshape`` and its kin) are no work: outside of groups
they stay as ``reshape``, which the lowering of the graph makes a view of the same memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeGuard

from compiler_service.passes.graph.immediate import Immediate, identifier, is_immediate
from compiler_service.passes.graph.rewrite import Rewriter, is_primitive, unique_name
from crossfarm.errors import BuildFailed
from crossfarm.ir import te
from crossfarm.ir.expr import Expr, Var
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
    TupleExpr,
    TupleItem,
)
from crossfarm.ir.graph.infer import type_of
from crossfarm.ir.graph.types import TensorType, TupleType, Type
from crossfarm.ir.module import AnyFunction, IRModule
from crossfarm.ir.structural import structural_equal, structural_hash
from crossfarm.ir.te import Tensor
from crossfarm.ir.visitor import substitute, walk

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
        name = unique_name(label, self._taken)
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
        composed = _Composition(group, args)
        name = self._programs.add(composed.program, _label(group))
        results = out.fields if isinstance(out, TupleType) else (out,)
        tensors = tuple(t for t in results if isinstance(t, TensorType))
        assert len(tensors) == len(results), f"{name} has results that are no tensors"
        given = {
            inner: outer
            for param, arg in zip(group.params, args)
            for inner, outer in _dimensions(param.type, type_of(arg, self.functions))
        }
        sizes = tuple(given.get(size, size) for size in composed.sizes)
        return CallTIR(name, composed.passed, tensors, sizes, origin)


class _Composition:
    """The PrimFunc of a group.

    Constants of one element are part of the program; every other argument is passed once, however often the group
    takes it.

    Attributes:
        passed: the arguments that it takes, in order.
        sizes: those of the group that no tensor's own dimension tells; it is given them as scalars.
        program: inputs, results, sizes.
    """

    def __init__(self, group: Function, args: Sequence[GraphExpr]) -> None:
        self._sizes: dict[Var, Expr] = {}
        self._tensors: dict[GraphExpr, tuple[Tensor, ...]] = {}
        inputs: dict[GraphExpr, Tensor] = {}
        for param, arg in zip(group.params, args, strict=True):
            assert isinstance(param.type, TensorType), f"{param.name} is no tensor"
            if isinstance(arg, Constant) and is_immediate(arg.data):
                self._tensors[param] = (Immediate.of(arg.data),)
                continue
            if arg in inputs:
                self._sizes.update(
                    {d: size for d, size in zip(param.type.shape, inputs[arg].shape) if _is_new(d, self._sizes)}
                )
            else:
                inputs[arg] = te.placeholder(self._type(param.type).shape, param.type.dtype, identifier(param.name))
            self._tensors[param] = (inputs[arg],)
        for binding in visit.bindings(group.body):
            self._tensors[binding.var] = self._computed(binding.value, binding.var.type)
        results = _own(self._computed(group.body.result, group.result))
        tensors = (*inputs.values(), *results)
        told = {d for t in tensors for d in t.shape if isinstance(d, Var)}
        untold = {size: v for size, v in self._sizes.items() if isinstance(v, Var) and v not in told}
        self.passed = tuple(inputs)
        self.sizes = tuple(untold)
        self.program = replace(te.create_prim_func([*tensors, *untold.values()]), private=True)

    def _computed(self, value: GraphExpr, kind: Type) -> tuple[Tensor, ...]:
        """The tensors that a value of the group is."""
        match value:
            case Constant(data=data) if is_immediate(data):
                return (Immediate.of(data),)
            case TupleExpr(fields=fields):
                return tuple(t for f in fields for t in self._computed(f, kind))
            case TupleItem(value=whole, index=index):
                return (self._computed(whole, kind)[index],)
            case OperatorCall():
                row = operators.get(value.op)
                inputs = [self._computed(a, kind)[0] for a in value.args]
                attrs = {name: self._attribute(v) for name, v in row.complete(value.attrs).items()}
                out = kind.fields if isinstance(kind, TupleType) else (kind,)
                return tuple(row.compute(inputs, attrs, [self._type(t) for t in out]))
            case _:
                return self._tensors[value]

    def _type(self, kind: Type) -> TensorType:
        """The type in sizes of the program."""
        assert isinstance(kind, TensorType)
        return TensorType(tuple(self._dimension(d) for d in kind.shape), kind.dtype)

    def _attribute(self, value: Any) -> Any:
        """An attribute in sizes of the program."""
        if isinstance(value, tuple):
            return tuple(self._attribute(v) for v in value)
        return self._dimension(value) if isinstance(value, Expr) else value

    def _dimension(self, dimension: Expr) -> Expr:
        for var in walk(dimension):
            if _is_new(var, self._sizes):
                self._sizes[var] = Var(var.name, var.dtype)
        return substitute(dimension, self._sizes)


def _is_new(size: object, known: Mapping[Var, Expr]) -> TypeGuard[Var]:
    return isinstance(size, Var) and size not in known


def _alone(call: OperatorCall, var: GraphVar, types: Sequence[Type]) -> Function:
    """One operator as a group."""
    names = operators.get(call.op).inputs
    labels = [names[min(i, len(names) - 1)].rstrip("?*") for i in range(len(types))]
    params = tuple(GraphVar(label, kind) for label, kind in zip(labels, types))
    value = replace(call, args=params)
    return Function(params, visit.in_blocks([Binding(var, value)], var), var.type)


def _own(results: Sequence[Tensor]) -> list[Tensor]:
    """The results, each a tensor that the program computes and that is listed once."""
    own: list[Tensor] = []
    for tensor in results:
        if tensor.computation is None or tensor in own:
            tensor = te.compute(tensor.shape, lambda *i, source=tensor: source[i], name="copy")
        own.append(tensor)
    return own


def _dimensions(inner: Type, outer: Type) -> Iterator[tuple[Var, Expr]]:
    """What a callee's sizes are to its caller."""
    if isinstance(inner, TensorType) and isinstance(outer, TensorType):
        yield from ((a, b) for a, b in zip(inner.shape, outer.shape) if isinstance(a, Var))


def _label(group: Function) -> str:
    """As ``conv2d_add_relu``."""
    calls = [b.value.op for b in visit.bindings(group.body) if isinstance(b.value, OperatorCall)]
    return identifier("_".join(op.rpartition(".")[2] for op in calls[:_NAMED]))
