"""Names: which local names stand for the dialects, and what every dialect's spelling means canonically.

A canonical name is ``tir.block``, ``ir.ir_module``, ``relax.function``: the dialect's module, a dot, its construct.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from crossfarm.frontends.tvmscript.source import Source

#: What script text may import, and the canonical module it stands for.
MODULES = {
    "tvm": "tvm",
    "tvm.script": "script",
    "tvm.script.ir": "ir",
    "tvm.script.tir": "tir",
    "tvm.script.tirx": "tir",
    "tvm.script.relax": "relax",
    "crossfarm": "crossfarm",
    "crossfarm.script": "script",
    "crossfarm.script.ir": "ir",
    "crossfarm.script.tir": "tir",
    "crossfarm.script.relax": "relax",
    "typing": "typing",
    "__future__": "__future__",
}
#: Modules that TVM's printer names in its header without the subset having a use for what they hold.
_IGNORED = ("tvm.tirx", "tvm.tir", "tvm.relax")

#: The names that stand for the dialects where nothing says otherwise (TVM prints its imports as comments).
DEFAULT_ALIASES = {"I": "ir", "T": "tir", "R": "relax", "TypeVar": "typing.TypeVar", "tvm": "tvm"}

#: Other spellings → the canonical one.
SPELLINGS = {
    "script.ir_module": "ir.ir_module",
    "tir.sblock": "tir.block",
    "tir.sblock_alloc_buffer": "tir.alloc_buffer",
    "tir.sblock_attr": "tir.block_attr",
    "tir.axis.S": "tir.axis.spatial",
    "tir.axis.R": "tir.axis.reduce",
    "tir.vectorize": "tir.vectorized",
    "tir.unrolled": "tir.unroll",
    "tir.buffer_decl": "tir.decl_buffer",
    "tir.let": "tir.Let",
    "tir.cast": "tir.astype",
    "tir.let_stmt": "tir.LetStmt",
    "tir.inf": "tir.infinity",
}

#: Constructs that are statements or parts of them; for "nearest known" and "has no place here".
STATEMENT_NAMES = (
    "block", "init", "where", "reads", "writes", "block_attr", "alloc_buffer", "match_buffer", "axis.remap",
    "axis.spatial", "axis.reduce", "axis.scan", "axis.opaque", "grid", "serial", "parallel", "vectorized", "unroll",
    "thread_binding", "launch_thread", "env_thread", "allocate", "decl_buffer", "LetStmt", "attr", "func_attr",
    "evaluate", "Assert", "Buffer", "handle", "prim_func", "buffer_store", "realize",
)  # fmt: skip

_HEADER_COMMENT = re.compile(r"^#\s*((?:from|import)\s.+)$")


@runtime_checkable
class Dialect(Protocol):
    """A Python object that stands for a dialect (``crossfarm.script.tir``) in a decorated definition's surroundings."""

    def canonical_name(self) -> str:
        """``tir``, ``ir`` or ``relax``."""
        ...


class Aliases:
    """Local name → canonical module or construct; filled from imports and from the header's commented imports."""

    def __init__(self, source: Source, captured: Mapping[str, Any] | None = None) -> None:
        self._source = source
        self._names = dict(DEFAULT_ALIASES)
        for name, value in (captured or {}).items():
            if isinstance(value, Dialect):  # one of crossfarm.script's namespaces under a name of the user's
                self._names[name] = value.canonical_name()
        self._read_header_comments()

    def add_import(self, node: ast.Import | ast.ImportFrom) -> None:
        """Takes an import statement in. Raises ScriptError for a module that is no part of the script language."""
        if isinstance(node, ast.Import):
            for item in node.names:
                self._known(item.name, node)
                if item.asname is None:
                    root = item.name.split(".")[0]
                    self._names[root] = MODULES[root]
                elif item.name in MODULES:
                    self._names[item.asname] = MODULES[item.name]
            return
        module = node.module or ""
        if node.level:
            raise self._refused("." * node.level + module, node)
        self._known(module, node)
        for item in node.names:
            if item.name == "*":
                raise self._source.error(node, "import * says nothing about names", construct="import")
            full = f"{module}.{item.name}"
            if full in MODULES:
                self._names[item.asname or item.name] = MODULES[full]
            elif module in MODULES:
                self._names[item.asname or item.name] = f"{MODULES[module]}.{item.name}"

    def resolve(self, node: ast.AST) -> str | None:
        """The canonical name of ``T.axis.remap`` and the like, or None for a name that is no dialect's."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id not in self._names:
            return None
        dotted = ".".join([self._names[node.id], *reversed(parts)])
        for prefix in ("tvm.script.", "crossfarm.script."):
            dotted = dotted.replace(prefix, "script.", 1) if dotted.startswith(prefix) else dotted
        for module in ("ir", "tir", "relax"):
            dotted = dotted.replace("script.tirx.", "script.tir.", 1)
            if dotted.startswith(f"script.{module}."):
                dotted = dotted.removeprefix("script.")
        return SPELLINGS.get(dotted, dotted)

    def is_alias(self, name: str) -> bool:
        return name in self._names

    def _known(self, module: str, node: ast.AST) -> None:
        if module not in MODULES and not any(module == m or module.startswith(m + ".") for m in _IGNORED):
            raise self._refused(module, node)

    def _refused(self, module: str, node: ast.AST) -> Exception:
        return self._source.error(
            node, f"import of {module}: a script is read, never executed, and uses nothing but the script language",
            construct=f"import {module}", hint="import only from tvm.script or crossfarm.script; "
            "write constants as numbers",
        )  # fmt: skip

    def _read_header_comments(self) -> None:
        # TVM prints `# from tvm.script import tir as T`, with whatever prefix its printer was told to use
        for line in self._source.text[:4096].splitlines()[:32]:
            match = _HEADER_COMMENT.match(line)
            if match is None:
                if line.strip() and not line.startswith("#"):
                    return
                continue
            try:
                node = ast.parse(match[1]).body[0]
            except (SyntaxError, ValueError):
                continue
            if isinstance(node, (ast.Import, ast.ImportFrom)) and self._only_known(node):
                self.add_import(node)

    def _only_known(self, node: ast.Import | ast.ImportFrom) -> bool:
        if isinstance(node, ast.ImportFrom):
            return node.level == 0 and node.module in MODULES and all(i.name != "*" for i in node.names)
        return all(i.name in MODULES for i in node.names)


def attribute_key(key: str) -> str:
    """A function or block attribute's key in the canonical dialect."""
    return "tir." + key.removeprefix("tirx.") if key.startswith("tirx.") else key


def is_dialect_name(name: str | None) -> bool:
    """True for a canonical name of the script's own modules."""
    return name is not None and name.split(".")[0] in ("tir", "ir", "relax", "script", "typing")
