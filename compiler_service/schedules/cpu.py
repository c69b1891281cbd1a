"""What rules know of a CPU: everything from the target, with stated guesses for what it leaves open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crossfarm.ir import dtype as dt

if TYPE_CHECKING:
    from crossfarm.target import Target

_KIB = 1 << 10
#: Caches of a core that a target does not tell, by architecture: small enough for nearly every core in use.
_USUAL_CACHES = {"x86_64": (32 * _KIB, 512 * _KIB), "aarch64": (32 * _KIB, 256 * _KIB)}
_SMALLEST_CACHES = (16 * _KIB, 128 * _KIB)
#: Threads of a target that does not tell.
USUAL_THREADS = 8


@dataclass(frozen=True)
class Cpu:
    """The numbers that tiles are computed from.

    Attributes:
        arch: as in the target.
        features: enabled ones, LLVM's names.
        vector_bytes: width of the widest vector to use; at least that of one scalar register, 8.
        vector_registers: how many of these an instruction can name.
        l1_bytes, l2_bytes: data caches of one core.
        l3_bytes: the shared cache; 0 where the target does not tell.
        threads: hardware threads that the target tells, else 0.
    """

    arch: str
    features: frozenset[str]
    vector_bytes: int
    vector_registers: int
    l1_bytes: int
    l2_bytes: int
    l3_bytes: int
    threads: int

    @classmethod
    def of(cls, target: Target) -> Cpu:
        """The numbers of a CPU target."""
        at = target.attributes
        arch, features = str(at["arch"]), target.enabled_features()
        l1, l2 = _USUAL_CACHES.get(arch, _SMALLEST_CACHES)
        return cls(
            arch=arch,
            features=features,
            vector_bytes=max(_number(target, "vector_bits", 64) // 8, 8),
            vector_registers=32 if arch == "aarch64" or "avx512f" in features else 16,
            l1_bytes=_number(target, "l1_bytes", l1),
            l2_bytes=_number(target, "l2_bytes", l2),
            l3_bytes=_number(target, "l3_bytes", 0),
            threads=_number(target, "threads", _number(target, "cores", 0)),
        )

    def lanes(self, dtype: str) -> int:
        """Elements of ``dtype`` in one vector."""
        return max(self.vector_bytes // dt.itemsize(dtype), 1)


def _number(target: Target, name: str, default: int) -> int:
    value = target.attributes.get(name)
    return value if isinstance(value, int) and value > 0 else default
