"""Every program of the corpus, in both dialects, gives its stored outputs when compiled for this machine."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compiler_service.build import build_variant
from crossfarm.errors import BuildFailed
from crossfarm.frontends.tvmscript import parse
from crossfarm.target import Target
from crossfarm.wire.v1 import artifact_pb2, compiler_pb2
from tests.compiler.native import Native
from tests.conftest import CORPUS

Parameter = artifact_pb2.Parameter
CASES: list[dict[str, Any]] = json.loads((CORPUS / "index.json").read_text()) if CORPUS.exists() else []
ON_CPU = [case["name"] for case in CASES if not case["needs_gpu_mapping"]]
ON_GPU = [case["name"] for case in CASES if case["needs_gpu_mapping"]]
BY_NAME = {case["name"]: case for case in CASES}
DIALECTS = (".py", ".old.py")


def arguments_of(case: dict[str, Any], data: Any) -> tuple[list[Any], list[tuple[np.ndarray[Any, Any], Any]]]:
    """Arguments in parameter order, and the outputs among them with what is expected."""
    arguments: list[Any] = []
    outputs = []
    inputs = iter(range(case["n_in"]))
    for param in case["params"]:
        if param["role"] == "in":
            array = data[f"in_{next(inputs)}"]
            arguments.append(int(array) if param["kind"] == "scalar" else np.ascontiguousarray(array))
        else:
            expected = data[f"out_{len(outputs)}"]
            arguments.append(np.full(expected.shape, 77, expected.dtype))
            outputs.append((arguments[-1], expected))
    return arguments, outputs


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", ON_CPU)
def test_a_corpus_program_compiled_gives_its_stored_outputs(corpus: Path, name: str, dialect: str) -> None:
    case = BY_NAME[name]
    native = Native(parse((corpus / f"{name}{dialect}").read_text(), name))
    arguments, outputs = arguments_of(case, np.load(corpus / f"{name}.npz"))
    native(case["func"], *arguments)
    for actual, expected in outputs:
        np.testing.assert_allclose(actual, expected, rtol=case["rtol"], atol=case["atol"])


@pytest.mark.parametrize("name", ON_CPU)
def test_roles_of_parameters_are_found(corpus: Path, name: str) -> None:
    case = BY_NAME[name]
    built = build_variant(parse((corpus / f"{name}.py").read_text()), Target("llvm"), compiler_pb2.BuildOptions())
    (entry,) = built.variant.entry_points
    expected = [{"in": Parameter.IN, "out": Parameter.OUT, "inout": Parameter.INOUT}[p["role"]] for p in case["params"]]
    found = [p.role if p.kind == Parameter.BUFFER else Parameter.IN for p in entry.parameters]
    assert found == expected


@pytest.mark.parametrize("name", ON_GPU)
def test_a_program_mapped_to_a_gpu_is_refused_for_a_cpu(corpus: Path, name: str) -> None:
    with pytest.raises(BuildFailed, match=r"mapped to a GPU.*(blockIdx|threadIdx)"):
        build_variant(parse((corpus / f"{name}.py").read_text()), Target("llvm"), compiler_pb2.BuildOptions())


@pytest.mark.parametrize("target", ["raspberry-pi/4b", "aarch64-linux-android", "llvm cpu=x86-64 arch=x86_64"])
def test_programs_link_for_other_machines(corpus: Path, target: str) -> None:
    machine = {"aarch64": 183, "x86_64": 62}
    for name in ("matmul_2d", "softmax_last", "cast_f32_f16", "gelu"):
        module = parse((corpus / f"{name}.py").read_text())
        built = build_variant(module, Target(target), compiler_pb2.BuildOptions())
        assert built.code[:4] == b"\x7fELF"
        kind, elf_machine = struct.unpack_from("<HH", built.code, 16)
        assert (kind, elf_machine) == (3, machine[built.variant.requires.arch])
