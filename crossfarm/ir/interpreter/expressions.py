"""Expressions → Python closures over an environment.

An environment is a list: a slot for each Var holds its value, a slot for each Buffer its array. A value is a numpy
scalar, or an array with one element for each lane of a loop that ``nests`` runs all at once; closures serve both. A
vector dtype's lanes are the only axis of its values, and loops around vector code run one by one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from crossfarm.errors import ProgramError
from crossfarm.ir import dtype as dt
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.calls import ProgramCall
from crossfarm.ir.expr import (
    Binary,
    Broadcast,
    BufferLoad,
    Call,
    Cast,
    Expr,
    FloatImm,
    IntImm,
    Let,
    Not,
    Ramp,
    Select,
    StringImm,
    Var,
)
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.interpreter import arithmetic, intrinsics
from crossfarm.ir.interpreter.arithmetic import Value
from crossfarm.ir.visitor import substitute, walk

Env = list[Any]
Evaluate = Callable[[Env], Value]
#: From a name, a function of the module and what runs it on arguments.
Callee = Callable[[str], tuple[PrimFunc, Callable[[list[Any]], None]]]

_DIVISIONS = ("div", "mod", "floordiv", "floormod")
_EFFECTS = ("call_extern", "call_pure_extern", "assume", "ret", "storage_sync", "prefetch", "call_function")


class ExprCompiler:
    """Compiles the expressions of one function and hands out the slots of its environment.

    Attributes:
        function: its name, for messages.
        bound: variables that something compiled so far binds; a match defines those that are not.
        calls: whether something compiled so far calls another function.
    """

    def __init__(self, function: str, callee: Callee | None = None) -> None:
        """``callee``: finds other functions of the module."""
        self.function = function
        self.calls = False
        self._callee = callee
        self.bound: set[Var] = set()
        self._slots: dict[Any, int] = {}
        self._risky: dict[Expr, bool] = {}

    def slot(self, name: Var | Buffer) -> int:
        """The place of a Var or Buffer in the environment."""
        return self._slots.setdefault(name, len(self._slots))

    def new_env(self) -> Env:
        return [None] * len(self._slots)

    def fail(self, message: str) -> ProgramError:
        return ProgramError(f"{message} in function {self.function!r}", details={"function": self.function})

    def compile(self, e: Expr) -> Evaluate:
        result: Evaluate = getattr(self, f"_compile_{type(e).__name__}")(e)
        return result

    def indices(self, buffer: Buffer, indices: tuple[Expr, ...]) -> Callable[[Env], tuple[Value, ...]]:
        """The indices of an access, checked against the array's shape."""
        parts, place = [self.compile(i) for i in indices], self.slot(buffer)

        def evaluate(env: Env) -> tuple[Value, ...]:
            index = tuple([part(env) for part in parts])
            shape = env[place].shape
            for axis, i in enumerate(index):
                if isinstance(i, np.ndarray):
                    inside = i.size == 0 or (i.min() >= 0 and i.max() < shape[axis])
                else:
                    inside = 0 <= i < shape[axis]
                if not inside:
                    raise self._out_of_bounds(buffer, index, shape, axis)
            return index

        return evaluate

    def _out_of_bounds(
        self, buffer: Buffer, index: tuple[Value, ...], shape: tuple[int, ...], axis: int
    ) -> ProgramError:
        lanes = np.broadcast_arrays(*index)
        first = np.flatnonzero((lanes[axis] < 0) | (lanes[axis] >= shape[axis]))[0]
        shown = ", ".join(str(int(i.flat[first])) for i in lanes)
        return self.fail(f"index ({shown}) is outside buffer {buffer.name!r} of shape {tuple(map(int, shape))}")

    def is_risky(self, e: Expr) -> bool:
        """True when evaluating ``e`` can fail or have an effect: it must not happen where the program would not."""
        known = self._risky.get(e)
        if known is None:
            known = any(
                isinstance(n, BufferLoad)
                or (isinstance(n, Binary) and n.op in _DIVISIONS and not dt.is_float(n.dtype))
                or (isinstance(n, Call) and n.op in _EFFECTS)
                for n in walk(e)
            )
            self._risky[e] = known
        return known

    def free_slots(self, nodes: Iterable[Any]) -> tuple[int, ...]:
        """Slots of the variables that ``nodes`` take from outside."""
        used: set[Var] = set()
        bound: set[Var] = set()
        for root in nodes:
            for n in walk(root):
                if isinstance(n, Var):
                    used.add(n)
                elif hasattr(n, "var"):  # loops, lets and axes
                    bound.add(n.var)
        return tuple(sorted(self.slot(v) for v in used - bound))

    def _compile_Var(self, e: Var) -> Evaluate:
        place = self.slot(e)
        return lambda env: env[place]

    def _compile_IntImm(self, e: IntImm | FloatImm) -> Evaluate:
        with np.errstate(all="ignore"):
            value = dt.to_numpy(e.dtype).type(e.value)
        return lambda env: value

    _compile_FloatImm = _compile_IntImm

    def _compile_Binary(self, e: Binary) -> Evaluate:
        if e.op in ("and", "or"):
            return self._logical(e)
        a, b, apply = self.compile(e.a), self.compile(e.b), arithmetic.binary(e.op, e.a.dtype)
        if e.op not in _DIVISIONS or dt.is_float(e.a.dtype):
            return lambda env: apply(a(env), b(env))

        def divide(env: Env) -> Value:
            try:
                return apply(a(env), b(env))
            except arithmetic.DivisionByZero:
                raise self.fail("integer division by zero") from None

        return divide

    def _logical(self, e: Binary) -> Evaluate:
        """``b`` counts only where ``a`` does not decide, so it may rely on ``a``: ``i < n and A[i] > 0``."""
        a, b = self.compile(e.a), self.compile(e.b)
        if not self.is_risky(e.b):
            combine = np.logical_and if e.op == "and" else np.logical_or
            return lambda env: combine(a(env), b(env))
        decided = IntImm(int(e.op == "or"), "bool")
        if_true, if_false = (e.b, decided) if e.op == "and" else (decided, e.b)
        return self._lazy(e.a, if_true, if_false, "bool", dt.lanes_of(e.dtype))

    def _compile_Not(self, e: Not) -> Evaluate:
        a = self.compile(e.a)
        return lambda env: np.logical_not(a(env))

    def _compile_Cast(self, e: Cast) -> Evaluate:
        value, convert = self.compile(e.value), arithmetic.cast(e.value.dtype, e.dtype)
        return lambda env: convert(value(env))

    def _compile_Select(self, e: Select) -> Evaluate:
        """Both values where that cannot fail, else only what is chosen: a select never fails for the other value."""
        if self.is_risky(e.true_value) or self.is_risky(e.false_value):
            return self._lazy(e.condition, e.true_value, e.false_value, e.dtype, dt.lanes_of(e.dtype))
        condition, a, b = self.compile(e.condition), self.compile(e.true_value), self.compile(e.false_value)

        def select(env: Env) -> Value:
            keep = condition(env)
            if isinstance(keep, np.ndarray):
                return np.where(keep, a(env), b(env))
            return a(env) if keep else b(env)

        return select

    def _lazy(self, condition: Expr, if_true: Expr, if_false: Expr, dtype: str, lanes: int) -> Evaluate:
        """Each value evaluated only for the lanes that choose it."""
        test, a, b = self.compile(condition), self.compile(if_true), self.compile(if_false)
        slots, to = self.free_slots((if_true, if_false)), dt.to_numpy(dtype)

        def choose(env: Env) -> Value:
            keep = test(env)
            if not isinstance(keep, np.ndarray):
                return a(env) if keep else b(env)
            if keep.all():
                return a(env)
            if not keep.any():
                return b(env)
            if lanes > 1:  # a vector's own lanes are not in the environment
                return np.where(keep, a(env), b(env))
            keep = spread(keep, env, slots)
            result = np.empty(keep.shape, to)
            result[keep] = a(only(keep, env, slots))
            result[~keep] = b(only(~keep, env, slots))
            return result

        return choose

    def _compile_Let(self, e: Let) -> Evaluate:
        place, value, body = self.slot(e.var), self.compile(e.value), self.compile(e.body)

        def let(env: Env) -> Value:
            env[place] = value(env)
            return body(env)

        return let

    def _compile_BufferLoad(self, e: BufferLoad) -> Evaluate:
        place, indices = self.slot(e.buffer), self.indices(e.buffer, e.indices)
        return lambda env: env[place][indices(env)]

    def _compile_Ramp(self, e: Ramp) -> Evaluate:
        base, stride = self.compile(e.base), self.compile(e.stride)
        steps = np.arange(e.lanes).astype(dt.to_numpy(e.base.dtype))
        return lambda env: base(env) + stride(env) * steps

    def _compile_Broadcast(self, e: Broadcast) -> Evaluate:
        value, lanes = self.compile(e.value), e.lanes
        return lambda env: np.broadcast_to(value(env), (lanes,))

    def _compile_StringImm(self, e: StringImm) -> Evaluate:
        return lambda env: e.value

    def _compile_Call(self, e: Call) -> Evaluate:
        match e.op:
            case "if_then_else":
                condition, if_true, if_false = e.args
                return self._lazy(condition, if_true, if_false, e.dtype, lanes=1)
            case "call_extern" | "call_pure_extern":
                return self._extern(e)
            case "address_of":
                return self._address(e)
            case "call_function":
                return self._function(e)
            case "assume":
                return self._assume(e)
            case "prefetch":
                return lambda env: np.int32(0)  # a hint
            case "storage_sync":
                return lambda env: np.int32(0)  # threads run one after the other; see statements.refuse_cooperation
            case "ret":
                return self._return(e)
        args, apply = [self.compile(a) for a in e.args], intrinsics.intrinsic(e.op, e.args[0].dtype, e.dtype)
        if len(args) == 1:
            (only_arg,) = args
            return lambda env: apply(only_arg(env))
        return lambda env: apply(*[a(env) for a in args])

    def _extern(self, e: Call) -> Evaluate:
        name = e.args[0].value if isinstance(e.args[0], StringImm) else ""
        args = [self.compile(a) for a in e.args[1:]]
        if name in ("memcpy", "memmove", "memset"):
            return lambda env: self._memory(name, *[a(env) for a in args])
        apply = intrinsics.extern(name)
        return lambda env: apply(*[a(env) for a in args])

    def _address(self, e: Call) -> Evaluate:
        """The bytes from an element to the end of its buffer, which must lie in one piece."""
        load = e.args[0]
        assert isinstance(load, BufferLoad)
        place, indices, name = self.slot(load.buffer), self.indices(load.buffer, load.indices), load.buffer.name

        def address(env: Env) -> Value:
            array = env[place]
            if not array.flags.c_contiguous:
                raise self.fail(f"the address of an element of buffer {name!r}, which is not compact, was taken")
            first = int(np.ravel_multi_index(tuple(int(i) for i in indices(env)), array.shape)) if array.ndim else 0
            return array.reshape(-1).view(np.uint8)[first * array.itemsize :]

        return address

    def _function(self, e: Call) -> Evaluate:
        """Another function, on parts of this one's memory under shapes of its own."""
        assert isinstance(e.args[0], StringImm)
        assert self._callee is not None
        name = e.args[0].value
        callee, run = self._callee(name)
        self.calls = True
        call = ProgramCall(name, e.args[1:])
        values = call.values(callee)
        elements = dict(call.buffers(callee))
        args = [
            self._part(elements[param], param, values) if isinstance(param, Buffer) else self.compile(values[param])
            for param in callee.params
        ]

        def evaluate(env: Env) -> Value:
            run([arg(env) for arg in args])
            return np.int32(0)

        return evaluate

    def _part(self, first: BufferLoad, param: Buffer, values: dict[Var, Expr]) -> Evaluate:
        """What a callee's parameter is, given the element that it begins with."""
        place, name, to = self.slot(first.buffer), first.buffer.name, dt.to_numpy(param.dtype)
        start = [self.compile(index) for index in first.indices]
        shape = [self.compile(substitute(extent, values)) for extent in param.shape]

        def part(env: Env) -> Value:
            array, sizes = env[place], [int(extent(env)) for extent in shape]
            if not array.flags.c_contiguous:
                raise self.fail(f"the address of an element of buffer {name!r}, which is not compact, was taken")
            at = 0
            for index, extent in zip(start, array.shape):
                at = at * extent + int(index(env))
            begin, count = at * array.itemsize, math.prod(sizes) * to.itemsize
            if min(begin, *sizes, 0) < 0 or begin + count > array.nbytes:
                raise self.fail(f"a call takes {count} bytes at {begin} of buffer {name!r}, which has {array.nbytes}")
            return array.reshape(-1).view(np.uint8)[begin : begin + count].view(to).reshape(sizes)

        return part

    def _memory(self, name: str, target: Value, source: Value, size: Value) -> Value:
        count = int(size)
        room = min(target.size, source.size if isinstance(source, np.ndarray) else count)
        if not 0 <= count <= room:
            raise self.fail(f"{name} of {count} bytes, where there are {room}")
        if isinstance(source, np.ndarray):
            target[:count] = source[:count].copy()
        else:
            target[:count] = int(source) & 0xFF
        return target

    def _assume(self, e: Call) -> Evaluate:
        test = self.compile(e.args[0])

        def check(env: Env) -> Value:
            if not np.all(test(env)):
                raise self.fail("an assumption (T.assume) does not hold")
            return np.int32(0)

        return check

    def _return(self, e: Call) -> Evaluate:
        value = self.compile(e.args[0])

        def leave(env: Env) -> Value:
            value(env)
            raise Returned

        return leave


class Returned(Exception):
    """``T.ret``: ends the function."""


def spread(keep: Value, env: Env, slots: tuple[int, ...]) -> Value:
    """``keep`` for every lane there is among ``slots``."""
    shapes = [env[s].shape for s in slots if isinstance(env[s], np.ndarray)]
    return np.broadcast_to(keep, np.broadcast_shapes(keep.shape, *shapes))


def only(keep: Value, env: Env, slots: tuple[int, ...]) -> Env:
    """The environment of the lanes in ``keep`` alone, in one axis."""
    narrowed = list(env)
    for s in slots:
        if isinstance(env[s], np.ndarray):
            narrowed[s] = np.broadcast_to(env[s], keep.shape)[keep]
    return narrowed
