"""Tensor intrinsics by name: what ``tensorize`` looks for in a program, and what it puts there.

An intrinsic is two functions with the same buffer parameters: ``desc`` describes a computation as plain loops around a
block, ``impl`` does the same by other means. Built in are dot products of 8-bit integers, ``dot_<L>x4_<a><b>i32`` for L
of 4, 8 and 16 and ``a`` and ``b`` of ``i8`` and ``u8``::

    for i, k in T.grid(L, 4):                                        C[0:L] = T.dot4(C[0:L], (A[0:4],) * L, B[0:4 * L])
        with T.block("update"):
            vi, vk = T.axis.remap("SR", [i, k])
            C[vi] = C[vi] + T.Cast("int32", A[vk]) * T.Cast("int32", B[vi * 4 + vk])

They are right on every target: the compiler uses an instruction where the target has one (VNNI on x86, the dot product
extensions of aarch64). L is best the number of int32 lanes in a vector register.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from crossfarm.errors import ScheduleError
from crossfarm.ir import dtype as dt
from crossfarm.ir import ops
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Binary, Broadcast, BufferLoad, Call, Expr, IntImm, Ramp, Range, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.module import IRModule
from crossfarm.ir.regions import infer_accesses
from crossfarm.ir.stmt import Block, BlockRealize, BufferStore, For, IterVar, Stmt
from crossfarm.ir.verify import verify


@dataclass(frozen=True)
class TensorIntrin:
    """A computation and its implementation.

    Attributes:
        desc: loops around one or more blocks that touch all of every parameter.
        impl: the same computation; its parameters have the dtypes and constant shapes of ``desc``'s.
    """

    name: str
    desc: PrimFunc
    impl: PrimFunc


def register(name: str, desc: PrimFunc, impl: PrimFunc, *, override: bool = False) -> TensorIntrin:
    """Adds an intrinsic to the table of this process; that ``impl`` does what ``desc`` says is the caller's promise.

    Args:
        override: replace one of that name.

    Raises:
        VerifyError: one of the functions is not well-formed.
        ScheduleError: the name is taken, or the two do not fit each other or are not of the form described above.
    """
    if not override and (name in _registered or _BUILT_IN.fullmatch(name)):
        raise ScheduleError(f"there is already an intrinsic {name!r}", hint="pass override=True to replace it")
    for func in (desc, impl):
        verify(IRModule({"main": func}))
    problem = _mismatch(desc, impl)
    if problem is not None:
        raise ScheduleError(f"intrinsic {name!r}: {problem}")
    _registered[name] = TensorIntrin(name, desc, impl)
    return _registered[name]


def lookup(name: str) -> TensorIntrin:
    """The intrinsic of that name. Raises ScheduleError listing those there are."""
    found = _registered.get(name)
    if found is not None:
        return found
    match = _BUILT_IN.fullmatch(name)
    if match is None:
        reason = f"there is no intrinsic {name!r}; there are: {', '.join(names())}"
        raise ScheduleError(f"tensorize: {reason}", primitive="tensorize", reason=reason)
    lanes, a, b = int(match["lanes"]), _DTYPES[match["a"]], _DTYPES[match["b"]]
    return _registered.setdefault(name, TensorIntrin(name, _dot_desc(lanes, a, b), _dot_impl(lanes, a, b)))


def names() -> list[str]:
    """Every name that ``lookup`` knows, sorted."""
    built_in = {dot_name(lanes, a, b) for lanes in _LANES for a in _DTYPES.values() for b in _DTYPES.values()}
    return sorted(built_in | set(_registered))


def dot_name(lanes: int, a: str, b: str) -> str:
    """The name of the built-in dot product of ``lanes`` sums, for factors of dtypes ``a`` and ``b``."""
    short = {dtype: text for text, dtype in _DTYPES.items()}
    return f"dot_{lanes}x4_{short[a]}{short[b]}i32"


_LANES = (4, 8, 16)
_DTYPES = {"i8": "int8", "u8": "uint8"}
_BUILT_IN = re.compile(r"dot_(?P<lanes>4|8|16)x4_(?P<a>[iu]8)(?P<b>[iu]8)i32")
_registered: dict[str, TensorIntrin] = {}
_TRUE = IntImm(1, "bool")


def _mismatch(desc: PrimFunc, impl: PrimFunc) -> str | None:
    """What keeps two functions from being an intrinsic, or None."""
    if len(desc.params) != len(impl.params):
        return f"desc has {len(desc.params)} parameters and impl {len(impl.params)}"
    for a, b in zip(desc.params, impl.params):
        if not isinstance(a, Buffer) or not isinstance(b, Buffer):
            return f"parameter {a.name if isinstance(b, Buffer) else b.name} is not a buffer"
        shape = [_size(e) for e in a.shape]
        if None in shape:
            return f"the shape of {a.name} in desc is not constant"
        if a.dtype != b.dtype or shape != [_size(e) for e in b.shape]:
            return f"parameter {a.name} of desc is not like {b.name} of impl"
    for what, func in (("desc", desc), ("impl", impl)):
        if not isinstance(func.body, BlockRealize):
            return f"{what} is in lowered form"
        if func.body.block.init is not None:
            return f"{what} has an init"
    assert isinstance(desc.body, BlockRealize)
    touched = infer_accesses(desc.body.block.body)
    for param in desc.params:
        assert isinstance(param, Buffer)
        regions = [r.region for r in (*touched.reads, *touched.writes) if r.buffer is param]
        whole = [[(0, _size(e)) for e in param.shape]]
        if [[(_size(r.min), _size(r.extent)) for r in region] for region in regions[:1]] != whole:
            return f"desc does not touch all of {param.name}"
    return None


def _size(extent: Expr) -> int | None:
    return extent.value if isinstance(extent, IntImm) else None


def _parameters(lanes: int, a: str, b: str) -> tuple[Buffer, Buffer, Buffer]:
    return (
        Buffer("A", (IntImm(4),), a),
        Buffer("B", (IntImm(4 * lanes),), b),
        Buffer("C", (IntImm(lanes),), "int32"),
    )


def _function(params: tuple[Buffer, Buffer, Buffer], body: Stmt) -> PrimFunc:
    accesses = infer_accesses(body)
    return PrimFunc(params, BlockRealize((), _TRUE, Block("root", (), accesses.reads, accesses.writes, body)))


def _dot_desc(lanes: int, a: str, b: str) -> PrimFunc:
    params = factor, factors, sums = _parameters(lanes, a, b)
    v_i, v_k = Var("v_i"), Var("v_k")
    target = BufferLoad(sums, (v_i,))
    column = Binary("add", Binary("mul", v_i, IntImm(4)), v_k)
    product = ops.mul(ops.cast(BufferLoad(factor, (v_k,)), "int32"), ops.cast(BufferLoad(factors, (column,)), "int32"))
    store = BufferStore(sums, ops.add(target, product), (v_i,))
    accesses = infer_accesses(store)
    i, k = Var("i"), Var("k")
    axes = (
        IterVar(v_i, Range(IntImm(0), IntImm(lanes)), "spatial"),
        IterVar(v_k, Range(IntImm(0), IntImm(4)), "reduce"),
    )
    block = Block("update", axes, accesses.reads, accesses.writes, store)
    inner = For(k, IntImm(0), IntImm(4), BlockRealize((i, k), _TRUE, block))
    return _function(params, For(i, IntImm(0), IntImm(lanes), inner))


def _dot_impl(lanes: int, a: str, b: str) -> PrimFunc:
    params = factor, factors, sums = _parameters(lanes, a, b)

    def vector(buffer: Buffer) -> Expr:
        return BufferLoad(buffer, (Ramp(IntImm(0), IntImm(1), _elements(buffer)),))

    word = Call("reinterpret", (vector(factor),), "int32")
    repeated = Call("reinterpret", (Broadcast(word, lanes),), dt.with_lanes(a, 4 * lanes))
    total = Call("dot4", (vector(sums), repeated, vector(factors)), dt.with_lanes("int32", lanes))
    return _function(params, BufferStore(sums, total, (Ramp(IntImm(0), IntImm(1), lanes),)))


def _elements(buffer: Buffer) -> int:
    (extent,) = buffer.shape
    assert isinstance(extent, IntImm)
    return extent.value
