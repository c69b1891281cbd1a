"""The artifact's file: same input, same bytes; and whatever was done to it since is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfarm.artifact import Artifact, container, write_artifact
from crossfarm.artifact.sizes import expression
from crossfarm.compat import envelope
from crossfarm.errors import Error, InvalidArtifact, NotFound, UsageError
from crossfarm.wire.v1.artifact_pb2 import IndexExpr, Manifest
from tests.artifact import samples


def test_an_artifact_comes_back_as_it_was_written(tmp_path: Path) -> None:
    written = samples.artifact("x86-64-v3", "aarch64-linux-generic")
    written.save(tmp_path / "a.cfa")
    read = Artifact.open(tmp_path / "a.cfa")
    assert read == written
    assert read.digest == written.digest
    assert read.size == (tmp_path / "a.cfa").stat().st_size
    assert [read.code(v) for v in read.variants] == [
        b"library for x86-64-v3" * 20,
        b"library for aarch64-linux-generic" * 20,
    ]
    assert read.section(read.manifest.ir_section) == b"the module's bytes" * 10
    assert read.sources()["variant-1/llvm.ll"] == "define ..."
    assert list(read.entry_points) == ["main"]
    assert read.producer.startswith("crossfarm ")


def test_the_same_input_gives_the_same_bytes() -> None:
    assert samples.artifact().data == samples.artifact().data
    one, other = (
        write_artifact("m", [], [], toolchain=dict(pairs), options=dict(pairs))
        for pairs in ([("a", "1"), ("b", "2")], [("b", "2"), ("a", "1")])
    )
    assert one.digest == other.digest


def test_saving_leaves_nothing_else_and_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.cfa"
    path.write_bytes(b"old")
    samples.artifact().save(path)
    assert Artifact.open(path) == samples.artifact()
    assert [p.name for p in tmp_path.iterdir()] == ["a.cfa"]
    with pytest.raises(UsageError, match="cannot write"):
        samples.artifact().save(tmp_path / "missing" / "a.cfa")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"nothing\.cfa"):
        Artifact.open(tmp_path / "nothing.cfa")


def test_a_truncated_file_is_refused_at_every_length() -> None:
    data = samples.artifact().data
    for size in range(0, len(data), 7):
        with pytest.raises(InvalidArtifact, match="truncated"):
            Artifact.from_bytes(data[:size])


def test_every_changed_byte_is_found() -> None:
    data = bytearray(samples.artifact().data)
    for position in range(len(data)):
        data[position] ^= 0x10
        with pytest.raises(InvalidArtifact):
            Artifact.from_bytes(bytes(data))
        data[position] ^= 0x10


def test_a_changed_section_is_named() -> None:
    data = samples.artifact().data
    with pytest.raises(InvalidArtifact, match=r"section 2 \('library', 'library'\) does not match its SHA-256"):
        Artifact.from_bytes(data.replace(b"library for x86", b"librarY for x86"))


def test_what_follows_the_last_section_is_refused() -> None:
    with pytest.raises(InvalidArtifact, match="1 bytes follow its last section"):
        Artifact.from_bytes(samples.artifact().data + b"x")


def test_another_kind_of_file_is_named() -> None:
    with pytest.raises(InvalidArtifact, match="holds 'ir', not 'artifact'"):
        Artifact.from_bytes(envelope.write("ir", b"payload", 1, 1))
    with pytest.raises(InvalidArtifact, match="not a crossfarm file"):
        Artifact.from_bytes(b"\x7fELF" + b"\0" * 100)


def test_a_file_from_the_future_says_what_is_needed() -> None:
    payload = samples.artifact().manifest.SerializeToString()
    with pytest.raises(InvalidArtifact, match=r"needs a reader of version 9.*1 to 1") as failure:
        Artifact.from_bytes(envelope.write("artifact", payload, 9, 9))
    assert "upgrade crossfarm" in failure.value.hint


def test_an_unknown_critical_section_is_refused_by_name() -> None:
    with pytest.raises(InvalidArtifact, match="'holograms'") as failure:
        _with_section(samples.artifact(), "holograms", critical=True)
    assert "upgrade" in failure.value.hint


def test_an_unknown_optional_section_is_skipped_and_kept_on_rewrite() -> None:
    extended = _with_section(samples.artifact(), "holograms", critical=False)
    changed = Manifest()
    changed.CopyFrom(extended.manifest)
    changed.name = "renamed"
    rewritten = extended.rewritten(changed)
    entry = rewritten.manifest.sections[-1]
    assert (entry.kind, rewritten.section(entry.id)) == ("holograms", b"new things")
    assert rewritten.name == "renamed"


def _with_section(artifact: Artifact, kind: str, *, critical: bool) -> Artifact:
    """As a later release would write it, which knows the kind."""
    manifest = Manifest()
    manifest.CopyFrom(artifact.manifest)
    bodies = {entry.id: artifact.section(entry.id) for entry in manifest.sections}
    number = container.add_section(manifest, kind, "extra", critical=critical)
    return Artifact.from_bytes(container.pack(manifest, {**bodies, number: b"new things"}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: setattr(m, "ir_section", 77), "ir_section 77"),
        (lambda m: setattr(m.variants[0], "library_section", 1), "section 1 as its library"),
        (lambda m: setattr(m.variants[0], "runtime", ""), "which runtime"),
        (lambda m: setattr(m.variants[0].target, "kind", "abacus"), "unknown target kind 'abacus'"),
        (lambda m: setattr(m.sections[0], "id", 2), "used twice"),
        (lambda m: setattr(m.variants[0].entry_points[0], "name", ""), "is empty"),
        (lambda m: m.variants[0].entry_points.append(samples.entry_point()), "there twice"),
        (lambda m: setattr(m.variants[0].entry_points[0].parameters[0], "dtype", "int7"), "unknown dtype 'int7'"),
        (lambda m: setattr(m.variants[0].entry_points[0].parameters[0], "kind", 9), "a kind that this release"),
        (lambda m: setattr(m.variants[0].entry_points[0].parameters[0], "role", 9), "a role that this release"),
        (lambda m: m.variants[0].entry_points[0].symbols.append("n"), "names a symbol twice"),
        (lambda m: m.variants[0].entry_points[0].parameters[0].shape.append(IndexExpr()), "malformed size"),
        (
            lambda m: m.variants[0].entry_points[0].parameters[0].shape[0].ops.add(operator=IndexExpr.ADD),
            "malformed size",
        ),
        (
            lambda m: m.variants[0].entry_points[0].parameters[0].shape[0].CopyFrom(expression("x", {"x": 9})),
            "malformed size",
        ),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(change: object, message: str) -> None:
    original = samples.artifact()
    manifest = Manifest()
    manifest.CopyFrom(original.manifest)
    change(manifest)  # type: ignore[operator]
    head = envelope.write("artifact", manifest.SerializeToString(), 1, 1)
    body = b"".join(original.section(entry.id) for entry in original.manifest.sections)
    with pytest.raises(InvalidArtifact) as failure:
        Artifact.from_bytes(head + body)
    assert message in failure.value.message


@given(st.data())
@settings(max_examples=300)
def test_mutated_files_raise_only_our_errors(data: st.DataObject) -> None:
    original = samples.artifact().data
    blob = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(blob) - 1))
        match data.draw(st.integers(0, 2)):
            case 0:
                blob[at] = data.draw(st.integers(0, 255))
            case 1:
                del blob[at : at + data.draw(st.integers(1, 50))]
            case _:
                blob[at:at] = data.draw(st.binary(min_size=1, max_size=20))
        if not blob:
            break
    if bytes(blob) != original:
        with pytest.raises(Error):
            Artifact.from_bytes(bytes(blob))


@given(st.data())
@settings(max_examples=300)
def test_manifests_of_hostile_writers_raise_only_our_errors(data: st.DataObject) -> None:
    """The checksums are right and the content is not: what a malicious writer would send."""
    original = samples.artifact()
    payload = bytearray(original.manifest.SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    body = b"".join(original.section(entry.id) for entry in original.manifest.sections)
    try:
        Artifact.from_bytes(envelope.write("artifact", bytes(payload), 1, 1) + body)
    except InvalidArtifact:
        pass
