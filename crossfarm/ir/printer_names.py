"""Names in printed text: each variable and buffer gets one that is unique among those alive, and a Python name."""

from __future__ import annotations

import keyword
import re

from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Var
from crossfarm.ir.graph.expr import GraphVar
from crossfarm.ir.naming import free_name

#: Names the text itself uses.
_TAKEN = frozenset({"T", "I", "R", "tvm", "TypeVar", "range", "metadata", "cls", "True", "False", "None"})
#: What has a name.
Named = Var | Buffer | GraphVar
_NOT_NAME = re.compile(r"\W", re.ASCII)


def python_name(name: str) -> str:
    """The nearest Python identifier."""
    name = _NOT_NAME.sub("_", name) or "v"
    if name[0].isdigit():
        name = f"v_{name}"
    return f"{name}_" if keyword.iskeyword(name) or name in _TAKEN else name


class Names:
    """Scoped names. What is asked for without having been defined (ill-formed IR) gets a name for good."""

    def __init__(self) -> None:
        self._by_node: dict[Named, str] = {}
        self._used: set[str] = set()
        self._scopes: list[list[Named]] = [[]]

    def define(self, node: Named) -> str:
        """A fresh name for ``node`` until the scope ends."""
        if node in self._by_node:
            return self._by_node[node]
        name = self.reserve(node.name)
        self._by_node[node] = name
        self._scopes[-1].append(node)
        return name

    def reserve(self, wanted: str) -> str:
        """A fresh name that stands for no node."""
        name = free_name(python_name(wanted), self._used)
        self._used.add(name)
        return name

    def __getitem__(self, node: Named) -> str:
        if node not in self._by_node:
            self._by_node[node] = self.reserve(node.name)
        return self._by_node[node]

    def __contains__(self, node: object) -> bool:
        return node in self._by_node

    def push(self) -> None:
        """Opens a scope."""
        self._scopes.append([])

    def pop(self) -> None:
        """Ends the innermost scope: its names are free again."""
        for node in self._scopes.pop():
            self._used.discard(self._by_node.pop(node))
