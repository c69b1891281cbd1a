"""IRModule: names to functions, the unit that is built, saved and sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from crossfarm.errors import InvalidModule, NoSuchFunction
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.graph.expr import Function
from crossfarm.ir.stmt import Annotations

if TYPE_CHECKING:
    from os import PathLike

#: A tensor program or a graph function.
AnyFunction = PrimFunc | Function


@dataclass(frozen=True, eq=False)
class IRModule:
    """An immutable mapping of names to functions with attributes (``I.module_attrs``); order is insertion order.

    ``==`` is identity: use ``crossfarm.structural_equal``.
    """

    functions: Mapping[str, AnyFunction]
    attrs: Annotations = field(default_factory=dict)
    name: str = field(default="Module", kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "functions", MappingProxyType(dict(self.functions)))

    def __getitem__(self, name: str) -> AnyFunction:
        """The function ``name``. Raises NoSuchFunction listing those there are."""
        try:
            return self.functions[name]
        except KeyError:
            known = ", ".join(self.functions) or "none"
            raise NoSuchFunction(f"module {self.name!r} has no function {name!r}; it has: {known}") from None

    def prim_func(self, name: str) -> PrimFunc:
        """The tensor program ``name``. Raises NoSuchFunction, InvalidModule where it is a graph function."""
        found = self[name]
        if not isinstance(found, PrimFunc):
            raise InvalidModule(f"{name!r} of module {self.name!r} is a graph function, not a tensor program")
        return found

    @property
    def prim_funcs(self) -> dict[str, PrimFunc]:
        """The tensor programs among the functions."""
        return {name: f for name, f in self.functions.items() if isinstance(f, PrimFunc)}

    @property
    def graph_functions(self) -> dict[str, Function]:
        """The graph functions among the functions."""
        return {name: f for name, f in self.functions.items() if isinstance(f, Function)}

    def with_functions(self, functions: Mapping[str, AnyFunction]) -> IRModule:
        """The same module with other functions."""
        return replace(self, functions=functions)

    def script(self) -> str:
        """The module as canonical script text, which parses back to a structurally equal module."""
        from crossfarm.ir.printer import print_module

        return print_module(self)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the module to ``path`` as ``.cfir``, atomically."""
        from crossfarm.ir.serialize import save_module

        save_module(self, path)
