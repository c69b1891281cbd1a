"""``crossfarm inspect``: what is in an artifact or a program, without a farm."""

from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clients.cli import files, output
from clients.cli.invocation import Invocation, JsonOption, VerboseOption, of
from clients.cli.launches import kernel_rows, launch_document
from crossfarm.errors import UsageError

if TYPE_CHECKING:
    from crossfarm.artifact import Artifact
    from crossfarm.ir.module import IRModule
    from crossfarm.wire.v1 import artifact_pb2


def add_to(app: typer.Typer) -> None:
    app.command("inspect")(inspect)


def inspect(
    ctx: typer.Context,
    file: files.FileArgument,
    script: Annotated[bool, typer.Option("--script", help="Print the module as script text.")] = False,
    sources: Annotated[
        Path | None, typer.Option("--sources", metavar="DIR", help="Write an artifact's libraries and sources there.")
    ] = None,
    json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show what is in FILE: functions, targets, sections, the program it was built from."""
    invocation = of(ctx)
    if script and json:
        raise UsageError("--script and --json exclude each other")
    if not files.is_artifact(file):
        if sources is not None:
            raise UsageError(f"{file} is a program: it has no generated sources", hint="build it with --keep-sources")
        module = files.load_program(file)
        _show_module(invocation, module, script=script)
        return
    artifact = files.open_artifact(file)
    if sources is not None:
        written = _write_sources(artifact, sources)
        if json:
            invocation.output.document({"written": [str(path) for path in written]})
        else:
            for path in written:
                invocation.output.line(str(path))
    elif script:
        invocation.output.line(artifact.module().script().rstrip("\n"))
    elif json:
        invocation.output.document(_artifact_document(artifact))
    else:
        _print_artifact(invocation.output, artifact)


def _show_module(invocation: Invocation, module: IRModule, *, script: bool) -> None:
    from crossfarm.ir.graph import visit
    from crossfarm.ir.serialize import digest

    out = invocation.output
    if script:
        out.line(module.script().rstrip("\n"))
        return
    data = {(c.data.digest, c.data.dtype, c.data.shape): c.data for c in visit.constants(module)}
    constants = {"count": len(data), "bytes": sum(each.nbytes for each in data.values())}
    parameters = {name: [_parameter(p) for p in function.params] for name, function in module.functions.items()}
    if out.json:
        functions = [
            {"name": name, "private": module.functions[name].private, "parameters": parameters[name]}
            for name in module.functions
        ]
        out.document(
            {"module": module.name, "sha256": digest(module).hex(), "functions": functions, "constants": constants}
        )
        return
    out.table(["function", "parameters"], [[name, ", ".join(listed)] for name, listed in parameters.items()])
    if constants["count"]:
        out.line(f"{_count(constants['count'])}, {output.size(constants['bytes'])}")


def _parameter(parameter: Any) -> str:
    from crossfarm.ir.buffer import Buffer
    from crossfarm.ir.graph.expr import GraphVar
    from crossfarm.ir.printer import print_node

    if isinstance(parameter, GraphVar):
        return f"{parameter.name}: {_type_text(parameter.type)}"
    if isinstance(parameter, Buffer):
        return f"{parameter.name}: {parameter.dtype}[{', '.join(print_node(extent) for extent in parameter.shape)}]"
    return f"{parameter.name}: {parameter.dtype}"


def _type_text(kind: Any) -> str:
    """The type of a value of a graph function, as ``float32[n, 64]``."""
    from crossfarm.ir.graph import dims
    from crossfarm.ir.graph.types import TensorType, TupleType

    if isinstance(kind, TensorType):
        return f"{kind.dtype}[{dims.text(kind.shape)[1:-1]}]"
    if isinstance(kind, TupleType):
        return f"({', '.join(map(_type_text, kind.fields))})"
    return "shape"


def _artifact_document(artifact: Artifact) -> dict[str, Any]:
    manifest = artifact.manifest
    users = _users(artifact)
    return {
        "name": manifest.name,
        "digest": artifact.digest,
        "bytes": artifact.size,
        "variants": [
            {
                "target": _target_text(variant),
                "runtime": variant.runtime,
                "requires": {
                    "arch": variant.requires.arch,
                    "os": variant.requires.os,
                    "cpu_features": list(variant.requires.cpu_features),
                    "native_abi": variant.requires.native_abi,
                    "libraries": list(variant.requires.libraries),
                    "device_features": list(variant.requires.device_features),
                    "threads_per_group": variant.requires.threads_per_group,
                    "shared_bytes": variant.requires.shared_bytes,
                    "device_version": variant.requires.device_version,
                },
                **({"launch": launch_document(artifact, variant)} if variant.kernels else {}),
                "functions": {entry.name: _signature(entry) for entry in variant.entry_points},
            }
            for variant in manifest.variants
        ],
        "sections": [
            {
                "id": section.id,
                "kind": section.kind,
                "name": section.name,
                "bytes": section.size,
                "sha256": section.sha256.hex(),
                "critical": section.critical,
            }
            for section in manifest.sections
        ],
        "constants": [
            {"digest": digest, "bytes": size, "here": digest in artifact.constants, "used_as": users[digest]}
            for digest, size in artifact.constant_sizes.items()
        ],
        "toolchain": dict(sorted(manifest.toolchain.items())),
        "build_options": dict(sorted(manifest.build_options.items())),
    }


def _print_artifact(out: output.Output, artifact: Artifact) -> None:
    manifest = artifact.manifest
    out.line(f"{manifest.name}: {output.size(artifact.size)}, sha256 {artifact.digest}")
    toolchain = ", ".join(f"{name} {version}" for name, version in sorted(manifest.toolchain.items()))
    out.line(f"built by {toolchain}")
    out.table(
        ["target", "runs on", "needs", "functions"],
        [
            [
                _target_text(variant),
                f"{variant.requires.arch} {variant.requires.os} ({variant.runtime})".strip(),
                " ".join(
                    (*variant.requires.cpu_features, *variant.requires.libraries, *variant.requires.device_features)
                ) or "-",
                "\n".join(map(_signature, variant.entry_points)) if out.is_terminal
                else "; ".join(map(_signature, variant.entry_points)),
            ]
            for variant in manifest.variants
        ],
    )  # fmt: skip
    rows = [row for variant in manifest.variants for row in kernel_rows(variant)]
    if rows:
        out.table(["kernel", "function", "grid", "group", "shared", "arguments"], rows)
    out.table(
        ["section", "kind", "name", "size", "critical"],
        [
            [str(s.id), s.kind, s.name, output.size(s.size), "yes" if s.critical else "no"]
            for s in manifest.sections
            if s.name not in artifact.constant_sizes
        ],
    )
    if artifact.constant_sizes:
        _print_constants(out, artifact)


def _print_constants(out: output.Output, artifact: Artifact) -> None:
    sizes, here = artifact.constant_sizes, len(artifact.constants)
    where = "in this file" if here else "not in this file"
    out.line(f"{_count(len(sizes))}, {output.size(sum(sizes.values()))}, {where}")
    users = _users(artifact)
    out.table(
        ["constant", "size", "used as"],
        [[digest[:12], output.size(size), ", ".join(users[digest])] for digest, size in sizes.items()],
    )


def _count(constants: int) -> str:
    return f"{constants} constant" + ("" if constants == 1 else "s")


def _users(artifact: Artifact) -> dict[str, list[str]]:
    """Digest of a constant → the parameters that it is, as ``main.weights: float32[64, 3, 7, 7]``, each once."""
    from crossfarm.artifact import Signature
    from crossfarm.artifact.constants import origin_of

    found: dict[str, list[str]] = {digest: [] for digest in artifact.constant_sizes}
    for entry in (entry for variant in artifact.variants for entry in variant.entry_points):
        signature = Signature(entry)
        for index in signature.constants:
            origin = origin_of(signature.parameters[index])
            text = f"{entry.name}.{signature.describe(index)}"
            if origin is not None and origin.digest and text not in found[origin.digest]:
                found[origin.digest].append(text)
    return found


def _write_sources(artifact: Artifact, directory: Path) -> list[Path]:
    """Every section but the IR as a file, constants where they are here; the IR as script text. Names from an artifact
    are never taken as paths."""
    written = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for section in artifact.manifest.sections:
            if section.name in artifact.constant_sizes:
                continue
            if section.id == artifact.manifest.ir_section:
                path, data = directory / "module.py", artifact.module().script().encode()
            else:
                plain = "".join(c if c.isalnum() or c in "._-" else "_" for c in section.name or section.kind).lstrip(
                    "."
                )
                path, data = directory / (plain or f"section{section.id}"), artifact.section(section.id)
                if path in written:
                    path = path.with_name(f"{section.id}-{path.name}")
            path.write_bytes(data)
            written.append(path)
        for digest, content in artifact.constants.items():
            path = directory / f"constant-{digest}"
            path.write_bytes(content)
            written.append(path)
        for index, variant in enumerate(artifact.variants):
            if variant.kernels:
                label = f"variant-{index}-" if len(artifact.variants) > 1 else ""
                path = directory / f"{label}launch.json"
                path.write_text(json_text.dumps(launch_document(artifact, variant), indent=1) + "\n")
                written.append(path)
    except OSError as failure:
        raise UsageError(f"cannot write to {directory}: {failure.strerror}") from failure
    return written


def _signature(entry: artifact_pb2.EntryPoint) -> str:
    from crossfarm.artifact import Signature

    return str(Signature(entry))


def _target_text(variant: artifact_pb2.Variant) -> str:
    from crossfarm.target import Target

    target = Target.from_proto(variant.target)
    return target.tag or str(target)
