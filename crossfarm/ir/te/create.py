"""Tensors → PrimFunc in block form."""

from __future__ import annotations

from collections.abc import Sequence

from crossfarm.errors import InvalidModule
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import BufferLoad, Expr, IntImm, Let, Var
from crossfarm.ir.function import Param, PrimFunc
from crossfarm.ir.naming import free_name
from crossfarm.ir.regions import infer_accesses
from crossfarm.ir.stmt import Block, BlockRealize, BufferStore, For, IterVar, LetStmt, Stmt
from crossfarm.ir.te.reduction import Reduction
from crossfarm.ir.te.tensor import Computation, Tensor
from crossfarm.ir.te.value import Value
from crossfarm.ir.visitor import seq, substitute, walk

_TRUE = IntImm(1, "bool")


def create_prim_func(args: Sequence[Tensor | Value | Var]) -> PrimFunc:
    """The function that computes the listed tensors from the listed placeholders.

    Args:
        args: the parameters in order: every placeholder that is used, the results, and ``te.var`` values that are to
            be scalar arguments. Symbolic sizes that are dimensions of a parameter need not be listed.

    Raises:
        InvalidModule: a placeholder or size that is used but not listed, a parameter listed twice, nothing to compute,
            or an index that no axis of its compute defines.
    """
    params = tuple(_param(a) for a in args)
    if len(set(params)) < len(params):
        raise InvalidModule("a tensor is listed twice in create_prim_func")
    tensors = [a for a in args if isinstance(a, Tensor)]
    order = _in_order(tensors)
    if not order:
        raise InvalidModule("create_prim_func has nothing to compute", hint="list a result of te.compute")
    made = {t.buffer: t for t in _tensors(tensors)}
    results = _results_of(order, made)
    missing = [t.name for t in made.values() if t.computation is None and t.buffer not in params]
    if missing:
        raise InvalidModule(
            f"placeholder {missing[0]} is used but is not a parameter", hint="list it in create_prim_func"
        )
    temporaries = tuple(b for c in order for b in results[c] if b not in params)
    _check_variables(params, order)
    names = {"root"}  # the function's own block
    body = seq(*(_nest(c, results[c], _unique(c.name, names)) for c in order))
    root = Block("root", (), (), (), body, alloc_buffers=temporaries)
    return PrimFunc(params, BlockRealize((), _TRUE, root), {"tir.noalias": True})


def _param(arg: Tensor | Value | Var) -> Param:
    if isinstance(arg, Tensor):
        return arg.buffer
    expr = arg.expr if isinstance(arg, Value) else arg
    if not isinstance(expr, Var):
        raise InvalidModule(f"a parameter is a tensor or a te.var, not {type(arg).__name__}")
    return expr


def _tensors(roots: Sequence[Tensor]) -> list[Tensor]:
    """The tensors and everything they read, each once."""
    found: dict[Tensor, None] = {}
    stack = list(roots)
    while stack:
        tensor = stack.pop()
        if tensor not in found:
            found[tensor] = None
            if tensor.computation is not None:
                stack.extend(tensor.computation.reads)
    return list(found)


def _in_order(roots: Sequence[Tensor]) -> list[Computation]:
    """Computations, each after those it reads."""
    order: dict[Computation, None] = {}
    stack: list[tuple[Computation, bool]] = [(t.computation, False) for t in reversed(roots) if t.computation]
    while stack:
        computation, is_ready = stack.pop()
        if computation in order:
            continue
        if is_ready:
            order[computation] = None
            continue
        stack.append((computation, True))
        stack.extend((t.computation, False) for t in reversed(computation.reads) if t.computation)
    return list(order)


def _results_of(order: Sequence[Computation], made: dict[Buffer, Tensor]) -> dict[Computation, tuple[Buffer, ...]]:
    """Each computation's buffers; a result that nobody uses gets one too, as its block writes it."""
    results: dict[Computation, tuple[Buffer, ...]] = {}
    for computation in order:
        values = computation.results
        dtypes = [v.dtype for v in (values.values if isinstance(values, Reduction) else values)]
        used = {t.position: t.buffer for t in made.values() if t.computation is computation}
        shape = tuple(axis.dom.extent for axis in computation.axes)
        results[computation] = tuple(
            used.get(k) or Buffer(f"{computation.name}_v{k}", shape, dtype) for k, dtype in enumerate(dtypes)
        )
    return results


