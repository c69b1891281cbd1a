"""Index maps: where an element of a layout goes in another one, and back."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Union

from crossfarm.errors import InvalidModule
from crossfarm.ir import ops
from crossfarm.ir.arith import Analyzer, const_int, structural_key
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Binary, BufferLoad, Expr, Var
from crossfarm.ir.ops import Operand, as_expr
from crossfarm.ir.printer_names import python_name
from crossfarm.ir.regions import infer_accesses, simplify
from crossfarm.ir.schedule.index_arith import fold, proves
from crossfarm.ir.schedule.iter_map import ONE, Digit, Form, IterMap, NotAffine, Size, is_smaller
from crossfarm.ir.schedule.python_text import python_expr
from crossfarm.ir.stmt import Evaluate, For, Stmt
from crossfarm.ir.te.value import Value
from crossfarm.ir.visitor import Mutator, substitute, walk

#: What users may give: ``lambda i, j: [i // 4, j, i % 4]``, or a map.
IndexMapLike = Union["IndexMap", Callable[..., Sequence[Value | Operand]]]


@dataclass(frozen=True)
class IndexMap:
    """``inputs`` → ``outputs``: each output an expression of the inputs alone."""

    inputs: tuple[Var, ...]
    outputs: tuple[Expr, ...]

    @classmethod
    def of(cls, source: IndexMapLike, ndim: int, dtype: str = "int32") -> IndexMap:
        """A map as it is, or what a callable gives for ``ndim`` fresh Vars named as its parameters.

        Raises:
            InvalidModule: the map is for another number of dimensions.
        """
        if isinstance(source, IndexMap):
            _check_count(len(source.inputs), ndim)
            return source
        parameters = inspect.signature(source).parameters.values()
        names = [p.name for p in parameters if p.kind is not p.VAR_POSITIONAL]
        if len(names) == len(parameters):
            _check_count(len(names), ndim)
        names += [f"i{position}" for position in range(len(names), ndim)]
        inputs = tuple(Var(name, dtype) for name in names[:ndim])
        outputs = source(*(Value(v) for v in inputs))
        return cls(inputs, tuple(_output(o, dtype) for o in outputs))

    def __str__(self) -> str:
        """Python that gives the map again, as ``lambda m, k: [m // 8, k, m % 8]``."""
        inputs = ", ".join(python_name(v.name) for v in self.inputs)
        number = self.inputs[0].dtype if self.inputs else None
        return f"lambda {inputs}: [{', '.join(python_expr(e, self.inputs, number) for e in self.outputs)}]"

    def indices(self, indices: Sequence[Expr], analyzer: Analyzer | None = None) -> tuple[Expr, ...]:
        """Where the element at ``indices`` goes, folded by what the analyzer knows."""
        given = dict(zip(self.inputs, indices))
        return tuple(fold(substitute(output, given), analyzer or Analyzer()) for output in self.outputs)

    def shape(self, shape: Sequence[Expr], analyzer: Analyzer | None = None) -> tuple[Expr, ...]:
        """The shape that holds where all elements of ``shape`` go; an index ``% c`` has ``c`` values, used or not.

        Raises:
            InvalidModule: an output is negative for some element, or how large it gets cannot be told.
        """
        known = analyzer or Analyzer()
        target = Buffer("target", tuple(ops.const(-1, e.dtype) for e in self.outputs))
        digits = _Remainders()
        nest: Stmt = Evaluate(BufferLoad(target, tuple(digits.mutate(e) for e in self.outputs)))
        for var, extent in reversed([*zip(self.inputs, shape), *digits.found]):
            nest = For(var, ops.const(0, var.dtype), ops.cast(extent, var.dtype), nest)
        result = []
        for r in infer_accesses(nest).reads[0].region:
            low, extent = fold(r.min, known), fold(r.extent, known)
            if const_int(extent) == -1 or const_int(low) is None:
                raise InvalidModule(f"{self}: how large an index gets is not known", hint="use sums, // and % alone")
            if (const_int(low) or 0) < 0:
                raise InvalidModule(f"{self}: an index gets negative", hint="add what makes it start at 0")
            result.append(fold(simplify(ops.add(low, extent)), known))
        return tuple(result)

    def why_not_injective(self, shape: Sequence[Expr]) -> str | None:
        """None when no two elements of ``shape`` go to the same place, else why that is not known."""
        return IterMap(dict(zip(self.inputs, shape))).injective(self.outputs)

    def inverse(self, shape: Sequence[Expr], analyzer: Analyzer | None = None) -> Inverse:
        """The way back from the new layout of a tensor of ``shape``.

        Raises:
            InvalidModule: two elements may go to the same place, or an output is no sum of digits of the inputs.
        """
        return _Inverter(self, shape, analyzer or Analyzer()).inverse()


@dataclass(frozen=True)
class Inverse:
    """The way back: ``map`` of new indices to old ones, right where ``valid`` holds; elsewhere is padding.

    Attributes:
        valid: a condition on ``map.inputs``, None where every element of the new layout has one in the old.
    """

    map: IndexMap
    valid: Expr | None

    def at(self, indices: Sequence[Expr], analyzer: Analyzer | None = None) -> tuple[tuple[Expr, ...], Expr | None]:
        """The old indices of the element at new ``indices``, and the condition that there is one."""
        given = dict(zip(self.map.inputs, indices))
        return self.map.indices(indices, analyzer), None if self.valid is None else substitute(self.valid, given)


class _Inverter:
    """Each output is a mixed-radix number of digits of the inputs; read digit by digit, they name the inputs."""

    def __init__(self, forward: IndexMap, shape: Sequence[Expr], analyzer: Analyzer) -> None:
        self.forward = forward
        self.extents = {var: ops.cast(extent, var.dtype) for var, extent in zip(forward.inputs, shape)}
        self.forms = IterMap(self.extents)
        self.analyzer = analyzer
        self.conditions: list[Expr] = []
        self.sources: dict[object, list[tuple[Digit, Expr]]] = {}
        self.digits: list[tuple[Digit, Expr]] = []

    def inverse(self) -> Inverse:
        problem = self.forms.injective(self.forward.outputs)
        if problem is not None:
            raise InvalidModule(f"{self.forward} has no inverse on this shape: {problem}")
        new_shape = self.forward.shape(list(self.extents.values()), self.analyzer)
        outputs = tuple(Var(f"o{i}", e.dtype) for i, e in enumerate(self.forward.outputs))
        with self.analyzer.scope():
            for var, extent in zip(outputs, new_shape):
                self.analyzer.bind_loop(var, ops.const(0, var.dtype), extent)
            for var, output in zip(outputs, self.forward.outputs):
                self._read_digits(var, self._form(output))
            values = self._values()
            for digit, value in self.digits:
                # a source's last digit is compared as a part of the source
                if any(d.source == digit.source and is_smaller(digit.lower, d.lower) for d, _ in self.digits):
                    inside = ops.compare("lt", value, self._size(digit.extent, value.dtype))
                    if not proves(fold(inside, self.analyzer), self.analyzer):
                        self.conditions.append(inside)
            for var, value in zip(self.forward.inputs, values):
                inside = ops.compare("lt", value, self.extents[var])
                if not proves(inside, self.analyzer):
                    self.conditions.append(inside)
            folded = [fold(c, self.analyzer) for c in self.conditions]
            distinct = list({structural_key(c): c for c in folded if const_int(c) != 1}.values())
            valid = ops.logical_and(*distinct) if distinct else None
        return Inverse(IndexMap(outputs, values), valid)

    def _form(self, output: Expr) -> Form:
        try:
            return self.forms.form(output)
        except NotAffine as reason:
            raise InvalidModule(f"{self.forward} has no inverse that is known: {reason}") from None

    def _read_digits(self, var: Var, form: Form) -> None:
        offset: Expr = var if not form.constant else ops.sub(var, form.constant)
        if form.constant:
            self.conditions.append(ops.compare("ge", var, form.constant))
        terms = form.terms
        only = ops.compare("eq", offset, 0)
        if not terms and not proves(only, self.analyzer):
            self.conditions.append(only)
        for position, term in enumerate(terms):
            value = offset
            if term.scale != ONE:
                value = ops.floordiv(value, self._size(term.scale, var.dtype))
            if position:
                above = terms[position - 1].scale.over(term.scale)
                if above is None:
                    raise InvalidModule(f"{self.forward} has no inverse that is known: its strides do not divide")
                value = ops.floormod(value, self._size(above, var.dtype))
            self.digits.append((term.digit, value))
            if position == len(terms) - 1 and term.scale != ONE:
                rest = ops.floormod(offset, self._size(term.scale, var.dtype))
                self.conditions.append(ops.compare("eq", rest, 0))
            self.sources.setdefault(term.digit.source, []).append((term.digit, fold(value, self.analyzer)))

    def _values(self) -> tuple[Expr, ...]:
        """Each input from its digits; digits of a sum give the sum, which is read like an output."""
        for source in reversed(list(self.sources)):
            if isinstance(source, tuple) and source and source[0] == "sum":
                total = Var("sum", self.forward.outputs[0].dtype)
                digits = self.sources.pop(source)
                before = {key: len(found) for key, found in self.sources.items()}
                form = source[1]
                self._read_digits(total, form)
                whole = self._sum(digits, total.dtype)
                for key, found in self.sources.items():
                    start = before.get(key, 0)
                    found[start:] = [(d, substitute(e, {total: whole})) for d, e in found[start:]]
                self.conditions = [substitute(c, {total: whole}) for c in self.conditions]
                self.digits = [(d, substitute(e, {total: whole})) for d, e in self.digits]
        return tuple(
            fold(self._sum(self.sources.get(var, []), var.dtype), self.analyzer) for var in self.forward.inputs
        )

    def _sum(self, digits: list[tuple[Digit, Expr]], dtype: str) -> Expr:
        total: Expr = ops.const(0, dtype)
        for digit, value in digits:
            part = value if digit.lower == ONE else ops.mul(value, self._size(digit.lower, dtype))
            total = ops.add(total, part)
        return simplify(total)

    def _size(self, size: Size, dtype: str) -> Expr:
        total: Expr = ops.const(size.factor, dtype)
        for symbol in size.symbols:
            total = ops.mul(total, self._symbol(symbol, dtype))
        return simplify(total)

    def _symbol(self, symbol: object, dtype: str) -> Expr:
        parts = (n for e in (*self.extents.values(), *self.forward.outputs) for n in walk(e) if isinstance(n, Expr))
        found = next((n for n in parts if structural_key(n) == symbol), None)
        if found is None:
            raise InvalidModule(f"{self.forward} has no inverse that is known: a size is not constant")
        return ops.cast(found, dtype)


class _Remainders(Mutator):
    """Makes each remainder by a constant a variable of its own, so that all its values count."""

    def __init__(self) -> None:
        self.found: list[tuple[Var, Expr]] = []

    def mutate_Binary(self, node: Binary) -> Expr:
        if node.op != "floormod" or (const_int(node.b) or 0) <= 0:
            return self.mutate_children(node)
        self.found.append((Var("r", node.dtype), node.b))
        return self.found[-1][0]


def _output(value: Value | Operand, dtype: str) -> Expr:
    """What a callable gave for one output; a Python number has the dtype of the inputs."""
    if isinstance(value, int) and not isinstance(value, bool):
        return ops.const(value, dtype)
    return value.expr if isinstance(value, Value) else as_expr(value)


def _check_count(have: int, want: int) -> None:
    if have != want:
        raise InvalidModule(f"the index map is for {have} dimensions, not {want}")
