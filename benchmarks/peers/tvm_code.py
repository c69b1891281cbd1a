"""Apache TVM as a peer: the same program, compiled with its default pipeline or scheduled by hand for this CPU.

The schedule by hand is what an expert writes for a matrix product: B in panels as wide as two registers, packed once a
call, a register tile of 8 rows, panels distributed over the threads. It takes sizes that it divides.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import onnx
import tvm
from tvm import relax, s_tir
from tvm.relax.frontend.onnx import from_onnx

from benchmarks.peers.serving import Array, Runner, Unsupported, Work, inputs, serve

_ROWS, _COLUMNS = 8, 32
#: Runs of TVM's default code that take longer than this are left out: they say nothing new.
_DEFAULT_FLOPS = 3e8


class Compiled:
    """A compiled function with its arguments on the CPU, timed by TVM's own evaluator."""

    def __init__(self, module: tvm.IRModule, work: Work, cpu: str) -> None:
        device = tvm.cpu()
        self._output = tvm.runtime.empty(work["output"], "float32", device)
        self._arguments = [*(tvm.runtime.tensor(array, device) for array in inputs(*work["inputs"])), self._output]
        self._compiled = tvm.compile(module, target=tvm.target.Target(_target(cpu)))
        self._evaluate = self._compiled.mod.time_evaluator
        self._device = device
        self._compiled["main"](*self._arguments)

    def run(self, times: int) -> float:
        return float(self._evaluate("main", self._device, number=times, repeat=1)(*self._arguments).mean)

    def output(self) -> Array:
        return np.asarray(self._output.numpy())


class CompiledModel:
    """An ONNX model through TVM's frontend and default pipeline, on its virtual machine."""

    def __init__(self, work: Work, cpu: str) -> None:
        module = from_onnx(onnx.load(work["program"]), keep_params_in_input=False)
        self._machine = relax.VirtualMachine(tvm.compile(module, tvm.target.Target(_target(cpu))), tvm.cpu())
        self._arguments = [tvm.runtime.tensor(array, tvm.cpu()) for array in inputs(*work["inputs"])]
        self._result: Any = None

    def run(self, times: int) -> float:
        began = time.perf_counter()
        for _ in range(times):
            self._result = self._machine["main"](*self._arguments)
        return (time.perf_counter() - began) / times

    def output(self) -> Array:
        result = self._result if hasattr(self._result, "numpy") else self._result[0]
        return np.asarray(result.numpy())


def _target(cpu: str) -> dict[str, str]:
    return {"kind": "llvm", "mcpu": cpu}


def schedule(module: tvm.IRModule, sizes: dict[str, int]) -> tvm.IRModule:
    """The matrix product by hand. Raises Unsupported for sizes that the tile does not divide."""
    if sizes["batch"] != 1 or sizes["m"] % _ROWS or sizes["n"] % _COLUMNS:
        raise Unsupported("the schedule by hand takes one product, of whole tiles")
    sch = s_tir.Schedule(module)
    block = sch.get_sblock("C", func_name="main")
    packed = sch.cache_read(block, 1, "global")
    sch.transform_layout(block, ("read", 1), lambda k, j: (j // _COLUMNS, k, j % _COLUMNS))
    i, j, k = sch.get_loops(block)
    row_tiles, row = sch.split(i, [None, _ROWS])
    panels, column = sch.split(j, [None, _COLUMNS])
    sch.reorder(panels, row_tiles, k, row, column)
    tile = sch.cache_write(block, 0, "local")
    sch.reverse_compute_at(tile, row_tiles)
    tile_row, tile_column = sch.get_loops(tile)[-2:]
    sch.unroll(tile_row)
    sch.vectorize(tile_column)
    sch.parallel(panels)
    sch.unroll(row)
    sch.vectorize(column)
    sch.decompose_reduction(block, k)
    pack_row, pack_column = sch.get_loops(packed)[-2:]
    pack_panels, pack_column = sch.split(pack_column, [None, _COLUMNS])
    sch.reorder(pack_panels, pack_row, pack_column)
    sch.vectorize(pack_column)
    sch.parallel(pack_panels)
    return sch.mod


def main() -> None:
    parser = argparse.ArgumentParser(description="the Apache TVM side of the comparison of code")
    parser.add_argument("--cpu", required=True, help="LLVM's name of this machine's core")
    parser.add_argument("--schedule", choices=["default", "hand"], required=True)
    options = parser.parse_args()

    def prepare(work: Work) -> Runner:
        if work["op"] == "model":
            return CompiledModel(work, options.cpu)
        module = tvm.script.from_source(work["program"])
        if options.schedule == "hand":
            if work["op"] != "matmul":
                raise Unsupported(f"there is no schedule by hand for {work['op']}")
            module = schedule(module, work["sizes"])
        elif work["flops"] > _DEFAULT_FLOPS:
            raise Unsupported("TVM's default code takes seconds for this")
        return Compiled(module, work, options.cpu)

    serve(f"Apache TVM {tvm.__version__}", prepare)


if __name__ == "__main__":
    main()
