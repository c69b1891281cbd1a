"""crossfarm: build IRModules for any device, lease a real one, run and measure them there.

::

    import crossfarm as cf

    mod = cf.load("matmul.py")
    with cf.connect() as farm:
        artifact = farm.build(mod, target="llvm")
        with farm.acquire("kind=cpu") as device:
            c = device.load(artifact)["main"](a, b)

Names are loaded on first use, so that an agent on a board never imports what only a client needs. The client itself
lives in ``clients.sdk``; this is the one place that names it (by string: see docs/decisions.md).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from crossfarm import errors as _errors
from crossfarm._version import __version__

if TYPE_CHECKING:
    from crossfarm.artifact import Artifact as Artifact
    from crossfarm.frontends import load as load
    from crossfarm.frontends.tvmscript import parse as parse
    from crossfarm.ir import te as te
    from crossfarm.ir.function import PrimFunc as PrimFunc
    from crossfarm.ir.module import IRModule as IRModule
    from crossfarm.ir.schedule.schedule import Schedule as Schedule
    from crossfarm.ir.structural import structural_equal as structural_equal
    from crossfarm.ir.structural import structural_hash as structural_hash
    from crossfarm.ir.verify import verify as verify
    from crossfarm.target import Target as Target

_LAZY = {
    "Artifact": "crossfarm.artifact",
    "IRModule": "crossfarm.ir.module",
    "PrimFunc": "crossfarm.ir.function",
    "Schedule": "crossfarm.ir.schedule.schedule",
    "Target": "crossfarm.target",
    "connect": "clients.sdk",
    "load": "crossfarm.frontends",
    "parse": "crossfarm.frontends.tvmscript",
    "structural_equal": "crossfarm.ir.structural",
    "structural_hash": "crossfarm.ir.structural",
    "verify": "crossfarm.ir.verify",
}
_MODULES = {"te": "crossfarm.ir.te"}
_ERRORS = _errors.all_errors()

__all__ = ["__version__", *sorted(_LAZY), *sorted(_MODULES), *sorted(_ERRORS)]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value: Any = importlib.import_module(_MODULES[name])
    elif name in _LAZY:
        value = getattr(importlib.import_module(_LAZY[name]), name)
    elif name in _ERRORS:
        value = _ERRORS[name]
    else:
        raise AttributeError(f"module 'crossfarm' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
