"""A kernel of an artifact launched by pyopencl alone."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from benchmarks.devices.one_launch import OneLaunch
from benchmarks.peers.serving import Array


class BareOpenCl:
    """As a person writes it who knows pyopencl: arguments set once, an enqueue a call, ``finish`` at the end."""

    def __init__(self, launch: OneLaunch, device: str) -> None:
        os.environ.setdefault("PYOPENCL_NO_CACHE", "1")
        import pyopencl as cl

        self._cl = cl
        found = next(d for p in cl.get_platforms() for d in p.get_devices() if str(d.name).strip() == device)
        context = cl.Context([found])
        self._queue = cl.CommandQueue(context)
        flags = cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR
        buffers = [cl.Buffer(context, flags, hostbuf=array) for array in launch.arrays]
        self._buffers, self._result = buffers, launch.arrays[-1]  # a kernel does not keep its arguments alive
        self._kernel = cl.Kernel(cl.Program(context, launch.code.decode()).build(), launch.name)
        self._kernel.set_args(*(buffers[k] for k in launch.order))
        self._group = launch.group
        self._size = tuple(groups * threads for groups, threads in zip(launch.grid, launch.group))

    def run(self, number: int) -> None:
        """So many calls in the queue, and their end."""
        enqueue, queue, kernel, size, group = (
            self._cl.enqueue_nd_range_kernel, self._queue, self._kernel, self._size, self._group,
        )  # fmt: skip
        for _ in range(number):
            enqueue(queue, kernel, size, group)
        queue.finish()

    def output(self) -> Array:
        """What the last call gave."""
        result: Any = np.empty_like(self._result)
        self._cl.enqueue_copy(self._queue, result, self._buffers[-1])
        return np.asarray(result, np.float32)
