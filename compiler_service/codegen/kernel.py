"""What the code generators of devices with thread groups are given: one kernel, taken apart.

``split_kernels`` makes kernels as private functions of the module, whose body begins with the loops bound to thread
indices; ``Kernel.of`` reads one. The rest of the body is what one thread does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compiler_service.passes.insert_barriers import is_barrier
from compiler_service.passes.split_kernels import GROUP_TAGS, THREAD_TAGS
from crossfarm.errors import BuildFailed
from crossfarm.ir import dtype as dt
from crossfarm.ir.arith import const_int
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import Expr, IntImm, Var
from crossfarm.ir.stmt import Allocate, BufferStore, For, Stmt
from crossfarm.ir.visitor import walk

if TYPE_CHECKING:
    from crossfarm.ir.function import Param, PrimFunc
    from crossfarm.target import Target


#: Groups along one axis that no device exceeds.
_MOST_GROUPS = (1 << 31) - 1


@dataclass(frozen=True)
class Kernel:
    """One kernel.

    Attributes:
        name: its symbol, of letters, digits and underscores, unique in the module.
        params: buffers of global memory, then scalars.
        written: those buffers that it stores to.
        threads: what each index variable is: ``blockIdx.x`` … ``threadIdx.z``; its value starts at 0.
        grid: thread groups along x, y, z, as expressions of the scalars (not negative).
        group: threads of a group along x, y, z.
        shared: buffers that the threads of a group share, of constant shape; allocated nowhere in ``body``.
        body: lowered statements without loops bound to threads. ``Allocate`` is a thread's own memory, of constant
            shape. ``Evaluate(Call("storage_sync", …))`` is a barrier for the group's threads and orders their accesses
            of shared and global memory; all threads of the group reach it.
        noalias: no two buffers overlap.
    """

    name: str
    params: tuple[Param, ...]
    written: frozenset[Buffer]
    threads: Mapping[Var, str]
    grid: tuple[Expr, Expr, Expr]
    group: tuple[int, int, int]
    shared: tuple[Buffer, ...]
    body: Stmt
    noalias: bool = False

    @classmethod
    def of(cls, name: str, func: PrimFunc) -> Kernel:
        """The kernel that ``func``, made by ``split_kernels``, is."""
        body, threads, extents = func.body, {}, {}
        while isinstance(body, For) and body.kind == "thread_binding":
            threads[body.var] = body.thread
            extents[body.thread] = body.extent
            body = body.body
        shared = []
        while isinstance(body, Allocate) and body.buffer.scope == "shared":
            shared.append(body.buffer)
            body = body.body
        one = IntImm(1, "int32")
        gx, gy, gz = (extents.get(tag, one) for tag in GROUP_TAGS)
        tx, ty, tz = (const_int(extents.get(tag, one)) or 0 for tag in THREAD_TAGS)
        written = frozenset(node.buffer for node in walk(body) if isinstance(node, BufferStore))
        params = {p for p in func.params if isinstance(p, Buffer)}
        flag = func.attrs.get("tir.noalias", False)
        noalias = bool(flag.value) if isinstance(flag, IntImm) else bool(flag)
        return cls(
            name, func.params, written & params, threads, (gx, gy, gz), (tx, ty, tz), tuple(shared), body, noalias
        )

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """The parameters that are buffers, in order."""
        return tuple(p for p in self.params if isinstance(p, Buffer))

    @property
    def scalars(self) -> tuple[Var, ...]:
        """The parameters that are scalars, in order."""
        return tuple(p for p in self.params if isinstance(p, Var))

    @property
    def shared_bytes(self) -> int:
        """What the threads of a group share, each buffer aligned to 16 bytes."""
        return sum(-(-elements(b) * dt.itemsize(b.dtype) // 16) * 16 for b in self.shared)

    def is_distinct(self, buffer: Buffer) -> bool:
        """Whether nothing else reaches the buffer's memory while a thread runs.

        Where the group's threads wait for one another they may exchange values through a buffer that is written: to
        each of them the others' accesses are such a way.
        """
        return self.noalias and not (buffer in self.written and any(is_barrier(n) for n in walk(self.body)))

    def last_index(self, tag: str) -> int:
        """The largest value of the index ``tag``; what no device exceeds where the grid's size is symbolic."""
        if tag in THREAD_TAGS:
            return self.group[THREAD_TAGS.index(tag)] - 1
        count = const_int(self.grid[GROUP_TAGS.index(tag)])
        return _MOST_GROUPS if count is None else count - 1

    def scalar_dtypes(self) -> frozenset[str]:
        """Scalar dtypes of everything that it computes, loads and stores."""
        nodes = [*walk(self.body), *self.params]
        return frozenset(dt.scalar_of(n.dtype) for n in nodes if isinstance(n, (Expr, Buffer)))

    def computes_float64(self, target: Target) -> bool:
        """Raises BuildFailed where it does and the target has none."""
        if "float64" not in self.scalar_dtypes():
            return False
        if not target.attributes.get("fp64", False):
            raise BuildFailed(
                f"kernel {self.name!r} computes in float64, which target {target} does not have",
                hint="use float32, or say that the device has it: fp64=true",
                details={"feature": "float64"},
            )
        return True

    @property
    def threads_per_group(self) -> int:
        x, y, z = self.group
        return x * y * z


def elements(buffer: Buffer) -> int:
    """How many elements a buffer of constant shape has, the gaps between padded rows included."""
    if not buffer.shape:
        return 1
    if buffer.strides:
        return 1 + sum((_constant(e) - 1) * _constant(s) for e, s in zip(buffer.shape, buffer.strides))
    count = 1
    for extent in buffer.shape:
        count *= _constant(extent)
    return count


def _constant(expr: Expr) -> int:
    value = const_int(expr)
    assert value is not None, "a buffer inside a kernel has a constant shape: split_kernels saw to it"
    return value
