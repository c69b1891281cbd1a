"""Vector code taken apart into scalar code, for devices whose lanes are threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from compiler_service.passes.base import map_functions
from crossfarm.errors import BuildFailed
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import const_int, wrap
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Binary, Broadcast, BufferLoad, Call, Cast, Expr, IntImm, Let, Not, Ramp, Select, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.module import IRModule
from crossfarm.ir.stmt import Allocate, BufferStore, Evaluate, For, LetStmt, Stmt
from crossfarm.ir.visitor import Mutator, seq, walk

if TYPE_CHECKING:
    from crossfarm.target import Target

#: Calls whose lanes are not those of their arguments.
_ACROSS_LANES = ("dot4", "reinterpret")


@dataclass(frozen=True)
class ScalarizeVectors:
    """Afterwards no expression has a vector dtype. A vector store becomes a store for each lane, in their order.

    What a language's vectors do well may stay: floats that are loaded side by side, added and multiplied, and stored
    side by side; and elements that are only copied.

    All lanes of a value are computed before the first is stored where that could change what the others load.

    Args:
        max_unrolled: a store of more lanes becomes a loop over them, where its lanes are alike.
        kept_lanes: how many lanes the vectors may have that stay.
    """

    name: ClassVar[str] = "scalarize_vectors"
    max_unrolled: int = 16
    kept_lanes: tuple[int, ...] = ()

    def apply(self, module: IRModule, target: Target) -> IRModule:
        return map_functions(module, self._scalarize)

    def _scalarize(self, name: str, func: PrimFunc) -> PrimFunc:
        flag = func.attrs.get("tir.noalias", False)
        distinct = bool(flag.value) if isinstance(flag, IntImm) else bool(flag)
        shared = frozenset() if distinct else frozenset(p for p in func.params if isinstance(p, Buffer))
        body = _Scalarizer(name, self, shared).mutate(func.body)
        return func if body is func.body else replace(func, body=body)


class _Scalarizer(Mutator):
    """Rewrites a function's body.

    Args:
        shared: buffers that may be the same memory.
    """

    def __init__(self, function: str, options: ScalarizeVectors, shared: frozenset[Buffer]) -> None:
        self.function = function
        self.max_unrolled = options.max_unrolled
        self.kept_lanes = options.kept_lanes
        self.shared = shared
        self.lanes_of_var: dict[Var, list[Var]] = {}
        self.renamed: dict[Var, Var] = {}

    # --- statements

    def mutate_BufferStore(self, node: BufferStore) -> Stmt:
        lanes = max(dt.lanes_of(node.value.dtype), *(dt.lanes_of(i.dtype) for i in node.indices), 1)
        if lanes == 1:
            return self.mutate_children(node)
        if lanes in self.kept_lanes and is_plain_vector_store(node, lanes):
            return node
        hazard = self._reads(node.buffer, (node.value, *node.indices))
        if lanes > self.max_unrolled and self._lanes_are_alike((node.value, *node.indices)):
            return self._looped(node, lanes, hazard)
        positions = [IntImm(k, "int32") for k in range(lanes)]
        values = [self.lane(node.value, k) for k in positions]
        places = [tuple(self.lane(i, k) for i in node.indices) for k in positions]
        if not hazard:
            return seq(*(BufferStore(node.buffer, v, at) for v, at in zip(values, places)))
        names = [Var(f"lane_{k}", v.dtype) for k, v in enumerate(values)]
        moved = [[self._named(i, f"at_{k}") for i in at] for k, at in enumerate(places)]
        stores = (BufferStore(node.buffer, n, tuple(v for v, _ in at)) for n, at in zip(names, moved))
        result = seq(*stores)
        for var, value in reversed([*zip(names, values), *(pair for at in moved for pair in at)]):
            if isinstance(var, Var) and var is not value:
                result = LetStmt(var, value, result)
        return result

    def _named(self, index: Expr, name: str) -> tuple[Expr, Expr]:
        """The index and itself, or a variable for it where it loads what the stores may change."""
        if any(isinstance(n, BufferLoad) for n in walk(index)):
            return Var(name, index.dtype), index
        return index, index

    def _looped(self, node: BufferStore, lanes: int, hazard: bool) -> Stmt:
        def loop(body: Callable[[Var], Stmt]) -> Stmt:
            lane = Var("lane", "int32")
            return For(lane, IntImm(0, "int32"), IntImm(lanes, "int32"), body(lane))

        def store(buffer: Buffer, value: Callable[[Var], Expr], at: Callable[[Var], tuple[Expr, ...]]) -> Stmt:
            return loop(lambda lane: BufferStore(buffer, value(lane), at(lane)))

        def value(lane: Var) -> Expr:
            return self.lane(node.value, lane)

        def place(lane: Var) -> tuple[Expr, ...]:
            return tuple(self.lane(i, lane) for i in node.indices)

        if not hazard:
            return store(node.buffer, value, place)
        if any(isinstance(n, BufferLoad) for i in node.indices for n in walk(i)):
            raise BuildFailed(
                f"function {self.function!r}: a store of {lanes} lanes into {node.buffer.name!r} takes its places from "
                "memory that it may change",
                hint="load the indices into a buffer of their own before",
            )
        kept = Buffer(f"{node.buffer.name}_lanes", (IntImm(lanes, "int32"),), node.buffer.dtype, scope="local")
        fill = store(kept, value, lambda lane: (lane,))
        return Allocate(kept, seq(fill, store(node.buffer, lambda lane: BufferLoad(kept, (lane,)), place)))

    def mutate_LetStmt(self, node: LetStmt) -> Stmt:
        lanes = dt.lanes_of(node.var.dtype)
        if lanes == 1:
            return self.mutate_children(node)
        scalar = dt.scalar_of(node.var.dtype)
        values = [self.lane(node.value, IntImm(k, "int32")) for k in range(lanes)]
        names = self.lanes_of_var[node.var] = [Var(f"{node.var.name}_{k}", scalar) for k in range(lanes)]
        result = self.mutate(node.body)
        for name, value in zip(reversed(names), reversed(values)):
            result = LetStmt(name, value, result)
        return result

    def mutate_Evaluate(self, node: Evaluate) -> Stmt:
        lanes = dt.lanes_of(node.value.dtype)
        if lanes == 1:
            return self.mutate_children(node)
        return seq(*(Evaluate(self.lane(node.value, IntImm(k, "int32"))) for k in range(lanes)))

    def _reads(self, buffer: Buffer, nodes: tuple[Expr, ...]) -> bool:
        same = self.shared if buffer in self.shared else (buffer,)
        return any(isinstance(n, BufferLoad) and n.buffer in same for e in nodes for n in walk(e))

    def _lanes_are_alike(self, nodes: tuple[Expr, ...]) -> bool:
        return not any(
            (isinstance(n, Var) and n in self.lanes_of_var) or (isinstance(n, Call) and n.op in _ACROSS_LANES)
            for e in nodes
            for n in walk(e)
        )

    # --- scalars made of vectors

    def mutate_Call(self, node: Call) -> Expr:
        if dt.lanes_of(node.dtype) == 1 and any(dt.lanes_of(a.dtype) > 1 for a in node.args):
            return self.lane(node, IntImm(0, "int32"))
        return self.mutate_children(node)

    def mutate_Let(self, node: Let) -> Expr:
        return self._bound(node, lambda: self.mutate(node.body))

    def mutate_Var(self, node: Var) -> Expr:
        return self.renamed.get(node, node)

    # --- one lane of a vector

    def lane(self, node: Expr, k: Expr) -> Expr:
        """Lane ``k`` of a vector; of a scalar itself. ``k`` is a variable only where all lanes are alike."""
        if dt.lanes_of(node.dtype) == 1 and not isinstance(node, Call):
            return self.mutate(node)
        method: Callable[[Expr, Expr], Expr] = getattr(self, f"_lane_{type(node).__name__}")
        return method(node, k)

    def _lane_Var(self, node: Var, k: Expr) -> Expr:
        number = const_int(k)
        if node not in self.lanes_of_var or number is None:
            raise BuildFailed(
                f"function {self.function!r}: vector {node.name!r} is used where it is not defined",
                hint="vectors are bound by lets inside the function",
            )
        return self.lanes_of_var[node][number]

    def _lane_Ramp(self, node: Ramp, k: Expr) -> Expr:
        base, stride, number = self.mutate(node.base), self.mutate(node.stride), const_int(k)
        dtype = node.base.dtype
        if number == 0:
            return base
        if number is not None and (step := const_int(stride)) is not None:
            offset: Expr = IntImm(wrap(step * number, dtype), dtype)
        else:
            lane: Expr = k if dtype == k.dtype else Cast(k, dtype)
            if number is not None:
                lane = IntImm(wrap(number, dtype), dtype)
            offset = lane if const_int(stride) == 1 else Binary("mul", lane, stride)
        return offset if const_int(base) == 0 else Binary("add", base, offset)

    def _lane_Broadcast(self, node: Broadcast, k: Expr) -> Expr:
        return self.mutate(node.value)

    def _lane_Binary(self, node: Binary, k: Expr) -> Expr:
        return Binary(node.op, self.lane(node.a, k), self.lane(node.b, k))

    def _lane_Not(self, node: Not, k: Expr) -> Expr:
        return Not(self.lane(node.a, k))

    def _lane_Cast(self, node: Cast, k: Expr) -> Expr:
        return Cast(self.lane(node.value, k), dt.scalar_of(node.dtype))

    def _lane_Select(self, node: Select, k: Expr) -> Expr:
        return Select(self.lane(node.condition, k), self.lane(node.true_value, k), self.lane(node.false_value, k))

    def _lane_Let(self, node: Let, k: Expr) -> Expr:
        return self._bound(node, lambda: self.lane(node.body, k))

    def _bound(self, node: Let, body: Callable[[], Expr]) -> Expr:
        """A let with new variables, as each lane has one: of a vector, the lanes that the body uses, one by one."""
        if dt.lanes_of(node.var.dtype) == 1:
            value = self.mutate(node.value)
            var = self.renamed[node.var] = Var(node.var.name, node.var.dtype)
            return Let(var, value, body())
        lanes, scalar = dt.lanes_of(node.var.dtype), dt.scalar_of(node.var.dtype)
        names = self.lanes_of_var[node.var] = [Var(f"{node.var.name}_{k}", scalar) for k in range(lanes)]
        result = body()
        used = {n for n in walk(result) if isinstance(n, Var)}
        for k, name in reversed(list(enumerate(names))):
            if name in used:
                result = Let(name, self.lane(node.value, IntImm(k, "int32")), result)
        return result

    def _lane_BufferLoad(self, node: BufferLoad, k: Expr) -> Expr:
        return BufferLoad(node.buffer, tuple(self.lane(i, k) for i in node.indices))

    def _lane_Call(self, node: Call, k: Expr) -> Expr:
        if node.op in _ACROSS_LANES and any(dt.lanes_of(a.dtype) > 1 for a in (*node.args, node)):
            number = const_int(k)
            assert number is not None, "stores of such calls are unrolled"
            return self._dot4(node, number) if node.op == "dot4" else self._reinterpret(node, number)
        return Call(node.op, tuple(self.lane(a, k) for a in node.args), dt.scalar_of(node.dtype))

    def _dot4(self, node: Call, k: int) -> Expr:
        total, a, b = node.args
        result = self.lane(total, IntImm(k, "int32"))
        for position in range(4 * k, 4 * k + 4):
            at = IntImm(position, "int32")
            product = Binary("mul", Cast(self.lane(a, at), "int32"), Cast(self.lane(b, at), "int32"))
            result = Binary("add", result, product)
        return result

    def _reinterpret(self, node: Call, k: int) -> Expr:
        """Through unsigned integers: lanes are cut out of wider ones, or put together, the lowest lowest."""
        (value,) = node.args
        source, target = dt.scalar_of(value.dtype), dt.scalar_of(node.dtype)
        have, want = dt.bits(source), dt.bits(target)
        if have == want:
            return Call("reinterpret", (self.lane(value, IntImm(k, "int32")),), target)
        bits = f"uint{want}"
        if have > want:
            per = have // want
            word = _as(self.lane(value, IntImm(k // per, "int32")), f"uint{have}")
            return _as(Cast(Binary("shr", word, IntImm(k % per * want, word.dtype)), bits), target)
        per = want // have
        result: Expr | None = None
        for part in range(per):
            piece: Expr = Cast(_as(self.lane(value, IntImm(k * per + part, "int32")), f"uint{have}"), bits)
            if part:
                piece = Binary("shl", piece, IntImm(part * have, bits))
            result = piece if result is None else Binary("bitor", result, piece)
        assert result is not None
        return _as(result, target)


def _as(value: Expr, dtype: str) -> Expr:
    """The same bits."""
    return value if value.dtype == dtype else Call("reinterpret", (value,), dtype)


def has_vectors(node: Stmt) -> bool:
    """True where something in ``node`` is a vector."""
    return any(isinstance(n, Expr) and n.dtype != "handle" and dt.lanes_of(n.dtype) > 1 for n in walk(node))


def is_plain_vector_store(node: BufferStore, lanes: int) -> bool:
    """True for what vectors of every language with such do: see ``ScalarizeVectors``."""
    return (
        dt.lanes_of(node.value.dtype) == lanes
        and node.buffer.dtype in _PLAIN
        and _is_side_by_side(node.buffer, node.indices)
        and _is_plain(node.value, arithmetic=node.buffer.dtype in _COMPUTED)
    )


#: Elements of vectors that stay: those that are copied, and those that are computed with.
_COMPUTED = ("float32", "float64")
_PLAIN = (*_COMPUTED, "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


def _is_side_by_side(buffer: Buffer, indices: tuple[Expr, ...]) -> bool:
    """One element after the other, from an offset that one lane tells."""
    *outer, last = indices
    step = isinstance(last, Ramp) and const_int(last.stride) == 1
    compact = not buffer.strides or const_int(buffer.strides[-1]) == 1
    return step and compact and all(dt.lanes_of(i.dtype) == 1 for i in outer)


def _is_plain(value: Expr, *, arithmetic: bool) -> bool:
    if isinstance(value, BufferLoad):
        return _is_side_by_side(value.buffer, value.indices)
    if not arithmetic:
        return False
    if isinstance(value, Broadcast):
        return not any(dt.lanes_of(n.dtype) > 1 for n in walk(value.value) if isinstance(n, Expr))
    if isinstance(value, Binary) and value.op in ("add", "sub", "mul"):
        return _is_plain(value.a, arithmetic=True) and _is_plain(value.b, arithmetic=True)
    return False
