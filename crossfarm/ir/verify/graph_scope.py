"""What is in scope at a node of a graph function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from crossfarm.ir.graph.expr import GraphVar
from crossfarm.ir.module import AnyFunction
from crossfarm.ir.verify.scope import Scope


@dataclass
class GraphScope(Scope):
    """State of the walk; symbolic sizes are ``variables`` and ``once_variables``.

    Attributes:
        functions: of the module.
        values: variables that are bound here; ``once_values`` also those of branches that ended.
        pure: nothing here may have an effect beyond its value.
    """

    functions: Mapping[str, AnyFunction] = field(default_factory=dict)
    values: set[GraphVar] = field(default_factory=set)
    once_values: set[GraphVar] = field(default_factory=set)
    pure: bool = True

    def bind(self, var: GraphVar) -> None:
        """``var`` is bound from here on."""
        self.values.add(var)
        self.once_values.add(var)