def _check_variables(params: tuple[Param, ...], order: Sequence[Computation]) -> None:
    known = {p for p in params if isinstance(p, Var)}
    known |= {d for p in params if isinstance(p, Buffer) for d in p.shape if isinstance(d, Var)}
    for computation in order:
        results = computation.results
        axes = [*computation.axes, *(results.axes if isinstance(results, Reduction) else ())]
        own = {axis.var for axis in axes}
        exprs: list[Expr] = [e for axis in axes for e in (axis.dom.min, axis.dom.extent)]
        for v in (v for e in exprs for v in walk(e) if isinstance(v, Var) and v not in known):
            raise InvalidModule(
                f"compute {computation.name}: the size {v.name} is not known in the function",
                hint="list it in create_prim_func, or make it a dimension of a parameter",
            )
        values = results.values if isinstance(results, Reduction) else results
        inside = [v for e in values for v in walk(e)]
        own |= {v.var for v in inside if isinstance(v, Let)}
        for v in (v for v in inside if isinstance(v, Var) and v not in known | own):
            raise InvalidModule(
                f"compute {computation.name}: {v.name} is none of its axes, and not known in the function",
                hint="reduce over it (te.sum(…, axis=…)), or list it in create_prim_func",
            )


def _unique(name: str, taken: set[str]) -> str:
    """``name``, or with the first free number after it; it is taken from then on."""
    found = free_name(name, taken)
    taken.add(found)
    return found


def _nest(computation: Computation, buffers: tuple[Buffer, ...], name: str) -> Stmt:
    """The loops of a computation around its block."""
    results = computation.results
    reduced = results.axes if isinstance(results, Reduction) else ()
    # a reduce axis may be used by several computations: each block has its own
    renewed = tuple(IterVar(Var(_axis_name(a.var.name), a.var.dtype), a.dom, a.kind) for a in reduced)
    axes = (*computation.axes, *renewed)
    indices: tuple[Expr, ...] = tuple(axis.var for axis in computation.axes)
    init: Stmt | None = None
    if isinstance(results, Reduction):
        mapping = {old.var: new.var for old, new in zip(reduced, renewed)}
        values = tuple(substitute(v, mapping) for v in results.values)
        current = tuple(Value(BufferLoad(b, indices)) for b in buffers)
        combined = results.combine(current, tuple(Value(v) for v in values))
        init = seq(*(BufferStore(b, start, indices) for b, start in zip(buffers, results.identity)))
        body = _stores(buffers, tuple(c.expr for c in combined), indices)
    else:
        body = seq(*(BufferStore(b, value, indices) for b, value in zip(buffers, results)))
    accesses = infer_accesses(body, init)
    block = Block(name, axes, accesses.reads, accesses.writes, body, init, annotations=computation.attrs)
    loops = [Var(axis.var.name.removeprefix("v_"), axis.var.dtype) for axis in axes]
    nest: Stmt = BlockRealize(tuple(loops), _TRUE, block)
    for loop, axis in zip(reversed(loops), reversed(axes)):
        nest = For(loop, axis.dom.min, axis.dom.extent, nest)
    return nest


def _axis_name(name: str) -> str:
    return name if name.startswith("v_") else f"v_{name}"


def _stores(buffers: tuple[Buffer, ...], values: tuple[Expr, ...], indices: tuple[Expr, ...]) -> Stmt:
    """Stores all results; of several, only after all are computed."""
    if len(buffers) == 1:
        return BufferStore(buffers[0], values[0], indices)
    lets = [Var(f"v_{b.name}", b.dtype) for b in buffers]
    body = seq(*(BufferStore(b, let, indices) for b, let in zip(buffers, lets)))
    for let, value in zip(reversed(lets), reversed(values)):
        body = LetStmt(let, value, body)
    return body
