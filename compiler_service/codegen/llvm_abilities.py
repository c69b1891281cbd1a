"""What a target's CPU does by instructions that others lack, as code generation asks for it."""

from __future__ import annotations

from dataclasses import dataclass

from compiler_service.codegen.llvm_dot import DotProducts
from compiler_service.codegen.llvm_half import HalfConversions
from crossfarm.target import Target


@dataclass(frozen=True)
class Abilities:
    """Of one target.

    Attributes:
        half: conversions of float16.
        dots: dot products of bytes.
        scales: whether there is an instruction that multiplies by powers of two, vectors too (AVX-512: ``vscalefps``).
    """

    half: HalfConversions
    dots: DotProducts
    scales: bool

    @classmethod
    def of(cls, target: Target) -> Abilities:
        """Those of a target with all its attributes."""
        enabled = target.enabled_features()
        arch = str(target.attributes["arch"])
        aarch64 = arch == "aarch64"
        half = HalfConversions(from_single=aarch64 or "f16c" in enabled, from_double=aarch64)
        return cls(half, DotProducts.of(arch, enabled), "avx512f" in enabled)
