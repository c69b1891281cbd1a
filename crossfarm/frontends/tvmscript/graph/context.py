"""What the parser knows while inside a graph function: values and sizes in scope, and the module around it."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from crossfarm.errors import InvalidModule, ScriptError
from crossfarm.frontends.tvmscript.context import FunctionContext, Value
from crossfarm.frontends.tvmscript.dialect import Aliases
from crossfarm.frontends.tvmscript.source import Source, nearest
from crossfarm.ir.graph.builder import Builder
from crossfarm.ir.graph.expr import GraphExpr, GraphVar
from crossfarm.ir.graph.types import Type


@dataclass
class ModuleNames:
    """The module that a function is in.

    Attributes:
        name: of its class; ``Module`` where functions stand alone.
        tensor_programs: names of its ``@T.prim_func``s.
        graph_functions: names of its ``@R.function``s.
        typed: those of them whose parameters and result are known so far, as Functions.
    """

    name: str
    tensor_programs: frozenset[str] = frozenset()
    graph_functions: frozenset[str] = frozenset()
    typed: dict[str, object] = field(default_factory=dict)


class GraphContext(FunctionContext):
    """State of parsing one graph function.

    Args:
        value: the grammar's entry for values, by which the constructs that values consist of come back to it.

    Attributes:
        builder: names and types what is bound, one for each body and branch.
        values: what names stand for, innermost scope last.
        modules: names that stand for the module (``cls``).
        in_dataflow: directly in a block of dataflow.
    """

    def __init__(
        self,
        source: Source,
        aliases: Aliases,
        captured: Mapping[str, Any],
        evaluate: Callable[[FunctionContext, ast.expr], Value],
        value: Callable[[GraphContext, ast.expr], GraphExpr],
        module: ModuleNames,
    ) -> None:
        super().__init__(source, aliases, captured, evaluate)
        self._value = value
        self.module = module
        self.builder = Builder(module.typed)
        self.values: list[dict[str, GraphVar]] = [{}]
        self.modules = {module.name}
        self.in_dataflow = False

    def value(self, node: ast.expr) -> GraphExpr:
        """A value as the text has it. Raises ScriptError for anything outside the subset."""
        return self._value(self, node)

    def atom(self, node: ast.expr) -> GraphExpr:
        """A value that a call may take: what is computed is bound to a variable first."""
        value = self.value(node)
        with self.placed(node):
            return self.builder.atom(value)

    def bind_value(self, node: ast.expr, label: str, type: Type | None = None) -> GraphVar:
        """A new variable for a value."""
        value = self.value(node)
        with self.placed(node):
            return self.builder.bind(value, label, type)

    def find(self, name: str) -> GraphVar | None:
        """The variable of that name, innermost scope first."""
        return next((scope[name] for scope in reversed(self.values) if name in scope), None)

    def is_local(self, name: str) -> bool:
        return name in self.modules or self.find(name) is not None or super().is_local(name)

    def undefined(self, node: ast.Name) -> Exception:
        if node.id in self.modules:
            return self.source.error(node, f"the module {node.id} is used as a value", construct=node.id)
        if self.find(node.id) is not None:
            return self.source.error(
                node, f"{node.id} is a value that is computed when the program runs, and no size", construct=node.id,
                hint="compute with operators: R.add(a, b); a size that is known then comes from R.match_cast",
            )  # fmt: skip
        known = {name for scope in self.values for name in scope} | {name for scope in self.scopes for name in scope}
        return self.source.error(
            node, f"undefined name {node.id!r}", construct=node.id,
            hint=nearest(node.id, known) or "what R.dataflow() computes ends with it unless R.output names it; "
            "a symbolic size is declared as n = T.int64()",
        )  # fmt: skip

    @contextmanager
    def placed(self, node: ast.AST) -> Iterator[None]:
        """Errors of the IR's constructors point at ``node``."""
        try:
            yield
        except ScriptError:
            raise
        except InvalidModule as error:
            raise self.source.wrap(node, error, self.named(node)) from None

    def named(self, node: ast.AST) -> str:
        """A construct as messages call it: ``R.add`` for a call of it."""
        func = node.func if isinstance(node, ast.Call) else node
        name = (self.resolve(func) or "") if isinstance(func, (ast.Attribute, ast.Name)) else ""
        if name.startswith("relax."):
            return "R." + name.removeprefix("relax.")
        return ast.unparse(func)[:60]

    def function_of_module(self, node: ast.AST) -> str | None:
        """``f`` of ``cls.f``, None for anything else."""
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in self.modules:
            return node.attr
        return None
