"""A CPU has no thread groups: a function mapped to a GPU is refused by name, not run wrongly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from crossfarm.errors import BuildFailed
from crossfarm.ir.module import IRModule
from crossfarm.ir.stmt import For
from crossfarm.ir.visitor import walk

if TYPE_CHECKING:
    from crossfarm.target import Target


@dataclass(frozen=True)
class RefuseThreadBindings:
    """Raises BuildFailed for the first loop that is bound to a GPU's thread or block."""

    name: ClassVar[str] = "refuse_thread_bindings"

    def apply(self, module: IRModule, target: Target) -> IRModule:
        for name, func in module.prim_funcs.items():
            for node in walk(func.body):
                if isinstance(node, For) and node.kind == "thread_binding":
                    raise BuildFailed(
                        f"function {name!r} is mapped to a GPU: loop {node.var.name!r} is bound to {node.thread}, "
                        f"which target {target} does not have",
                        hint="build it for a GPU target, or build the version without thread bindings",
                    )
        return module
