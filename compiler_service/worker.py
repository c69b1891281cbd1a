"""One build worker: a process that builds a variant at a time, so that a crash of the compiler costs one build.

It warms up by building a small function for each architecture, then answers jobs on its standard input and output
until either closes. What native code prints goes to standard error, which the service keeps for a crash's message.

Job: ``{"target": JSON, "options": hex of BuildOptions}`` and the module's bytes. Answers: ``{"event": "step", …}`` any
number of times, then ``{"event": "built", …}`` with the variant, the code and the sources, or ``{"event": "error"}``
with an ErrorDetail.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from compiler_service.build import build_variant
from compiler_service.frames import Pipe
from crossfarm.errors import BuildFailed, Error, InfrastructureError
from crossfarm.ir.buffer import Buffer
from crossfarm.ir.expr import BufferLoad, IntImm, Var
from crossfarm.ir.function import PrimFunc
from crossfarm.ir.module import IRModule
from crossfarm.ir.serialize import loads
from crossfarm.ir.stmt import BufferStore, For
from crossfarm.target import Target
from crossfarm.wire.status import to_detail
from crossfarm.wire.v1 import compiler_pb2

#: Steps of a build before those of ``build_variant``: the service tells the first, this worker the second.
_OWN_STEPS = ("start", "verify")


def main(argv: list[str] | None = None) -> None:
    """Runs until the service closes the pipe."""
    parser = argparse.ArgumentParser(prog="python -m compiler_service.worker", description=__doc__)
    parser.add_argument("--memory-bytes", type=int, required=True, help="address space for builds, on top of its own")
    options = parser.parse_args(argv)
    pipe = _take_standard_streams()
    for target in ("llvm", "aarch64-linux-generic", "x86-64-v3"):
        build_variant(_small_module(), Target(target), compiler_pb2.BuildOptions())
    _limit_memory(options.memory_bytes)
    try:
        pipe.send({"event": "ready"})
        while True:
            _answer(pipe, *pipe.receive())
    except EOFError:
        return


def _answer(pipe: Pipe, job: dict[str, Any], blobs: list[bytes]) -> None:
    def on_step(name: str, index: int, count: int) -> None:
        pipe.send({"event": "step", "name": name, "index": index + len(_OWN_STEPS), "count": count + len(_OWN_STEPS)})

    try:
        pipe.send({"event": "step", "name": "verify", "index": _OWN_STEPS.index("verify"), "count": 0})
        module = loads(blobs[0], check=True)
        options = compiler_pb2.BuildOptions.FromString(bytes.fromhex(job["options"]))
        built = build_variant(module, Target.from_json(job["target"]), options, on_step)
    except EOFError:
        raise
    except MemoryError:
        failure: Error = BuildFailed("out of memory", details={"limit": "memory"})
    except RecursionError:
        failure = BuildFailed("the module is nested too deep for the compiler", hint="split its functions")
    except Error as error:
        failure = error
    except Exception as error:  # noqa: BLE001 - the boundary: a bug in a pass fails this build only
        sys.excepthook(type(error), error, error.__traceback__)
        failure = InfrastructureError(f"the compiler failed: {type(error).__name__}: {error}")
    else:
        sources = [text.encode() for text in built.sources.values()]
        pipe.send(
            {
                "event": "built",
                "name": module.name,
                "toolchain": built.toolchain,
                "steps": built.steps,
                "sources": list(built.sources),
            },
            built.variant.SerializeToString(deterministic=True),
            built.code,
            *sources,
        )
        return
    pipe.send({"event": "error"}, to_detail(failure).SerializeToString())


def _take_standard_streams() -> Pipe:
    """Keeps the pipes for messages and points fds 0 and 1 elsewhere, so that nothing printed gets in between."""
    pipe = Pipe(os.dup(0), os.dup(1))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return pipe


def _limit_memory(more: int) -> None:
    """Bounds the address space to what it is now plus ``more`` bytes; without effect where the system cannot."""
    try:
        import resource
    except ImportError:
        return
    try:
        with open("/proc/self/statm") as statm:
            now = int(statm.read().split()[0]) * resource.getpagesize()
    except OSError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (now + more, now + more))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _small_module() -> IRModule:
    """A function that copies eight numbers in parallel: building it loads and warms every part of the compiler."""
    a, b, i = Buffer("A", (IntImm(8),)), Buffer("B", (IntImm(8),)), Var("i")
    body = For(i, IntImm(0), IntImm(8), BufferStore(b, BufferLoad(a, (i,)), (i,)), kind="parallel")
    return IRModule({"main": PrimFunc((a, b), body)}, name="warm-up")


if __name__ == "__main__":
    main()
