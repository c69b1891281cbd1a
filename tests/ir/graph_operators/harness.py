"""An operator's row against itself: infer, reference and lowering must tell the same of a case.

::

    n = Var("n", "int64")
    check(Case("permute_dims", (x,), {"axes": (1, 0)}))
    check(Case("permute_dims", (x,), {"axes": (1, 0)}, shapes=((n, 3),), sizes={n: 5}))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import crossfarm as cf
from crossfarm import te
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import fold_int
from crossfarm.ir.expr import Binary, Expr, IntImm, Var
from crossfarm.ir.graph import dims, operators
from crossfarm.ir.graph.types import TensorType
from crossfarm.ir.interpreter import run
from crossfarm.ir.module import IRModule
from crossfarm.ir.visitor import substitute

Array = np.ndarray[Any, np.dtype[Any]]
#: Runs function "main" of a module: by the interpreter, or by what a code generator made of it.
Runner = Callable[[IRModule, Sequence[Any]], None]

#: Relative and absolute error that a dtype's own rounding explains.
TOLERANCE = {"float64": (1e-9, 1e-12), "float32": (2e-5, 1e-6), "float16": (2e-3, 1e-4), "bfloat16": (1.6e-2, 1e-3)}


@dataclass(frozen=True)
class Case:
    """One use of an operator.

    Attributes:
        inputs: None for an optional one that is left out.
        attrs: as a call gives them; ``dims`` may name the Vars of ``sizes``.
        shapes: types' shapes where they are not the arrays' own: with Vars in them.
        sizes: what the Vars are in this case.
        tolerance: relative and absolute; what the result's dtype explains where None.
    """

    operator: str
    inputs: tuple[Array | None, ...] = ()
    attrs: Mapping[str, Any] = field(default_factory=dict)
    shapes: tuple[tuple[dims.Dim, ...], ...] | None = None
    sizes: Mapping[Var, int] = field(default_factory=dict)
    tolerance: tuple[float, float] | None = None

    def __str__(self) -> str:
        given = ",".join("-" if x is None else f"{x.dtype.name}{list(x.shape)}" for x in self.inputs)
        attrs = ",".join(f"{k}={dims.text(v) if _has_exprs(v) else v}" for k, v in self.attrs.items())
        return f"{self.operator}({';'.join(t for t in (given, attrs) if t)}{';symbolic' if self.sizes else ''})"


def array(dtype: str, *shape: int, low: float = -4, high: float = 4, seed: int = 0) -> Array:
    """Random values from ``low`` up to ``high``, none negative for unsigned dtypes, either for bool."""
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        return np.asarray(rng.random(shape) < 0.5)
    if dt.is_int(dtype):
        return np.asarray(rng.integers(max(int(low), dt.int_range(dtype)[0]), int(high), shape), dt.to_numpy(dtype))
    return np.asarray(rng.random(shape) * (high - low) + low).astype(dt.to_numpy(dtype))


def interpret(module: IRModule, args: Sequence[Any]) -> None:
    """By the reference interpreter."""
    run(module, "main", args)


def check(case: Case, runner: Runner = interpret) -> None:
    """Fails where shapes or dtypes differ between infer and reference, or values between reference and lowering."""
    row = operators.get(case.operator)
    attrs = row.complete(case.attrs)
    given = [x for x in case.inputs if x is not None]
    row.check_inputs(len(given))
    types = _types(case)
    present = [t for t in types if t is not None]
    inferred = row.infer(present, attrs)
    numbers = {k: _numbers(v, case.sizes) for k, v in attrs.items()}
    with np.errstate(all="ignore"):
        wanted = row.reference(given, numbers)
    assert len(inferred) == len(wanted), f"{case}: infer says {len(inferred)} results, reference gives {len(wanted)}"
    for kind, want in zip(inferred, wanted):
        shape = tuple(_number(d, case.sizes) for d in kind.shape)
        said, made = f"{kind.dtype}{shape}", f"{want.dtype.name}{want.shape}"
        assert said == made, f"{case}: infer says {said}, reference gives {made}"
        assert all(d.dtype == "int64" for d in kind.shape), f"{case}: a dimension is no int64 expression"

    placeholders = [te.placeholder(t.shape, t.dtype, f"x{k}") for k, t in enumerate(present)]
    results = row.compute(placeholders, attrs, inferred)
    assert [r.dtype for r in results] == [t.dtype for t in inferred], f"{case}: compute gives {results}"
    for tensor, kind in zip(results, inferred):
        assert dims.same_shape(tensor.shape, kind.shape), f"{case}: compute gives {tensor}"
    free = _free_sizes(case, [*placeholders, *results])
    module = IRModule({"main": te.create_prim_func([*placeholders, *free, *results])})
    cf.verify(module)
    got = [np.frombuffer(b"\xa5" * max(w.nbytes, 1), np.uint8).copy() for w in wanted]
    outputs = [g[: w.nbytes].view(w.dtype).reshape(w.shape) for g, w in zip(got, wanted)]
    before = [x.copy() for x in given]
    runner(module, [*given, *(case.sizes[v] for v in free), *outputs])
    for kept, x in zip(before, given):
        assert kept.tobytes() == x.tobytes(), f"{case}: an input was changed"
    for position, (output, want) in enumerate(zip(outputs, wanted)):
        same_values(output, want, f"{case}: result {position}", case.tolerance)


def by_operator(cases: Iterable[Case]) -> pytest.MarkDecorator:
    """Calls the test with all cases of one operator: looking for what a test leaves behind costs more than a case."""
    groups: dict[str, list[Case]] = {}
    for case in cases:
        groups.setdefault(case.operator, []).append(case)
    return pytest.mark.parametrize("cases", list(groups.values()), ids=list(groups))


def check_all(cases: Iterable[Case], runner: Runner = interpret) -> None:
    """``check`` of each; what fails says which."""
    for case in cases:
        try:
            check(case, runner)
        except Exception as failure:
            raise AssertionError(f"{case}: {type(failure).__name__}: {failure}") from failure


def same_values(got: Array, want: Array, what: str, tolerance: tuple[float, float] | None = None) -> None:
    """Fails where values differ by more than the dtype explains; NaN equals NaN."""
    name = want.dtype.name
    if name in TOLERANCE:
        relative, absolute = tolerance or TOLERANCE[name]
        a, b = got.astype(np.float64), want.astype(np.float64)
        np.testing.assert_allclose(a, b, rtol=relative, atol=absolute, err_msg=what)
    else:
        np.testing.assert_array_equal(got, want, err_msg=what)


def _types(case: Case) -> list[TensorType | None]:
    shapes = iter(case.shapes) if case.shapes is not None else None
    found: list[TensorType | None] = []
    for x in case.inputs:
        if x is None:
            found.append(None)
        else:
            shape = x.shape if shapes is None else next(shapes)
            found.append(TensorType(dims.dims(shape), dt.from_numpy(x.dtype)))
    return found


def _free_sizes(case: Case, tensors: Sequence[te.Tensor]) -> list[Var]:
    """Sizes that the function needs as scalar arguments: those that are no dimension of a parameter."""
    known = {d for t in tensors for d in t.shape if isinstance(d, Var)}
    return [v for v in case.sizes if v not in known]


def _numbers(value: Any, sizes: Mapping[Var, int]) -> Any:
    if isinstance(value, tuple):
        return tuple(_numbers(v, sizes) for v in value)
    return _number(value, sizes) if isinstance(value, Expr) else value


def _number(dimension: dims.Dim, sizes: Mapping[Var, int]) -> int:
    if isinstance(dimension, int):
        return dimension
    return _folded(substitute(dimension, {v: IntImm(s, "int64") for v, s in sizes.items()}))


def _folded(expr: Expr) -> int:
    if isinstance(expr, IntImm):
        return expr.value
    assert isinstance(expr, Binary), expr
    value = fold_int(expr.op, _folded(expr.a), _folded(expr.b), expr.dtype)
    assert value is not None
    return value


def _has_exprs(value: Any) -> bool:
    return isinstance(value, tuple) and any(isinstance(v, Expr) for v in value)
