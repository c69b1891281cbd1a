"""From graph functions over tensors to calls of tensor programs.

``LOWER_GRAPH_STEPS`` is the order. After it every public graph function has only calls of PrimFuncs (``CallTIR``),
items of what they give, and ``reshape``, which is no work.
"""

from __future__ import annotations

from compiler_service.passes.base import Pass
from compiler_service.passes.graph.lower_operators import LowerOperators

#: Modules without graph functions pass through unchanged.
LOWER_GRAPH_STEPS: tuple[Pass, ...] = (LowerOperators(),)
