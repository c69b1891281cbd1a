"""Constants of artifacts: named in the core, with content behind it or elsewhere, checked when they are used."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfarm.artifact import Artifact, container, write_artifact
from crossfarm.artifact.sizes import expression
from crossfarm.compat import envelope
from crossfarm.errors import InvalidArtifact, NotFound
from crossfarm.wire.v1.artifact_pb2 import EntryPoint, Manifest, Parameter, Variant
from tests.artifact import samples

WEIGHTS = memoryview(np.arange(6, dtype=np.float32).tobytes())
BIAS = memoryview(np.arange(4, dtype=np.int8).tobytes())
NAMES = [hashlib.sha256(content).hexdigest() for content in (WEIGHTS, BIAS)]
CONTENT = dict(zip(NAMES, (WEIGHTS, BIAS)))


def parameter(name: str, dtype: str, *shape: int, role: int = Parameter.IN, constant: str = "") -> Parameter:
    dims = [expression(extent, {}) for extent in shape]
    return Parameter(name=name, kind=Parameter.BUFFER, dtype=dtype, shape=dims, role=role, constant=constant)  # type: ignore[arg-type]


def variant() -> Variant:
    """``main`` with stored weights and a prepared bias, and ``main_prepare``, which makes it of a stored one."""
    made = samples.variant()
    main = made.entry_points[0]
    main.parameters.append(parameter("W", "float32", 2, 3, constant=f"sha256:{NAMES[0]}"))
    main.parameters.append(parameter("P", "int32", 4, constant="main_prepare:0"))
    prepare = made.entry_points.add(name="main_prepare", native=main.native)
    prepare.native.ClearField("workspace_bytes")
    prepare.parameters.append(parameter("out", "int32", 4, role=Parameter.OUT))
    prepare.parameters.append(parameter("bias", "int8", 4, constant=f"sha256:{NAMES[1]}"))
    return made


@pytest.fixture(scope="module")
def core() -> Artifact:
    return write_artifact("model", [variant()], [b"library" * 100], b"module")


@pytest.fixture
def file(core: Artifact, tmp_path: Path) -> Path:
    core.with_constants(CONTENT).save(tmp_path / "model.cfa")
    return tmp_path / "model.cfa"


def test_constants_are_listed_without_being_there(core: Artifact) -> None:
    assert core.constant_sizes == {NAMES[0]: 24, NAMES[1]: 4}
    assert not core.constants
    with pytest.raises(NotFound, match=NAMES[0][:12]) as failure:
        core.constants[NAMES[0]]
    assert "open the file" in failure.value.hint


def test_content_does_not_change_what_the_artifact_is(core: Artifact, file: Path) -> None:
    read = Artifact.open(file)
    assert read == core
    assert (read.digest, read.data) == (core.digest, core.data)
    assert dict(read.constants) == CONTENT
    assert read.constants[NAMES[0]].readonly
    assert file.read_bytes() == core.data + WEIGHTS + BIAS
    assert dict(Artifact.from_bytes(file.read_bytes()).constants) == CONTENT


def test_a_core_is_a_whole_artifact(core: Artifact, tmp_path: Path) -> None:
    core.save(tmp_path / "core.cfa")
    read = Artifact.open(tmp_path / "core.cfa")
    assert read == core
    assert not read.constants
    assert dict(read.with_constants(CONTENT).constants) == CONTENT


def test_the_same_input_gives_the_same_file(core: Artifact, file: Path, tmp_path: Path) -> None:
    other = write_artifact("model", [variant()], [b"library" * 100], b"module")
    more = {hashlib.sha256(b"x").hexdigest(): memoryview(b"x"), **dict(reversed(CONTENT.items()))}
    other.with_constants(more).save(tmp_path / "other.cfa")
    assert (tmp_path / "other.cfa").read_bytes() == file.read_bytes()


def test_a_mapped_file_can_be_written_anew(file: Path) -> None:
    before = file.read_bytes()
    read = Artifact.open(file)
    read.save(file)
    assert file.read_bytes() == before
    assert read.constants[NAMES[1]] == BIAS


def test_content_is_looked_into_when_it_is_used(core: Artifact) -> None:
    class Counted(dict[str, memoryview]):
        asked = 0

        def __getitem__(self, digest: str) -> memoryview:
            self.asked += 1
            return super().__getitem__(digest)

    source = Counted(CONTENT)
    artifact = core.with_constants(source)
    assert list(artifact.constants) == NAMES
    assert source.asked == 0
    assert artifact.constants[NAMES[0]] == artifact.constants[NAMES[0]] == WEIGHTS
    assert source.asked == 1


def test_changed_content_is_found_when_it_is_used(file: Path, tmp_path: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    read = Artifact.open(file)
    assert read.constants[NAMES[0]] == WEIGHTS
    with pytest.raises(InvalidArtifact, match=f"{NAMES[1][:12]} of artifact 'model' was changed"):
        read.constants[NAMES[1]]
    with pytest.raises(InvalidArtifact, match="was changed"):
        read.save(tmp_path / "copy.cfa")
    assert not (tmp_path / "copy.cfa").exists()


def test_content_of_another_size_is_refused(core: Artifact) -> None:
    with pytest.raises(InvalidArtifact, match="was changed"):
        core.with_constants({NAMES[0]: WEIGHTS[:-4]}).constants[NAMES[0]]


def test_some_constants_are_not_saved_without_the_others(core: Artifact, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=rf"1 constants.*is here, that of 1 is not: {NAMES[1][:12]}"):
        core.with_constants({NAMES[0]: WEIGHTS}).save(tmp_path / "part.cfa")
    assert list(tmp_path.iterdir()) == []


@given(cut=st.integers(1, 27))
def test_a_truncated_file_is_refused(core: Artifact, cut: int) -> None:
    whole = core.data + WEIGHTS + BIAS
    with pytest.raises(InvalidArtifact, match=r"truncated: section \d \('constants'"):
        Artifact.from_bytes(whole[:-cut])
    with pytest.raises(InvalidArtifact, match="bytes follow its last section"):
        Artifact.from_bytes(whole + bytes(cut))


def test_a_changed_manifest_keeps_the_content_of_what_it_uses(core: Artifact) -> None:
    manifest = Manifest()
    manifest.CopyFrom(core.manifest)
    del manifest.variants[0].entry_points[1]
    manifest.variants[0].entry_points[0].parameters[-1].constant = ""
    changed = core.with_constants(CONTENT).rewritten(manifest)
    assert dict(changed.constants) == {NAMES[0]: WEIGHTS}
    assert changed.digest != core.digest


def test_a_reader_that_knows_no_constants_would_refuse_it(core: Artifact) -> None:
    """It would ask callers for them."""
    with pytest.raises(InvalidArtifact, match="features that this reader does not know: constants"):
        envelope.read(core.data, "artifact", (1, 1), understood=(), trailing=True)
    envelope.read(samples.artifact().data, "artifact", (1, 1), understood=(), trailing=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda main, prepare: setattr(main.parameters[-1], "constant", "md5:00"), "'md5:00'"),
        (lambda main, prepare: setattr(main.parameters[-1], "constant", "sha256:12"), "'sha256:12', which is no"),
        (lambda main, prepare: setattr(main.parameters[-1], "constant", "nobody:0"), "'nobody', which is not there"),
        (lambda main, prepare: setattr(main.parameters[-1], "constant", "main_prepare:1"), "output 1 of"),
        (lambda main, prepare: setattr(main.parameters[-1], "dtype", "int16"), "dtype and shape that 'main_prepare'"),
        (lambda main, prepare: setattr(main.parameters[-1], "role", Parameter.INOUT), "no buffer that is only read"),
        (lambda main, prepare: setattr(main.parameters[-2].shape[0].ops[0], "symbol", 0), "its shape is none"),
        (lambda main, prepare: setattr(prepare.parameters[-1], "constant", ""), "whose inputs are not all constants"),
        (lambda main, prepare: setattr(prepare.parameters[-1], "dtype", "int16"), "no section of it"),
        (
            lambda main, prepare: prepare.parameters[-1].CopyFrom(
                parameter("again", "int32", 4, constant="main_prepare:0")
            ),
            "would need its own result",
        ),
    ],
)
def test_constants_that_cannot_be_had_are_refused(core: Artifact, change: object, message: str) -> None:
    manifest = Manifest()
    manifest.CopyFrom(core.manifest)
    entries: list[EntryPoint] = list(manifest.variants[0].entry_points)
    change(*entries)  # type: ignore[operator]
    head = envelope.write("artifact", manifest.SerializeToString(), 1, 1, container.FEATURES)
    body = b"".join(core.section(entry.id) for entry in core.manifest.sections if entry.kind != "constants")
    with pytest.raises(InvalidArtifact) as failure:
        Artifact.from_bytes(head + body)
    assert message in failure.value.message


@pytest.mark.parametrize("change", ["renamed", "twice", "digest"])
def test_sections_of_constants_are_named_by_their_digests(core: Artifact, change: str) -> None:
    manifest = Manifest()
    manifest.CopyFrom(core.manifest)
    entry = next(entry for entry in manifest.sections if entry.kind == "constants")
    if change == "renamed":
        entry.name = "weights"
    elif change == "digest":
        entry.sha256 = bytes(32)
    else:
        manifest.sections.add(id=99, kind="constants", name=entry.name, sha256=entry.sha256, size=entry.size)
    head = envelope.write("artifact", manifest.SerializeToString(), 1, 1, container.FEATURES)
    body = b"".join(core.section(entry.id) for entry in core.manifest.sections if entry.kind != "constants")
    with pytest.raises(InvalidArtifact, match="not named by their digests"):
        Artifact.from_bytes(head + body)
