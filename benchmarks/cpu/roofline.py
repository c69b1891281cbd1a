"""What the machine can do at most, by code made for the purpose: a process of its own, asked by the benchmark.

Three loops in LLVM IR, compiled for the detected target as programs are, each run by as many threads as are asked
for, on parts of their own of two arrays that are several times as large as the largest cache:

peak    fused multiply-adds on as many independent vectors as hide their latency; no memory
copy    vectors read from one array and written to the other, by plain or by streaming stores, whichever is faster;
        bytes read and bytes written count
read    vectors read and added up

``{"do": "copy", "threads": 2, "seconds": 0.05}`` is answered with ``{"rate": …}``, in FLOP/s or bytes/s.
"""

from __future__ import annotations

import ctypes
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from compiler_service.codegen.llvm import Machine, object_code, optimize, stub_object
from compiler_service.linker import link
from crossfarm.target import Target

#: Bytes of each array.
_ARRAY = 128 << 20
#: Independent vectors in a turn of the loop: two units of four cycles latency keep eight busy; 12 fit 16 registers.
_CHAINS = 12
#: Vectors in a turn of the loops over memory.
_UNROLL = 8
#: Turns of the loop without memory that count as one pass.
_PEAK_TURNS = 1 << 16
#: Alignment in bytes that streaming stores of the widest vectors need.
_ALIGN = 64

#: A pass of a part: (part, how many passes).
Pass = Callable[[int, int], None]


class Roofline:
    """The compiled loops and their memory.

    Attributes:
        source, destination: the arrays that are read and written.
    """

    def __init__(self, size: int = _ARRAY) -> None:
        """``size``: bytes of each array, a multiple of 4096 for each thread that will be asked for."""
        target = Target.detect().resolved()
        self._lanes = max(4, int(str(target.attributes["vector_bits"])) // 32)
        self._library = _compile(target, self._lanes)
        self.source, self.destination = _aligned(size, 1.0), _aligned(size, 0.0)

    def peak(self, threads: int, seconds: float) -> float:
        """Floating point operations a second, a fused multiply-add being two."""
        return self._passes("peak", threads, seconds) * threads * _PEAK_TURNS * _CHAINS * self._lanes * 2

    def copy(self, threads: int, seconds: float) -> float:
        """Bytes read and written a second."""
        return max(self._passes(kernel, threads, seconds) for kernel in ("copy", "stream")) * 2 * self.source.nbytes

    def read(self, threads: int, seconds: float) -> float:
        """Bytes read a second."""
        return self._passes("read", threads, seconds) * self.source.nbytes

    def _passes(self, kernel: str, threads: int, seconds: float) -> float:
        """Passes a second that ``threads`` threads make at once, each over its part."""
        function = self._library[kernel]
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64]
        function.restype = None
        part = self.source.nbytes // threads // _ALIGN * _ALIGN
        vectors = _PEAK_TURNS if kernel == "peak" else part // (4 * self._lanes * _UNROLL) * _UNROLL

        def run(index: int, times: int) -> None:
            at = index * part
            function(self.source.ctypes.data + at, self.destination.ctypes.data + at, vectors, times)

        times = 1
        while (taken := _together(run, threads, times)) < seconds:
            times = max(times + 1, int(times * min(10.0, 1.1 * seconds / taken)))
        return times / taken


def _together(run: Pass, threads: int, times: int) -> float:
    """Seconds until all threads have made their passes, from when all are ready."""
    ready = threading.Barrier(threads + 1)

    def work(index: int) -> None:
        ready.wait()
        run(index, times)

    workers = [threading.Thread(target=work, args=(index,)) for index in range(threads)]
    for worker in workers:
        worker.start()
    ready.wait()
    began = time.perf_counter()
    for worker in workers:
        worker.join()
    return time.perf_counter() - began


