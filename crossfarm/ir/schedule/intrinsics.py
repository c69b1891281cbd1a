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

Also built in are transposes of square tiles, ``transpose_<N>x<N>_<dtype>`` for N of 2, 4, 8 and 16:
``B[i, j] = A[j, i]``, by whole vectors, in one step for each power of two below N.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from crossfarm.errors import ScheduleError
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Expr, IntImm
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.module import IRModule
from crossfarm.ir.regions import infer_accesses
from crossfarm.ir.schedule.dot_products import dot_functions, dot_names
from crossfarm.ir.schedule.transposes import transpose_functions, transpose_names
from crossfarm.ir.stmt import BlockRealize
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
    if not override and (name in _registered or _built_in(name)):
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
    functions = _built_in(name)
    if functions is None:
        reason = f"there is no intrinsic {name!r}; there are: {', '.join(names())}"
        raise ScheduleError(f"tensorize: {reason}", primitive="tensorize", reason=reason)
    return _registered.setdefault(name, TensorIntrin(name, *functions))


def names() -> list[str]:
    """Every name that ``lookup`` knows, sorted."""
    built_in = {name for listed, _ in _BUILT_IN for name in listed()}
    return sorted(built_in | set(_registered))


#: Names, and description and implementation by name, of what is built in.
_BUILT_IN: tuple[tuple[Callable[[], list[str]], Callable[[str], tuple[PrimFunc, PrimFunc] | None]], ...] = (
    (dot_names, dot_functions),
    (transpose_names, transpose_functions),
)
_registered: dict[str, TensorIntrin] = {}


def _built_in(name: str) -> tuple[PrimFunc, PrimFunc] | None:
    return next((functions for _, make in _BUILT_IN if (functions := make(name)) is not None), None)


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
