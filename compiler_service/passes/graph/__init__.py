"""From graph functions over tensors to calls of tensor programs.

``LOWER_GRAPH_STEPS`` is the order. ``lower_operators`` leaves only calls of PrimFuncs (``CallTIR``), items of what they
give, and ``reshape``, which is no work; ``lower_graph`` makes PrimFuncs of the functions that do nothing else.
"""

from __future__ import annotations

from compiler_service.passes.base import Pass
from compiler_service.passes.graph.fuse_operators import FuseOperators
from compiler_service.passes.graph.lift_constants import LiftConstants
from compiler_service.passes.graph.lower_graph import LowerGraph
from compiler_service.passes.graph.lower_operators import LowerOperators

#: Modules without graph functions pass through unchanged.
LOWER_GRAPH_STEPS: tuple[Pass, ...] = (LiftConstants(), FuseOperators(), LowerOperators(), LowerGraph())
