"""What a well-formed module is, as code: one function a rule, each with a name that its errors carry.

``verify`` runs before and after each pass in tests and wherever a module comes from outside. The rules are in
``functions``, ``statements``, ``blocks`` and ``expressions``; ``walk`` brings each node to its rules with what is
in scope there; ``scope`` says what that is. Those of graph functions are in ``graph_types``, ``graph_bindings`` and
``graph_calls``, with ``graph_walk`` to bring nodes there.
"""

from __future__ import annotations

import crossfarm.ir.verify.blocks  # these register their rules
import crossfarm.ir.verify.expressions
import crossfarm.ir.verify.functions
import crossfarm.ir.verify.graph_bindings
import crossfarm.ir.verify.graph_calls
import crossfarm.ir.verify.graph_types
import crossfarm.ir.verify.statements  # noqa: F401
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.module import IRModule
from crossfarm.ir.verify.calls import verify_calls
from crossfarm.ir.verify.graph_walk import verify_graph_calls, verify_graph_function
from crossfarm.ir.verify.rule import RULES, Rule
from crossfarm.ir.verify.walk import verify_function, verify_names

__all__ = ["RULES", "Rule", "verify"]


def verify(mod: IRModule) -> None:
    """Raises VerifyError for the first rule that ``mod`` breaks, naming the function, the node and the rule."""
    verify_names(mod)
    for name, func in mod.functions.items():
        if isinstance(func, PrimFunc):
            verify_function(name, func)
        else:
            verify_graph_function(mod, name, func)
    verify_calls(mod)
    verify_graph_calls(mod)
