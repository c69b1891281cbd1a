"""A group of operators as one tensor program.

Each operator's row says what it computes as tensor expressions, one block of the program each; here they are put
together. Of a chain or net of elementwise operators on one shape only the last one makes a block: the others are part
of its expression, what is used twice is computed once. So a convolution and all that follows it are two blocks, which
is what schedule rules know as a convolution with its epilogue.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

from compiler_service.passes.graph.immediate import Immediate, identifier, is_immediate
from crossfarm.ir import te
from crossfarm.ir.arith import const_int
from crossfarm.ir.expr import BufferLoad, Expr, FloatImm, IntImm, Let, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.graph import dims, operators, visit
from crossfarm.ir.graph.expr import Constant, Function, GraphExpr, GraphVar, OperatorCall, TupleExpr, TupleItem
from crossfarm.ir.graph.types import TensorType, TupleType, Type
from crossfarm.ir.te import Tensor, Value
from crossfarm.ir.te.reduction import Reduction
from crossfarm.ir.te.tensor import Computation
from crossfarm.ir.visitor import Mutator, substitute, walk

#: Kinds of operators that read one element of each input, at the place that they write.
_AT_PLACE = ("elementwise", "broadcast")
#: A block is named after so many of its operators.
_NAMED = 4


class Composition:
    """The PrimFunc of a group.

    Constants of one element are part of the program; every other argument is passed once, however often the group
    takes it.

    Attributes:
        passed: the arguments that it takes, in order.
        sizes: those of the group that no tensor's own dimension tells; it is given them as scalars.
        program: its parameters are inputs, results, sizes; it is private.
    """

    passed: tuple[GraphExpr, ...]
    sizes: tuple[Var, ...]
    program: PrimFunc

    def __init__(self, group: Function, args: Sequence[GraphExpr]) -> None:
        self._sizes: dict[Var, Expr] = {}
        self._tensors: dict[GraphExpr, tuple[Tensor, ...]] = {}
        self._deferrable = _deferrable(group)
        self._deferred: dict[Var, Deferred] = {}
        self._there: dict[Tensor, Tensor] = {}
        inputs: dict[GraphExpr, Tensor] = {}
        for param, arg in zip(group.params, args, strict=True):
            assert isinstance(param.type, TensorType), f"{param.name} is no tensor"
            if isinstance(arg, Constant) and is_immediate(arg.data):
                self._tensors[param] = (Immediate.of(arg.data),)
                continue
            if arg in inputs:
                told = zip(param.type.shape, inputs[arg].shape)
                self._sizes.update({size: known for size, known in told if _is_new(size, self._sizes)})
            else:
                inputs[arg] = te.placeholder(self._type(param.type).shape, param.type.dtype, identifier(param.name))
            self._tensors[param] = (inputs[arg],)
        for binding in visit.bindings(group.body):
            self._tensors[binding.var] = self._made(binding.var, self._computed(binding.value, binding.var.type))
        results = _own(self._computed(group.body.result, group.result))
        tensors = (*inputs.values(), *results)
        told_by_tensors = {d for t in tensors for d in t.shape if isinstance(d, Var)}
        untold = {old: new for old, new in self._sizes.items() if isinstance(new, Var) and new not in told_by_tensors}
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
                return self._operator(value, kind)
            case _:
                return self._tensors[value]

    def _operator(self, call: OperatorCall, kind: Type) -> tuple[Tensor, ...]:
        """What the row of an operator computes."""
        row = operators.get(call.op)
        inputs = [self._computed(a, kind)[0] for a in call.args]
        attrs = {name: self._attribute(v) for name, v in row.complete(call.attrs).items()}
        out = [self._type(t) for t in (kind.fields if isinstance(kind, TupleType) else (kind,))]
        made = tuple(row.compute(inputs, attrs, out))
        if any(isinstance(t, Deferred) for t in inputs) and not all(map(self._is_one_expression, made)):
            made = tuple(row.compute([self._stored(t) for t in inputs], attrs, out))
        return tuple(map(_at_axes, made)) if row.kind in _AT_PLACE else made

    def _is_one_expression(self, tensor: Tensor) -> bool:
        """True where it is computed in one step from tensors that are there already."""
        computation = tensor.computation
        if computation is None or isinstance(computation.results, Reduction) or len(computation.results) > 1:
            return False
        return all(read.computation is None or read in self._there for read in computation.reads)

    def _made(self, var: GraphVar, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """What stands for ``var`` where others read it."""
        if var in self._deferrable and all(map(self._is_one_expression, tensors)):
            deferred = tuple(Deferred.of(t) for t in tensors)
            self._deferred.update({d.var: d for d in deferred})
            return deferred
        return tuple(map(self._stored, tensors))

    def _stored(self, tensor: Tensor) -> Tensor:
        """``tensor`` with a place in memory of its own, all that it reads too."""
        if tensor not in self._there:
            stored = tensor
            if tensor.computation is not None and not isinstance(tensor.computation.results, Reduction):
                computation = self._whole(tensor.computation)
                if computation is not tensor.computation:
                    stored = Tensor(tensor.buffer, computation, tensor.position)
            self._there[tensor] = self._there[stored] = stored
        return self._there[tensor]

    def _whole(self, computation: Computation) -> Computation:
        """A computation with what it reads of deferred tensors as part of its expressions."""
        assert not isinstance(computation.results, Reduction)
        parts = self._parts(computation.results)
        if not parts:
            return computation
        variables = {d.var: Var(d.var.name, d.var.dtype) for d in parts}
        values = {
            d.var: substitute(d.value, {a.var: b.var for a, b in zip(d.source.axes, computation.axes, strict=True)})
            for d in parts
        }
        every = [*values.values(), *computation.results]
        uses = Counter(n for e in every for n in walk(e) if n in variables)
        lets: list[tuple[Var, Expr]] = []
        known: dict[Var, Expr] = {}
        for var, value in values.items():
            expr = substitute(value, known)
            if uses[var] > 1 and not isinstance(expr, Var | IntImm | FloatImm | BufferLoad):
                lets.append((variables[var], expr))
                expr = variables[var]
            known[var] = expr
        results = []
        for result in computation.results:
            whole = substitute(result, known)
            for let, expr in reversed(lets):
                whole = Let(let, expr, whole)
            results.append(whole)
        names = [d.source.name for d in parts] + [computation.name]
        reads = dict.fromkeys(read for c in (*(d.source for d in parts), computation) for read in c.reads)
        name = "_".join(names[:_NAMED])
        return Computation(name, computation.axes, tuple(results), tuple(reads), computation.attrs)

    def _parts(self, exprs: Sequence[Expr]) -> list[Deferred]:
        """The deferred tensors that stand in ``exprs``, each after those that stand in its own."""
        found: dict[Deferred, None] = {}
        for expr in exprs:
            for node in walk(expr):
                if isinstance(node, Var) and (part := self._deferred.get(node)) is not None and part not in found:
                    found.update(dict.fromkeys(self._parts((part.value,))))
                    found[part] = None
        return list(found)

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


def _deferrable(group: Function) -> set[GraphVar]:
    """The values of a group that only its elementwise operators of the same shape read."""
    users: dict[GraphVar, list[GraphVar]] = {}
    calls: dict[GraphVar, OperatorCall] = {}
    for binding in visit.bindings(group.body):
        if isinstance(binding.value, OperatorCall) and operators.get(binding.value.op).kind in _AT_PLACE:
            calls[binding.var] = binding.value
        for used in visit.uses(binding):
            users.setdefault(used, []).append(binding.var)
    results = set(visit.uses(group.body.result))

    def same_shape(a: GraphVar, b: GraphVar) -> bool:
        return (
            isinstance(a.type, TensorType)
            and isinstance(b.type, TensorType)
            and dims.same_shape(a.type.shape, b.type.shape)
        )

    return {
        var
        for var in calls
        if var not in results and all(user in calls and same_shape(var, user) for user in users.get(var, ()))
    }


@dataclass(frozen=True, eq=False)
class Deferred(Tensor):
    """What an elementwise operator computes, for others of the same shape to make part of their own expressions.

    Attributes:
        var: stands for its element at the place that the reader writes.
        source: its computation.
    """

    var: Var = field(kw_only=True)
    source: Computation = field(kw_only=True)

    @classmethod
    def of(cls, tensor: Tensor) -> Deferred:
        """``tensor``, computed in one expression, deferred."""
        if isinstance(tensor, cls):
            return tensor
        assert tensor.computation is not None
        return cls(tensor.buffer, tensor.computation, var=Var("t", tensor.dtype), source=tensor.computation)

    @property
    def value(self) -> Expr:
        """Its element in terms of the axes of its computation."""
        assert not isinstance(self.source.results, Reduction)
        return self.source.results[0]

    def element(self, indices: tuple[Expr, ...]) -> Value:
        return Value(self.var)


def _at_axes(tensor: Tensor) -> Tensor:
    """``tensor`` with its reads indexed by its axes where an axis has one index only: rules look for bare axes.

    What reads one element of a dimension of one may do so by the index 0.
    """
    computation = tensor.computation
    if computation is None or isinstance(computation.results, Reduction):
        return tensor
    single = {n: axis.var for n, axis in enumerate(computation.axes) if const_int(axis.dom.extent) == 1}
    if not single:
        return tensor
    change = _AtAxes(single, len(computation.axes))
    results = tuple(change.mutate(r) for r in computation.results)
    return replace(tensor, computation=replace(computation, results=results))


class _AtAxes(Mutator):
    def __init__(self, single: Mapping[int, Var], rank: int) -> None:
        self._single = single
        self._rank = rank

    def mutate_BufferLoad(self, load: BufferLoad) -> Expr:
        if len(load.indices) != self._rank:
            return load
        indices = (
            self._single[n] if n in self._single and const_int(i) == 0 else i for n, i in enumerate(load.indices)
        )
        return BufferLoad(load.buffer, tuple(indices))


def _own(results: Sequence[Tensor]) -> list[Tensor]:
    """The results, each a tensor that the program computes and that is listed once."""
    own: list[Tensor] = []
    for tensor in results:
        if tensor.computation is None or tensor in own:
            tensor = te.compute(tensor.shape, lambda *i, source=tensor: source[i], name="copy")
        own.append(tensor)
    return own
