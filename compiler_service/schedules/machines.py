"""What rules know of a machine: everything from the target, with stated guesses for what it leaves open."""

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
#: Threads that a load of neighbouring elements is shared by, where a GPU does not say how many run in lockstep.
_USUAL_WARP = 32
#: Multiprocessors of a GPU that does not tell.
_USUAL_UNITS = 16


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


@dataclass(frozen=True)
class Gpu:
    """The numbers that groups of threads and their tiles are computed from.

    Attributes:
        kind: of the target: ``opencl``, ``cuda`` or ``vulkan``.
        threads: of one group at most.
        shared_bytes: memory that the threads of a group share.
        warp: threads that run in lockstep, or a guess.
        units: multiprocessors, or a guess.
        is_cpu: whether cores run the groups: shared memory is no faster than other memory, and a barrier is dear.
        fp16: whether it computes in half precision.
    """

    kind: str
    threads: int
    shared_bytes: int
    warp: int
    units: int
    is_cpu: bool
    fp16: bool

    @classmethod
    def of(cls, target: Target) -> Gpu:
        """The numbers of a GPU target."""
        threads = _number(target, "max_threads_per_group", 1)
        warp = max(_number(target, "warp_size", 1), _number(target, "subgroup_size", 1))
        return cls(
            kind=target.kind,
            threads=threads,
            shared_bytes=max(_number(target, "shared_bytes", 0), 0),
            warp=min(warp if warp > 1 else _USUAL_WARP, threads),
            units=_number(target, "compute_units", _USUAL_UNITS),
            is_cpu=target.attributes.get("device_type") == "cpu",
            fp16=bool(target.attributes.get("fp16", False)),
        )

    @property
    def loops_over_threads(self) -> bool:
        """Whether a core runs a group's threads one after the other: then one thread a group is best, whose own inner
        loops become vectors. Vulkan's drivers for CPUs make threads the lanes of vectors instead."""
        return self.is_cpu and self.kind == "opencl"

    def group(self, wanted: int) -> int:
        """A number of threads that a group can have: ``wanted`` or fewer, a power of two."""
        return 1 << (max(min(wanted, self.threads), 1).bit_length() - 1)


def machine_of(target: Target) -> Cpu | Gpu:
    """The numbers of a target, by its kind."""
    return Cpu.of(target) if target.kind == "llvm" else Gpu.of(target)


def _number(target: Target, name: str, default: int) -> int:
    value = target.attributes.get(name)
    return value if isinstance(value, int) and value > 0 else default