def _aligned(size: int, value: float) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """An array of ``size`` bytes full of ``value`` at an aligned address, every page of it there."""
    whole = np.full((size + _ALIGN) // 4, value, np.float32)
    start = -whole.ctypes.data % _ALIGN // 4
    return whole[start : start + size // 4]


def _compile(target: Target, lanes: int) -> ctypes.CDLL:
    machine = Machine.of(target, 3)
    text = _text(lanes, machine)
    code = object_code(optimize(text, machine), machine)
    arch, system = str(target.attributes["arch"]), str(target.attributes["os"])
    library = link(code, arch, system, "roofline.so", lambda names: stub_object(names, machine))
    with tempfile.TemporaryDirectory(prefix="crossfarm-roofline-") as folder:
        path = Path(folder, "roofline.so")
        path.write_bytes(library)
        return ctypes.CDLL(str(path))


def _text(lanes: int, machine: Machine) -> str:
    floats, ints = f"<{lanes} x float>", f"<{lanes} x i32>"
    bytes_ = 4 * lanes
    chains = range(_CHAINS)
    peak = [
        *(
            f"  %p{i} = getelementptr i8, ptr %src, i64 {i * bytes_}\n  %x{i} = load {floats}, ptr %p{i}"
            for i in chains
        ),
        f"  %y = load {floats}, ptr %dst",
        "  %turns = mul i64 %count, %times\n  br label %loop\nloop:",
        "  %t = phi i64 [ 0, %entry ], [ %next, %loop ]",
        *(f"  %a{i} = phi {floats} [ %x{i}, %entry ], [ %b{i}, %loop ]" for i in chains),
        *(f"  %b{i} = call {floats} @llvm.fma.v{lanes}f32({floats} %a{i}, {floats} %x0, {floats} %y)" for i in chains),
        "  %next = add i64 %t, 1\n  %more = icmp ult i64 %next, %turns\n  br i1 %more, label %loop, label %end\nend:",
        *(f"  %q{i} = getelementptr i8, ptr %dst, i64 {i * bytes_}\n  store {floats} %b{i}, ptr %q{i}" for i in chains),
    ]
    reading = [
        *(f"  %v{i} = load {ints}, ptr %p{i}, align {_ALIGN}" for i in range(_UNROLL)),
        *(f"  %b{i} = add {ints} %a{i}, %v{i}" for i in range(_UNROLL)),
    ]

    def writing(metadata: str) -> list[str]:
        return [
            line
            for i in range(_UNROLL)
            for line in (
                f"  %v{i} = load {floats}, ptr %p{i}, align {_ALIGN}",
                f"  %q{i} = getelementptr i8, ptr %dst, i64 %at{i}",
                f"  store {floats} %v{i}, ptr %q{i}, align {_ALIGN}{metadata}",
            )
        ]

    sums = [
        *(
            f"  %q{i} = getelementptr i8, ptr %dst, i64 {i * bytes_}\n  store {ints} %b{i}, ptr %q{i}"
            for i in range(_UNROLL)
        ),
    ]
    functions = {
        "peak": peak,
        "copy": _passes(bytes_, writing(""), [], ""),
        "stream": _passes(bytes_, writing(", !nontemporal !0"), [], ""),
        "read": _passes(bytes_, reading, sums, ints),
    }
    features = f'"target-cpu"="{machine.cpu}" "target-features"="{machine.features}" "tune-cpu"="{machine.tune}"'
    defined = "\n".join(
        f"define void @{name}(ptr noalias %src, ptr noalias %dst, i64 %count, i64 %times) #0 {{\nentry:\n"
        + "\n".join(lines)
        + "\n  ret void\n}\n"
        for name, lines in functions.items()
    )
    return (
        f'target triple = "{machine.triple}"\n{defined}\n'
        f"declare {floats} @llvm.fma.v{lanes}f32({floats}, {floats}, {floats})\n"
        f'attributes #0 = {{ nounwind "no-builtins" {features} }}\n!0 = !{{i32 1}}\n'
    )


def _passes(bytes_: int, body: list[str], after: list[str], carried: str) -> list[str]:
    """A loop over memory inside one over passes; ``carried``: the type of the sums %a0… → %b0…, "" for none."""
    chains = range(_UNROLL) if carried else ()
    return [
        "  br label %pass\npass:",
        "  %t = phi i64 [ 0, %entry ], [ %t_next, %passed ]",
        *(f"  %s{i} = phi {carried} [ zeroinitializer, %entry ], [ %b{i}, %passed ]" for i in chains),
        "  br label %loop\nloop:",
        "  %v = phi i64 [ 0, %pass ], [ %v_next, %loop ]",
        *(f"  %a{i} = phi {carried} [ %s{i}, %pass ], [ %b{i}, %loop ]" for i in chains),
        f"  %at = mul i64 %v, {bytes_}",
        *(
            f"  %at{i} = add i64 %at, {i * bytes_}\n  %p{i} = getelementptr i8, ptr %src, i64 %at{i}"
            for i in range(_UNROLL)
        ),
        *body,
        f"  %v_next = add i64 %v, {_UNROLL}",
        "  %v_more = icmp ult i64 %v_next, %count\n  br i1 %v_more, label %loop, label %passed\npassed:",
        "  %t_next = add i64 %t, 1",
        "  %t_more = icmp ult i64 %t_next, %times\n  br i1 %t_more, label %pass, label %end\nend:",
        *after,
    ]


def main() -> None:
    roofline = Roofline()
    print(json.dumps({"ready": "roofline"}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        kinds = {"peak": roofline.peak, "copy": roofline.copy, "read": roofline.read}
        rate = kinds[request.pop("do")](**request)
        print(json.dumps({"rate": rate}), flush=True)


if __name__ == "__main__":
    main()
