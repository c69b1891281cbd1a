"""``python -m benchmarks.cuda``: kernels for this machine's GPU beside cuBLAS and beside a copy of memory."""

from __future__ import annotations

import argparse

import numpy as np

from benchmarks.cpu.works import Work, matmul, memory_bound
from benchmarks.cuda import cublas
from benchmarks.cuda.gpu import Gpu, seconds

#: Relative to sums of so many products: the order of sums differs.
_TOLERANCE = 1e-4


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cuda", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer sizes")
    options = parser.parse_args()
    gpu = Gpu()
    print(f"{gpu.attributes['name']}, sm_{gpu.attributes['sm']}, driver {gpu.attributes['driver_version']}\n")
    wrong = products(gpu, quick=options.quick)
    memory(gpu, quick=options.quick)
    return 1 if wrong else 0


def products(gpu: Gpu, *, quick: bool) -> bool:
    """Prints TFLOP/s of matrix products; True where a result is wrong."""
    library = cublas.load()
    vendor = None if library is None else cublas.Cublas(library, gpu)
    print("float32 product of matrices, TFLOP/s\n")
    print(
        f"| size | crossfarm | {'cuBLAS' if vendor else 'cuBLAS (not found)'} | part of it |\n| --- | --- | --- | --- |"
    )
    wrong = False
    for size in (1024, 2048) if quick else (512, 1024, 2048, 4096, 8192):
        work = matmul(f"{size} × {size} × {size}", 1, size, size, size)
        rng = np.random.default_rng(1)
        inputs = [rng.standard_normal(shape, np.float32) for shape in work.inputs]
        memories = [gpu.upload(x) for x in inputs] + [gpu.upload(np.zeros(work.output, np.float32))]
        ours = seconds(gpu.bound(work, memories).repeat)
        got = gpu.download(memories[-1], work.output)
        rows = slice(0, size, max(1, size // 64))
        with np.errstate(all="ignore"):
            expected = inputs[0][rows].astype(np.float64) @ inputs[1].astype(np.float64)
        if not np.allclose(got[rows], expected, rtol=_TOLERANCE, atol=_TOLERANCE * size**0.5):
            print(f"wrong: {work.name}")
            wrong = True
        theirs = None if vendor is None else seconds(vendor.product(size, size, size, *memories))
        said = "| " if theirs is None else f"{work.flops / theirs / 1e12:.1f} | {theirs / ours:.0%} "
        print(f"| {work.name} | {work.flops / ours / 1e12:.1f} | {said}|")
        for each in memories:
            each.release()
    return wrong


def memory(gpu: Gpu, *, quick: bool) -> None:
    """Prints GB/s of work that moves memory, bytes read once and written once, beside a copy by the driver."""
    works: list[Work] = list(memory_bound(quick))
    size = max(work.bytes for work in works) // 2
    copied = 2 * size / seconds(gpu.copying(size)) / 1e9
    print(f"\nmemory, GB/s; a copy of {size >> 20} MiB moves {copied:.0f}\n")
    print("| work | crossfarm | part of the copy |\n| --- | --- | --- |")
    for work in works:
        memories = [gpu.upload(np.ones(shape, np.float32)) for shape in (*work.inputs, work.output)]
        rate = work.bytes / seconds(gpu.bound(work, memories).repeat) / 1e9
        print(f"| {work.name} | {rate:.0f} | {rate / copied:.0%} |")
        for each in memories:
            each.release()


if __name__ == "__main__":
    raise SystemExit(main())
