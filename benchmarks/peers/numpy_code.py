"""numpy as a peer: its own matrix product and the usual compositions for the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.peers.serving import Array, PythonRunner, Runner, Unsupported, Work, inputs, serve


def prepare(work: Work) -> Runner:
    """The work as numpy code, its output written into an array that is there already."""
    try:
        make = _OPERATIONS[work["op"]]
    except KeyError:
        raise Unsupported(f"numpy has no {work['op']}") from None
    call, output = make(**work["sizes"])
    return PythonRunner(call, lambda: output)


def _matmul(batch: int, m: int, n: int, k: int) -> tuple[Callable[[], object], Array]:
    head = (batch,) if batch > 1 else ()
    a, b = inputs((*head, m, k), (*head, k, n))
    c = np.empty((*head, m, n), np.float32)
    return lambda: np.matmul(a, b, out=c), c


def _softmax(rows: int, columns: int) -> tuple[Callable[[], object], Array]:
    (x,) = inputs((rows, columns))
    y = np.empty_like(x)

    def call() -> None:
        np.subtract(x, x.max(axis=1, keepdims=True), out=y)
        np.exp(y, out=y)
        np.divide(y, y.sum(axis=1, keepdims=True), out=y)

    return call, y


def _layer_norm(rows: int, columns: int) -> tuple[Callable[[], object], Array]:
    x, w, b = inputs((rows, columns), (columns,), (columns,))
    y = np.empty_like(x)

    def call() -> None:
        np.subtract(x, x.mean(axis=1, keepdims=True), out=y)
        variance = np.einsum("ij,ij->i", y, y)[:, None] / np.float32(columns)
        np.multiply(y, 1 / np.sqrt(variance + np.float32(1e-5)), out=y)
        np.multiply(y, w, out=y)
        np.add(y, b, out=y)

    return call, y


def _transpose(rows: int, columns: int) -> tuple[Callable[[], object], Array]:
    (x,) = inputs((rows, columns))
    y = np.empty((columns, rows), np.float32)
    return lambda: np.copyto(y, x.T), y


def _sum(axis: str) -> Callable[..., tuple[Callable[[], object], Array]]:
    def make(rows: int, columns: int) -> tuple[Callable[[], object], Array]:
        (x,) = inputs((rows, columns))
        shape = {"last": (rows,), "first": (columns,), "all": ()}[axis]
        along = {"last": 1, "first": 0, "all": None}[axis]
        y = np.empty(shape, np.float32)
        return lambda: np.sum(x, axis=along, out=y), y

    return make


_OPERATIONS: dict[str, Callable[..., Any]] = {
    "matmul": _matmul,
    "softmax": _softmax,
    "layer_norm": _layer_norm,
    "transpose": _transpose,
    **{f"sum_{axis}": _sum(axis) for axis in ("last", "first", "all")},
}

if __name__ == "__main__":
    serve(f"numpy {np.__version__}", prepare)
