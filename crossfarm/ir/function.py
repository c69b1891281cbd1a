"""``PrimFunc``: a tensor program. Graph functions are in ``crossfarm.ir.graph``."""

from __future__ import annotations

from dataclasses import dataclass, field

from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Var
from crossfarm.ir.stmt import Annotations, Stmt

Param = Buffer | Var
#: Attributes that script text may have but that repeat what every function here is; reading drops them.
REDUNDANT_ATTRIBUTES = ("s_tir", "tir.s_tir")


@dataclass(frozen=True, eq=False)
class PrimFunc:
    """A tensor program.

    Attributes:
        params: in order; a Buffer is a tensor argument (the handle that TVMScript matches it to has no node of its
            own), a Var a scalar argument. Symbolic sizes are the Vars that are bare dimensions (or strides, or
            offsets) of buffer parameters and are not parameters themselves; the first such use defines them.
        body: block form (a ``root`` BlockRealize) or lowered form, see ``crossfarm.ir.stmt``.
        attrs: as ``{"tir.noalias": True}``; keys in the canonical dialect (``tir.``).
        private: not callable from outside the module.
    """

    params: tuple[Param, ...]
    body: Stmt
    attrs: Annotations = field(default_factory=dict)
    private: bool = False
