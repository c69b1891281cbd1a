"""A graph function of calls becomes a tensor program that makes them, one after the other.

Its parameters are the inputs, the outputs and the constants, its body a ``root`` block of ``call_function`` with the
values in between as buffers (``crossfarm.ir.calls``); ``plan_workspace`` gives these their places. A value that is a
view of another (``reshape``, an item of a tuple, a checked type) is the same memory. What the function returns is
written there by the call that makes it; only an input that is returned, or a value that is returned twice, is copied.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, ClassVar

from compiler_service.passes.graph.callees import Callees
from compiler_service.passes.graph.lift_constants import CONSTANTS
from compiler_service.passes.graph.matching import match_call
from compiler_service.passes.graph.values import Memory, NumberValue, Sizes, TensorValue, TupleValue, Value, flat
from compiler_service.passes.workspace import may_be_negative
from crossfarm.errors import BuildFailed, InvalidModule
from crossfarm.ir import ops
from crossfarm.ir.arith import structural_key
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.calls import CALLS, ProgramCall, address_of, size_symbols
from crossfarm.ir.expr import Call, Expr, IntImm, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.graph import dims
from crossfarm.ir.graph.constant import ConstantData
from crossfarm.ir.graph.expr import (
    CallPacked,
    CallTIR,
    Conditional,
    Constant,
    Function,
    FunctionCall,
    GraphExpr,
    GraphVar,
    MatchCast,
    OperatorCall,
    PrimValue,
    TupleExpr,
    TupleItem,
)
from crossfarm.ir.graph.types import TensorType, TupleType, Type
from crossfarm.ir.graph.visit import AnyBinding, bindings
from crossfarm.ir.module import AnyFunction, IRModule
from crossfarm.ir.stmt import AttrValue, Block, BlockRealize
from crossfarm.ir.visitor import seq, substitute, walk

if TYPE_CHECKING:
    from crossfarm.target import Target

#: Attributes of what a graph function became, beside where its constants are from, which come last: how many of its
#: parameters are outputs, which come after the inputs; names of all parameters for people.
OUTPUTS, NAMES = "crossfarm.outputs", "crossfarm.names"


@dataclass(frozen=True)
class LowerGraph:
    """Every public graph function becomes a PrimFunc of calls; private ones, which nothing calls any more, go.

    Raises InvalidModule for a call that does not fit its callee, and BuildFailed for what is no call of a PrimFunc.
    """

    name: ClassVar[str] = "lower_graph"

    def apply(self, module: IRModule, target: Target) -> IRModule:
        if not module.graph_functions:
            return module
        functions: dict[str, AnyFunction] = {}
        callees = Callees(module)
        for name, func in module.functions.items():
            if isinstance(func, PrimFunc):
                functions[name] = func
            elif not func.private:
                functions[name] = _Lowering(name, func, callees).function()
        return module.with_functions({**functions, **callees.made})


def refuse_calls(module: IRModule) -> None:
    """Raises InvalidModule for a program from outside that calls another: what that may look like is decided here."""
    for name, func in module.prim_funcs.items():
        if CALLS in func.attrs or any(isinstance(n, Call) and n.op == "call_function" for n in walk(func.body)):
            raise InvalidModule(
                f"function {name!r} of module {module.name!r} calls another one",
                hint="build the graph function that it was lowered from",
            )


@dataclass
class _Step:
    """A call in the making: memory is given its buffer when all calls are known."""

    function: str
    args: tuple[Memory | Expr, ...]
    origin: str = ""


class _Lowering:
    """One graph function on its way."""

    def __init__(self, name: str, func: Function, callees: Callees) -> None:
        self.name, self.func, self.callees = name, func, callees
        self.sizes = Sizes(name, [p.type for p in func.params])
        self.values: dict[GraphVar, Value] = {}
        self.steps: list[_Step] = []
        self.constants: dict[ConstantData, Memory] = {}
        self.made: dict[Memory, None] = {}  # by calls
        self.inner: list[Expr] = []  # sizes of what callees have for themselves

    def function(self) -> PrimFunc:
        """The PrimFunc."""
        given = self._texts(CONSTANTS)
        params = [self._parameter(p) for p in self.func.params]
        for binding in bindings(self.func.body):
            self.values[binding.var] = self._bound(binding)
        outputs = self._outputs(self._tensors(self._value(self.func.body.result)))
        self._check_signs(outputs)
        inputs, prepared = params[: len(params) - len(given)], params[len(params) - len(given) :]
        constants = (*given, *(f"sha256:{data.digest}" for data in self.constants))
        memories = [*inputs, *outputs, *prepared, *self.constants.values()]
        names = (
            *(self._texts("input_names") or [m.name for m in inputs]),
            *(m.name for m in outputs),
            *(m.name for m in memories[len(inputs) + len(outputs) :]),
        )
        if len(names) != len(memories):
            raise InvalidModule(f"function {self.name!r} has {len(inputs)} inputs, and not as many names for them")
        attrs: dict[str, AttrValue] = {CALLS: True, OUTPUTS: len(outputs), NAMES: names}
        if constants:
            attrs[CONSTANTS] = constants
        buffers = tuple(memory.place() for memory in memories)
        return PrimFunc(buffers, self._body(frozenset(buffers)), attrs)

    # --- what there is before and after the calls

    def _parameter(self, param: GraphVar) -> Memory:
        kind = self.sizes.type(param.type, f"parameter {param.name!r}")
        memory = Memory(param.name, kind)
        self.values[param] = TensorValue(memory, kind)
        return memory

    def _outputs(self, results: list[TensorValue]) -> list[Memory]:
        """Memory of the outputs: the calls' own where they can write there, else new memory and a copy."""
        names = self._texts("output_names")
        if not names:
            names = ("output",) if len(results) == 1 else tuple(f"output_{i}" for i in range(len(results)))
        if len(names) != len(results):
            raise InvalidModule(
                f"function {self.name!r} has {len(names)} names for its {len(results)} outputs (output_names)"
            )
        outputs: list[Memory] = []
        for name, result in zip(names, results):
            memory = result.memory
            if memory not in self.made or memory in outputs:
                memory = Memory(name, result.type)
                flat_type = TensorType((dims.product(result.type.shape),), result.type.dtype)
                source, target = TensorValue(result.memory, flat_type), TensorValue(memory, flat_type)
                self._call(self.callees.copy(result.type.dtype), [source, target])
            memory.name, memory.type = name, result.type
            outputs.append(memory)
        return outputs

    def _body(self, params: frozenset[Buffer]) -> BlockRealize:
        """The calls in a root block, which has the values between them."""
        calls = [
            ProgramCall(step.function, tuple(_argument(a) for a in step.args), step.origin).statement()
            for step in self.steps
        ]
        used = [a.place() for step in self.steps for a in step.args if isinstance(a, Memory)]
        between = tuple(dict.fromkeys(b for b in used if b not in params))
        return BlockRealize((), IntImm(1, "bool"), Block("root", (), (), (), seq(*calls), alloc_buffers=between))

    def _texts(self, key: str) -> tuple[str, ...]:
        """The texts of an attribute, none where there is no such."""
        found = self.func.attrs.get(key, ())
        if not isinstance(found, (tuple, list)) or not all(isinstance(text, str) for text in found):
            raise InvalidModule(f"attribute {key!r} of function {self.name!r} is not a list of texts")
        return tuple(str(text) for text in found)

    # --- bindings

    def _bound(self, binding: AnyBinding) -> Value:
        """The value of a binding; calls are noted on the way."""
        value, label = binding.value, binding.var.name
        if isinstance(binding, MatchCast):
            return self._cast(self._value(value), binding.type, label)
        match value:
            case CallTIR():
                return self._call_tir(value, label)
            case OperatorCall(op="reshape"):
                viewed = self._value(value.args[0])
                assert isinstance(viewed, TensorValue), "what is reshaped is a tensor"
                return self._viewed(viewed, self.sizes.type(binding.var.type, f"value {label!r}"), label)
            case Conditional():
                raise BuildFailed(
                    f"function {self.name!r} decides by data what to run ({label!r} is a conditional), which is not "
                    "built yet",
                    hint="compute both values and choose between them (where), or make its condition a constant",
                )
            case OperatorCall(op=what) | CallPacked(function=what) | FunctionCall(function=what):
                raise BuildFailed(
                    f"function {self.name!r} still has {what!r}, which is no call of a tensor program, at {label!r}"
                )
            case _:
                return self._value(value)

    def _value(self, expr: GraphExpr) -> Value:
        match expr:
            case GraphVar():
                return self.values[expr]
            case Constant(data=data):
                return self._constant(expr, data)
            case TupleExpr(fields=fields):
                return TupleValue(tuple(self._value(f) for f in fields))
            case TupleItem(value=whole, index=index):
                held = self._value(whole)
                assert isinstance(held, TupleValue), "only tuples have items"
                return held.fields[index]
            case PrimValue(value=number):
                return NumberValue(self.sizes.dim(number))
            case _:
                raise BuildFailed(f"function {self.name!r} has a {type(expr).__name__} as a value")

    def _constant(self, expr: Constant, data: ConstantData) -> TensorValue:
        """A constant that no pass made a parameter becomes one here."""
        kind = TensorType(dims.dims(data.shape), data.dtype)
        if data not in self.constants:
            self.constants[data] = Memory(expr.note or f"constant_{len(self.constants)}", kind)
        return TensorValue(self.constants[data], kind)

    def _tensors(self, value: Value) -> list[TensorValue]:
        found = flat([value])
        tensors = [v for v in found if isinstance(v, TensorValue)]
        if len(tensors) < len(found):
            raise BuildFailed(f"function {self.name!r} returns a number", hint="return a tensor without dimensions")
        return tensors

    # --- calls

    def _call_tir(self, call: CallTIR, label: str) -> Value:
        results = [self.sizes.type(kind, f"value {label!r}") for kind in call.out]
        names = [label] if len(results) == 1 else [f"{label}_{i}" for i in range(len(results))]
        out = [TensorValue(Memory(name, kind), kind) for name, kind in zip(names, results)]
        self.made.update((value.memory, None) for value in out)
        sizes = [NumberValue(self.sizes.dim(size)) for size in call.sizes]
        self._call(call.function, [*flat(map(self._value, call.args)), *out, *sizes], call.origin)
        return out[0] if len(out) == 1 else TupleValue(tuple(out))

    def _call(self, name: str, args: list[TensorValue | NumberValue], origin: str = "") -> None:
        """Notes a call of a function, after checks of what it relies on and nobody knows."""
        name = self.callees.private(name)
        callee = self.callees[name]
        matched = match_call(self.name, name, callee, args)
        for a, b, what in matched.unproven:
            self._check(a, b, f"{what} of {name!r}")
        if isinstance(callee.body, BlockRealize):
            told = dict(zip(size_symbols(callee), matched.sizes))
            own = (size for buffer in callee.body.block.alloc_buffers for size in buffer.shape)
            self.inner.extend(dims.dim(substitute(size, told)) for size in own)
        given = [
            arg.memory if isinstance(arg, TensorValue) else ops.cast(arg.expr, param.dtype)
            for param, arg in zip(callee.params, args)
        ]
        self.steps.append(_Step(name, (*given, *matched.sizes), origin))

    def _cast(self, value: Value, kind: Type, label: str) -> Value:
        """``value`` under a type that is checked: what is new in it are names for what is there."""
        if isinstance(kind, TupleType):
            assert isinstance(value, TupleValue), "the type is that of a tuple"
            return TupleValue(tuple(self._cast(v, k, label) for v, k in zip(value.fields, kind.fields, strict=True)))
        if not isinstance(value, TensorValue) or not isinstance(kind, TensorType):
            return value
        if (kind.dtype, kind.ndim) != (value.type.dtype, value.type.ndim):
            raise InvalidModule(
                f"function {self.name!r} takes {value.type.dtype}{dims.text(value.type.shape)} for "
                f"{kind.dtype}{dims.text(kind.shape)} at {label!r}"
            )
        for size, there in zip(kind.shape, value.type.shape):
            if isinstance(size, Var):
                self.sizes.define(size, there)
        checked = self.sizes.type(kind, f"value {label!r}")
        for axis, (claimed, there) in enumerate(zip(checked.shape, value.type.shape)):
            if not dims.same(claimed, there):
                self._check(claimed, there, f"dimension {axis} of {label!r}")
        return TensorValue(value.memory, checked)

    def _viewed(self, value: TensorValue, kind: TensorType, label: str) -> TensorValue:
        """``value`` under another shape, after a check that it is of so many elements where nobody knows."""
        have, want = dims.product(value.type.shape), dims.product(kind.shape)
        if not dims.same(have, want):
            self._check(have, want, f"number of elements of {label!r}")
        return TensorValue(value.memory, kind)

    def _check_signs(self, outputs: list[Memory]) -> None:
        """Before all calls one check that nothing has a size below 0, as ``n - 3`` rows may be: programs rely on it.

        Whoever calls with memory for ``outputs`` knows that theirs are not.
        """
        known = {structural_key(size) for memory in outputs for size in memory.type.shape}
        sizes = [*(size for memory in self.made for size in memory.type.shape), *self.inner]
        between = {structural_key(size): size for size in sizes}
        signed = [size for key, size in between.items() if key not in known and may_be_negative(size)]
        if signed:
            least = reduce(dims.minimum, signed, dims.dim(0))
            check = self.callees.check(f"a size in function {self.name!r} is below 0: its inputs are too small")
            self.steps.insert(0, _Step(check, (least, dims.dim(0))))

    def _check(self, a: Expr, b: Expr, what: str) -> None:
        self.steps.append(_Step(self.callees.check(f"{what} is not what function {self.name!r} says"), (a, b)))


def _argument(arg: Memory | Expr) -> Expr:
    return address_of(arg.place()) if isinstance(arg, Memory) else arg
