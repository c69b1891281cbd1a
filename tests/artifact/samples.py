"""Small artifacts for tests, made by hand: nothing here runs code."""

from __future__ import annotations

from crossfarm.artifact import Artifact, write_artifact
from crossfarm.artifact.sizes import expression
from crossfarm.compat.versions import NATIVE_ABI
from crossfarm.target import Target
from crossfarm.wire.v1.artifact_pb2 import EntryPoint, NativeEntry, Parameter, Requirements, Variant

SYMBOLS = {"n": 0, "m": 1}


def entry_point(name: str = "main") -> EntryPoint:
    """``main(A: float32[n, 128], B: float32[128, m], s: int32) -> C: float32[n, m + 1]``."""
    entry = EntryPoint(
        name=name,
        symbols=list(SYMBOLS),
        native=NativeEntry(symbol=f"cf_{name}", workspace_bytes=expression(("MUL", "n", 64), SYMBOLS)),
    )
    buffers = {
        "A": (Parameter.IN, ("n", 128)),
        "B": (Parameter.IN, (128, "m")),
        "C": (Parameter.OUT, ("n", ("ADD", "m", 1))),
    }
    for buffer, (role, shape) in buffers.items():
        dims = [expression(extent, SYMBOLS) for extent in shape]
        entry.parameters.add(name=buffer, kind=Parameter.BUFFER, dtype="float32", role=role, shape=dims)
        if buffer == "B":
            entry.parameters.add(name="s", kind=Parameter.SCALAR, dtype="int32")
    return entry


def variant(target: str = "x86-64-v3", **requires: object) -> Variant:
    """A variant for a CPU tag, with the requirements that the compiler would write."""
    resolved = Target(target).resolved()
    needs = {
        "arch": resolved.attributes["arch"],
        "os": resolved.attributes["os"],
        "cpu_features": sorted(resolved.enabled_features()),
        "native_abi": NATIVE_ABI,
        **requires,
    }
    return Variant(
        target=resolved.to_proto(),
        requires=Requirements(**needs),  # type: ignore[arg-type]
        entry_points=[entry_point()],
        runtime="cpu",
    )


def artifact(*targets: str) -> Artifact:
    """An artifact with a variant for each target, a stand-in for the IR, and sources."""
    tags = targets or ("x86-64-v3",)
    return write_artifact(
        "sample",
        [variant(tag) for tag in tags],
        [f"library for {tag}".encode() * 20 for tag in tags],
        b"the module's bytes" * 10,
        [{"llvm.ll": "define ...", "assembly.s": "ret"} for _ in tags],
        {"crossfarm": "0.1.0", "llvm": "22.1.0"},
        {"opt_level": "3"},
    )
