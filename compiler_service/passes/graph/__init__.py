"""From graph functions over tensors to calls of tensor programs.

``LOWER_GRAPH_STEPS`` is the order. ``lift_constants`` makes constants trailing parameters, and of what depends on them
alone a second function; ``lower_operators`` leaves only calls of PrimFuncs (``CallTIR``), items of what they give, and
``reshape``, which is no work; ``lower_graph`` makes PrimFuncs of the functions that do nothing else.
"""

from __future__ import annotations

from compiler_service.passes.base import Pass
from compiler_service.passes.graph.eliminate_dead_code import EliminateDeadCode
from compiler_service.passes.graph.fold_batch_norm import FoldBatchNorm
from compiler_service.passes.graph.fold_constants import FoldConstants
from compiler_service.passes.graph.fuse_operators import FuseOperators
from compiler_service.passes.graph.inline_functions import InlineFunctions
from compiler_service.passes.graph.lift_constants import LiftConstants
from compiler_service.passes.graph.lower_graph import LowerGraph
from compiler_service.passes.graph.lower_operators import LowerOperators
from compiler_service.passes.graph.resolve_casts import ResolveCasts
from compiler_service.passes.graph.resolve_conditionals import ResolveConditionals
from compiler_service.passes.graph.simplify_graph import SimplifyGraph

#: Modules without graph functions pass through unchanged.
LOWER_GRAPH_STEPS: tuple[Pass, ...] = (
    InlineFunctions(),
    ResolveCasts(),
    FoldConstants(),
    ResolveConditionals(),
    SimplifyGraph(),
    EliminateDeadCode(),
    FoldBatchNorm(),
    FoldConstants(),
    SimplifyGraph(),
    EliminateDeadCode(),
    LiftConstants(),
    FuseOperators(),
    LowerOperators(),
    LowerGraph(),
)
