"""Functions made of a body alone."""

from __future__ import annotations

from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import IntImm
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.regions import infer_accesses
from crossfarm.ir.stmt import Block, BlockRealize, Stmt


def whole_function(params: tuple[Buffer, ...], body: Stmt, own: tuple[Buffer, ...] = ()) -> PrimFunc:
    """A function in block form of ``body``, which has the buffers ``own`` to itself."""
    accesses = infer_accesses(body)
    reads = tuple(r for r in accesses.reads if r.buffer not in own)
    writes = tuple(w for w in accesses.writes if w.buffer not in own)
    root = Block("root", (), reads, writes, body, alloc_buffers=own)
    return PrimFunc(params, BlockRealize((), IntImm(1, "bool"), root))
