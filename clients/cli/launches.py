"""Launch plans for people and for other programs: the table of ``inspect``, and ``launch.json``.

``launch.json`` is all that it takes to run an artifact's kernels without crossfarm:

- ``code``: the file with the kernels; ``kernels``: threads of a group, shared bytes (declared in the code) and
  parameters of each, buffers before scalars.
- ``functions``: name → parameters, and ``launches`` in order. Each has a ``kernel``, its ``grid`` in groups along
  x, y, z and one argument a parameter: ``{"parameter": i}`` (the function's), ``{"workspace": offset, "bytes": n}``
  (in a buffer of ``workspace_bytes``) or ``{"value": n}``.
- A parameter with a ``constant`` is filled before the function runs: with the content of the file
  ``constant-<digest>`` for "sha256:<digest>", or with the N-th output of the function that "FUNCTION:N" names.
- A size that depends on shapes is text, as ``"(n + 255) // 256"``: integers, names of ``symbols``, ``+ - * // %``,
  ``min`` and ``max``, with Python's meaning. A symbol is the dimension of a parameter that is just its name, or the
  scalar so named.
- ``status``, where a function has it, is an int32 in the workspace: set it to 0 before, and look up what is not 0 in
  ``failures`` (from 1) after.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from clients.cli import output
from crossfarm.artifact import Signature
from crossfarm.artifact.launches import LaunchPlanner
from crossfarm.artifact.sizes import Size
from crossfarm.wire.v1.artifact_pb2 import EntryPoint, IndexExpr, KernelArgument, Parameter, Region, Variant

if TYPE_CHECKING:
    from crossfarm.artifact import Artifact

_ROLES = {Parameter.IN: "in", Parameter.OUT: "out", Parameter.INOUT: "inout"}


def launch_document(artifact: Artifact, variant: Variant) -> dict[str, Any]:
    """``launch.json`` of one variant with kernels. Raises InvalidArtifact for a malformed plan."""
    section = next(s for s in artifact.manifest.sections if s.id == variant.library_section)
    return {
        "version": 1,
        "runtime": variant.runtime,
        "code": section.name.replace("/", "_"),
        "kernels": {
            kernel.name: {
                "group": list(kernel.group),
                "shared_bytes": kernel.shared_bytes,
                "parameters": [
                    {"name": p.name, "kind": "buffer" if p.buffer else "scalar", "dtype": p.dtype, "written": p.written}
                    for p in kernel.parameters
                ],
            }
            for kernel in variant.kernels
        },
        "functions": {entry.name: _function(entry, variant) for entry in variant.entry_points},
    }


def kernel_rows(variant: Variant) -> list[list[str]]:
    """A row for each launch of each function: kernel, function, grid, group, shared memory, arguments."""
    rows = []
    for entry in variant.entry_points:
        kernels = {kernel.name: kernel for kernel in variant.kernels}
        for launch in entry.launch.launches:
            kernel = kernels[launch.kernel]
            grid = [str(_size(g, entry.symbols)) for g in launch.grid]
            rows.append(
                [
                    launch.kernel,
                    entry.name,
                    " × ".join(_without_ones(grid)),
                    " × ".join(_without_ones([str(g) for g in kernel.group])),
                    output.size(kernel.shared_bytes) if kernel.shared_bytes else "-",
                    ", ".join(p.name for p in kernel.parameters),
                ]
            )
    return rows


def _without_ones(sizes: list[str]) -> list[str]:
    """Along x, and along y and z where there is more than one."""
    while len(sizes) > 1 and sizes[-1] == "1":
        sizes.pop()
    return sizes


def _function(entry: EntryPoint, variant: Variant) -> dict[str, Any]:
    LaunchPlanner(entry, variant)  # refuses what does not fit together
    symbols = entry.symbols
    document: dict[str, Any] = {
        "signature": str(Signature(entry)),
        "parameters": [
            {
                "name": p.name,
                "kind": "buffer" if p.kind == Parameter.BUFFER else "scalar",
                "dtype": p.dtype,
                **({"shape": [_size(e, symbols) for e in p.shape]} if p.kind == Parameter.BUFFER else {}),
                "role": _ROLES[p.role],
                **({"constant": p.constant} if p.constant else {}),
            }
            for p in entry.parameters
        ],
        "symbols": list(symbols),
        "workspace_bytes": _size(entry.launch.workspace_bytes, symbols),
        "launches": [
            {
                "kernel": launch.kernel,
                "grid": [_size(g, symbols) for g in launch.grid],
                "arguments": [_argument(a, symbols) for a in launch.arguments],
            }
            for launch in entry.launch.launches
        ],
    }
    if entry.launch.HasField("status"):
        document["status"] = _region(entry.launch.status, symbols)
        document["failures"] = list(entry.failures)
    return document


def _argument(argument: KernelArgument, symbols: Sequence[str]) -> dict[str, Any]:
    which = argument.WhichOneof("value")
    if which == "region":
        return _region(argument.region, symbols)
    if which == "parameter":
        return {"parameter": argument.parameter}
    return {"value": _size(argument.size, symbols)}


def _region(region: Region, symbols: Sequence[str]) -> dict[str, Any]:
    return {"workspace": _size(region.offset, symbols), "bytes": _size(region.bytes, symbols)}


def _size(expr: IndexExpr, symbols: Sequence[str]) -> int | str:
    """A number, or the expression as text."""
    text = Size(expr, len(symbols)).text(symbols)
    return int(text) if text.lstrip("-").isdigit() else text
