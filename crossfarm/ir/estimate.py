"""What a function computes and moves, counted without running it, and how near the hardware's limits that can be.

Counting goes through the loops: what a statement does, times the extents around it. It is exact for programs whose
extents are constants or given sizes; where an extent depends on an outer loop, that loop's middle stands for it; a
``while`` counts as one turn; of a condition both sides are counted as always taken. Operations are arithmetic on what
tensors hold, never on indices: each addition, multiplication, division, minimum, maximum and mathematical function is
one, a fused multiply-add two.

Which form is counted decides what it means: the program as written says how much there is to do, the lowered form how
many instructions do it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce

from crossfarm.errors import ArgumentError
from crossfarm.ir import dtype as dt
from crossfarm.ir.amount import Amount, Number, as_expr, at_least, operated, smaller
from crossfarm.ir.arith import fold_int
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import (
    ARITHMETIC,
    Binary,
    Broadcast,
    BufferLoad,
    Call,
    Cast,
    Expr,
    IntImm,
    Let,
    Not,
    Ramp,
    Select,
    Var,
)
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.regions import key
from crossfarm.ir.stmt import (
    Allocate,
    AssertStmt,
    AttrStmt,
    Block,
    BlockRealize,
    BufferStore,
    Evaluate,
    For,
    IfThenElse,
    LetStmt,
    SeqStmt,
    Stmt,
    While,
)
from crossfarm.ir.visitor import walk

#: Guesses of what instructions cost, in units of an addition: polynomials of about that degree, and slow dividers.
_FUNCTION_COST, _DIVISION_COST = 20, 8
_CHEAP_FUNCTIONS = frozenset({"abs", "copysign", "floor", "ceil", "round", "trunc", "nearbyint", "reinterpret"})
#: Calls that are no arithmetic.
_NO_ARITHMETIC = frozenset({"if_then_else", "likely", "assume", "ret", "address_of", "storage_sync", "prefetch"})
#: A temporary that fits so many vector registers, and whose places are all known when compiling, lives in them.
_REGISTERS = 32
#: Loops of up to so many turns are unrolled by any compiler.
_UNROLLED_TURNS = 16


@dataclass(frozen=True)
class Core:
    """One processor core, as far as estimates go.

    Attributes:
        vector_bytes: width of its vectors.
        arithmetic, loads, stores: instructions it can begin in a cycle; guesses that hold for most of today's.
        memory_bytes: what it gets from memory in a cycle; a guess as well.
    """

    vector_bytes: int
    arithmetic: int = 2
    loads: int = 2
    stores: int = 1
    memory_bytes: int = 8

    def peak(self, dtype: str = "float32") -> int:
        """Operations a cycle at most: fused multiply-adds in every unit."""
        return 2 * self.arithmetic * max(1, self.vector_bytes // dt.itemsize(dtype))


@dataclass(frozen=True)
class Estimate:
    """What one call does.

    Attributes:
        operations: arithmetic on elements of tensors.
        operation_bytes: the same, each times the bytes of its elements, which decides how many fit a vector.
        read, written: bytes of parameters, each at most once: what must come from memory and go there.
        arithmetic, loads, stores: instructions on vectors of the core's width, without those of indices and loops; what
            one turn of a loop has loaded or stored it does not load again, and what fits registers stays there.
    """

    operations: float
    operation_bytes: float
    read: float
    written: float
    arithmetic: float
    loads: float
    stores: float

    @property
    def bytes(self) -> float:
        return self.read + self.written

    @property
    def intensity(self) -> float:
        """Operations for each byte of memory traffic; inf where there is none."""
        return self.operations / self.bytes if self.bytes else math.inf

    def cycles(self, core: Core) -> dict[str, float]:
        """What each part of a core needs at least, by its name; the longest decides."""
        return {
            "arithmetic": self.arithmetic / core.arithmetic,
            "loads": self.loads / core.loads,
            "stores": self.stores / core.stores,
            "memory": self.bytes / core.memory_bytes,
        }

    def share_of_peak(self, core: Core, *, work: Estimate | None = None) -> float:
        """The part of the core's peak that is reached if nothing but the longest of ``cycles`` takes time, 0 to 1.

        Args:
            work: the same function as it was written, whose operations count, if this is another form of it.
        """
        needed = max(self.cycles(core).values())
        ideal = (work or self).operation_bytes / (2 * core.arithmetic * core.vector_bytes)
        return min(1.0, ideal / needed) if needed else 0.0


def estimate(func: PrimFunc, core: Core, sizes: Mapping[str, int] | None = None) -> Estimate:
    """Counts what a call of ``func`` does.

    Args:
        sizes: values of its symbolic sizes and scalar parameters by name.
    Raises:
        ArgumentError: a size that an extent depends on is not given; names it.
    """
    counter = _Counter(func, core, sizes or {})
    counter.statement(func.body)
    read, written = (sum(_known(n) for n in counter.moved(how).values()) for how in ("read", "written"))
    return Estimate(
        _known(counter.operations),
        _known(counter.operation_bytes),
        read,
        written,
        _known(counter.arithmetic),
        _known(counter.instructions["read"]),
        _known(counter.instructions["written"]),
    )


@dataclass(frozen=True)
class Work:
    """What one call does, whatever it runs on: integer expressions of symbolic sizes.

    Attributes:
        operations: arithmetic on elements of tensors.
        read, written: bytes of each parameter that is, each element at most once.
    """

    operations: Expr
    read: Mapping[Buffer, Expr]
    written: Mapping[Buffer, Expr]


def work(func: PrimFunc, values: Mapping[Var, Expr], natural: Collection[Var] = ()) -> Work:
    """Counts what a call of ``func`` does, in the sizes of who calls it.

    Args:
        values: its symbolic sizes and scalar parameters.
        natural: Vars of ``values`` that are never negative.
    Raises:
        ArgumentError: an extent depends on what is no such size, or not in a way that artifacts have words for.
    """
    counter = _Counter(func, Core(vector_bytes=1), {})
    for value in values.values():
        for var in (node for node in walk(value) if isinstance(node, Var)):
            counter.values[var] = Amount.of(var, natural=var in natural)
    counter.values.update({var: counter.number(value) for var, value in values.items()})
    counter.statement(func.body)
    read, written = (
        {buffer: as_expr(number) for buffer, number in counter.moved(how).items()} for how in ("read", "written")
    )
    return Work(as_expr(counter.operations), read, written)


def symbolic_sizes(func: PrimFunc) -> tuple[str, ...]:
    """Names of what ``sizes`` may have to give: symbolic dimensions of parameters, and integer scalar parameters."""
    found: dict[str, None] = {}
    for param in func.params:
        exprs = (*param.shape, *param.strides) if isinstance(param, Buffer) else (param,)
        for expr in exprs:
            for node in walk(expr):
                if isinstance(node, Var) and dt.is_int(node.dtype):
                    found.setdefault(node.name)
    return tuple(found)


class _Counter:
    def __init__(self, func: PrimFunc, core: Core, sizes: Mapping[str, int]) -> None:
        self.core = core
        self.sizes = sizes
        self.parameters = {param for param in func.params if isinstance(param, Buffer)}
        self.registers = _in_registers(func.body, _REGISTERS * core.vector_bytes)
        self.loaded: dict[Buffer, set[Hashable]] = {}
        self.times: Number = 1.0
        self.values: dict[Var, Number] = {}
        self.operations: Number = 0.0
        self.operation_bytes: Number = 0.0
        self.arithmetic: Number = 0.0
        self.accesses: dict[str, dict[Buffer, Number]] = {"read": {}, "written": {}}
        self.instructions: dict[str, Number] = {"read": 0.0, "written": 0.0}

    def moved(self, how: str) -> dict[Buffer, Number]:
        """Bytes of each parameter that is "read" or "written", each element at most once."""
        return {buffer: self._bytes(buffer, elements) for buffer, elements in self.accesses[how].items()}

    # --- statements

    def statement(self, node: Stmt | None) -> None:
        match node:
            case None:
                pass
            case SeqStmt():
                for inner in node.stmts:
                    self.statement(inner)
            case For():
                first, extent = self.number(node.min), self.number(node.extent)
                self.values[node.var] = _middle(first, extent)
                with self.repeated(extent):
                    self.statement(node.body)
            case BlockRealize():
                self.block(node)
            case BufferStore():
                self.expression(node.value)
                self.access("written", node.buffer, node.indices)
            case IfThenElse():
                self.statement(node.then_body)
                self.statement(node.else_body)
            case LetStmt():
                self.expression(node.value)
                if dt.is_int(node.var.dtype):
                    self.values[node.var] = self.number(node.value, guess=True)
                self.statement(node.body)
            case Evaluate():
                self.expression(node.value)
            case While() | AttrStmt() | Allocate():
                self.statement(node.body)
            case AssertStmt():
                pass
            case _:
                raise TypeError(f"no count for a {type(node).__name__}")

    def block(self, node: BlockRealize) -> None:
        block: Block = node.block
        summed: Number = 1.0
        for axis, value in zip(block.iter_vars, node.iter_values):
            self.values[axis.var] = self.number(value, guess=True)
            if axis.kind == "reduce":
                extent = self.number(axis.dom.extent)
                summed = summed * (extent if isinstance(extent, Amount) else max(extent, 1))  # no turn is a rare thing
        if block.init is not None:
            with self.repeated(1, turns=summed):
                self.statement(block.init)
        self.statement(block.body)

    @contextmanager
    def repeated(self, times: Number, *, turns: Number = 1) -> Iterator[None]:
        """A body that runs so often, in one of so many turns; what was loaded outside is loaded again in it."""
        before = self.times, self.loaded
        self.times, self.loaded = self.times * at_least(times, 0) / turns, {}
        yield
        self.times, self.loaded = before

    # --- expressions over what tensors hold

    def expression(self, node: Expr, *, added: bool = False) -> None:
        """Counts ``node``; ``added``: its product is added to something, which one instruction can do."""
        match node:
            case Binary(op=op, a=a, b=b):
                if op in ARITHMETIC:
                    fused = added and op == "mul" and dt.is_float(node.dtype)
                    cost = _DIVISION_COST if op in ("div", "mod", "floordiv", "floormod") else 0 if fused else 1
                    self.operate(node.dtype, cost)
                sums = op in ("add", "sub")
                takes_b = sums and isinstance(b, Binary) and b.op == "mul"
                self.expression(a, added=sums and not takes_b)
                self.expression(b, added=takes_b)
            case Call(op=op, args=args):
                if op == "fma":
                    self.operate(node.dtype, 1, operations=2)
                elif op == "dot4":
                    self.operate(args[1].dtype, 1, operations=2)
                elif op not in _NO_ARITHMETIC:
                    self.operate(node.dtype, 1 if op in _CHEAP_FUNCTIONS else _FUNCTION_COST)
                for arg in args:
                    self.expression(arg)
            case BufferLoad():
                self.access("read", node.buffer, node.indices)
            case Cast() | Broadcast():
                self.expression(node.value)
            case Not():
                self.expression(node.a)
            case Select():
                for part in (node.condition, node.true_value, node.false_value):
                    self.expression(part)
            case Let():
                self.expression(node.value)
                self.expression(node.body)
            case _:
                pass  # constants, variables and vectors of indices cost nothing

    def operate(self, dtype: str, cost: float, *, operations: int = 1) -> None:
        lanes, size = dt.lanes_of(dtype), dt.itemsize(dt.scalar_of(dtype))
        self.operations += self.times * operations * lanes
        self.operation_bytes += self.times * operations * lanes * size
        self.arithmetic += self.times * cost * self._vectors(dtype)

    def access(self, how: str, buffer: Buffer, indices: tuple[Expr, ...]) -> None:
        lanes = max((dt.lanes_of(index.dtype) for index in indices), default=1)
        if buffer in self.parameters:
            counts = self.accesses[how]
            counts[buffer] = counts.get(buffer, 0.0) + self.times * lanes
        place = key(indices)
        if how == "written":
            self.loaded.pop(buffer, None)
        known = self.loaded.setdefault(buffer, set())
        if buffer not in self.registers and place not in known:
            together = lanes == 1 or all(not isinstance(i, Ramp) or _is_one(i.stride) for i in indices)
            self.instructions[how] += self.times * (
                self._vectors(dt.with_lanes(buffer.dtype, lanes)) if together else lanes
            )
        known.add(place)  # the next who reads it there has it in a register, stored or loaded

    def _vectors(self, dtype: str) -> int:
        return math.ceil(dt.itemsize(dtype) / self.core.vector_bytes)

    def _bytes(self, buffer: Buffer, elements: Number) -> Number:
        whole: Number = 1.0
        for extent in buffer.shape:
            whole = whole * self.number(extent)
        return smaller(whole, elements) * dt.itemsize(buffer.dtype)

    # --- numbers

    def number(self, expr: Expr, *, guess: bool = False) -> Number:
        """The value of an integer expression, with loops in their middle; with ``guess`` 0 for what only data tells."""
        match expr:
            case IntImm():
                return expr.value
            case Var():
                if expr in self.values:
                    return self.values[expr]
                if expr.name in self.sizes:
                    return self.sizes[expr.name]
                if guess:
                    return 0
                raise ArgumentError(
                    f"the estimate depends on {expr.name!r}, which is not given", hint=f"give it: --size {expr.name}=64"
                )
            case Cast():
                return self.number(expr.value, guess=guess)
            case Binary():
                a, b = self.number(expr.a, guess=guess), self.number(expr.b, guess=guess)
                if isinstance(a, Amount) or isinstance(b, Amount):
                    amount = operated(expr.op, a, b)
                    return self._unknown(expr.op, guess) if amount is None else amount
                folded = fold_int(expr.op, int(a), int(b), dt.scalar_of(expr.a.dtype))
                return folded if folded is not None else 0
            case Select(condition=condition, true_value=then, false_value=other):
                return self._chosen(condition, then, other, guess)
            case Call(op="if_then_else", args=(condition, then, other)):
                return self._chosen(condition, then, other, guess)
            case Call(op="likely", args=(inner,)):
                return self.number(inner, guess=guess)
            case _:
                return 0

    def _chosen(self, condition: Expr, then: Expr, other: Expr, guess: bool) -> Number:
        decided = self.number(condition, guess=guess)
        if isinstance(decided, Amount):
            return self._unknown("a choice", guess)
        return self.number(then if decided else other, guess=guess)

    def _unknown(self, what: str, guess: bool) -> Number:
        """0 for a guess. Raises ArgumentError elsewhere."""
        if guess:
            return 0
        raise ArgumentError(f"the estimate depends on {what} of symbolic sizes", hint="give the sizes")


def _known(number: Number) -> float:
    assert not isinstance(number, Amount), "every size was given"
    return number


def _middle(first: Number, extent: Number) -> Number:
    """The value of a loop's variable half way through."""
    most = at_least(extent - 1, 0)
    half = most // 2 if not isinstance(most, Amount) else most.combined("floordiv", 2, natural=True)
    return first + half


def _in_registers(body: Stmt, most: int) -> frozenset[Buffer]:
    """Temporaries that a compiler keeps in registers: of ``most`` bytes, and accessed at places known beforehand."""
    unrolled: set[Var] = set()
    kept: dict[Buffer, bool] = {}
    for node in walk(body):
        if isinstance(node, For):
            short = isinstance(node.extent, IntImm) and node.extent.value <= _UNROLLED_TURNS
            if short or node.kind in ("unrolled", "vectorized"):
                unrolled.add(node.var)
        elif isinstance(node, Allocate):
            size = reduce(lambda n, e: n * (e.value if isinstance(e, IntImm) else math.inf), node.buffer.shape, 1.0)
            kept[node.buffer] = size * dt.itemsize(node.buffer.dtype) <= most
        elif isinstance(node, (BufferLoad, BufferStore)) and kept.get(node.buffer):
            used = (n for index in node.indices for n in walk(index))
            kept[node.buffer] = not any(
                isinstance(n, BufferLoad) or (isinstance(n, Var) and n not in unrolled) for n in used
            )
    return frozenset(buffer for buffer, is_kept in kept.items() if is_kept)


def _is_one(expr: Expr) -> bool:
    return isinstance(expr, IntImm) and expr.value == 1
