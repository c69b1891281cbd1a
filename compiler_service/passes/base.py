"""What a pass is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Protocol

from crossfarm.ir.calls import is_caller
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.module import IRModule

if TYPE_CHECKING:
    from crossfarm.target import Target


class Pass(Protocol):
    """One named IRModule → IRModule step; a frozen dataclass whose fields are its options."""

    name: ClassVar[str]

    def apply(self, module: IRModule, target: Target) -> IRModule:
        """The transformed module; the argument is never changed. Raises crossfarm.errors.Error on refusal."""
        ...


def map_functions(module: IRModule, transform: Callable[[str, PrimFunc], PrimFunc]) -> IRModule:
    """The module with ``transform(name, function)`` applied to each tensor program; the same module if none changed.

    Functions that do nothing but call others have nothing to transform.
    """
    functions = {
        name: transform(name, func) if isinstance(func, PrimFunc) and not is_caller(func) else func
        for name, func in module.functions.items()
    }
    if all(functions[name] is func for name, func in module.functions.items()):
        return module
    return module.with_functions(functions)
