"""The reference interpreter: it defines what the IR means, and every code generator is checked against it.

It needs numpy alone (and ``ml_dtypes`` for programs that use bfloat16). ``arithmetic`` and ``intrinsics`` say what
operators do, ``expressions`` and ``statements`` compile a function once into Python closures, ``nests`` runs loops as
numpy arrays where their order provably does not matter, ``arguments`` binds what the caller gives, ``programs`` calls
PrimFuncs. ``graph`` evaluates graph functions by what their operators' rows say, ``values`` holds their values to their
types.

Every access is checked against its buffer's shape. Temporaries start as NaN, or as bits that make a bad index, so that
a program relying on memory it never wrote shows.
"""

from __future__ import annotations

from crossfarm.ir.interpreter.graph import evaluate as evaluate
from crossfarm.ir.interpreter.programs import run as run

__all__ = ["evaluate", "run"]
