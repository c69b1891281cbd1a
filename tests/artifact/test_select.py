"""Which variant a device takes, and what it is told when there is none."""

from __future__ import annotations

import pytest

from crossfarm.artifact import DeviceCapabilities, select_variant, write_artifact
from crossfarm.errors import IncompatibleArtifact
from crossfarm.target import Target, cpu
from tests.artifact import samples

V3 = DeviceCapabilities("cpu", "x86_64", "linux", cpu.MODELS["x86_64"]["x86-64-v3"])
V4 = DeviceCapabilities("cpu", "x86_64", "linux", cpu.MODELS["x86_64"]["x86-64-v4"])
PI4 = DeviceCapabilities("cpu", "aarch64", "linux", Target("raspberry-pi/4b").enabled_features())


@pytest.mark.parametrize("order", [("x86-64-v2", "x86-64-v4", "x86-64-v3"), ("x86-64-v4", "x86-64-v3", "x86-64-v2")])
def test_each_device_takes_the_variant_that_uses_most_of_it(order: tuple[str, ...]) -> None:
    artifact = samples.artifact(*order)
    assert select_variant(artifact, V3).target.tag == "x86-64-v3"
    assert select_variant(artifact, V4).target.tag == "x86-64-v4"


def test_one_artifact_serves_two_architectures() -> None:
    artifact = samples.artifact("x86-64-v3", "aarch64-linux-generic")
    assert select_variant(artifact, V3).requires.arch == "x86_64"
    assert select_variant(artifact, PI4).requires.arch == "aarch64"


HOSTS = ("x86-64-v2", "windows-x86-64", "x86_64-linux-android", "aarch64-linux-generic", "aarch64-android-generic",
         "armv7-linux-generic", "armv7-linux-androideabi", "riscv64-linux-generic")  # fmt: skip


@pytest.mark.parametrize("word", HOSTS)
def test_an_artifact_for_many_hosts_has_one_variant_for_each(word: str) -> None:
    target = Target(word)
    arch, system = str(target.attributes["arch"]), str(target.attributes["os"])
    device = DeviceCapabilities("cpu", arch, system, target.enabled_features(), has_library=lambda _: True)
    chosen = select_variant(samples.artifact(*HOSTS), device)
    assert Target.from_proto(chosen.target) == target.resolved()
    others = samples.artifact(*(other for other in HOSTS if other != word))
    with pytest.raises(IncompatibleArtifact, match=f"cannot run artifact 'sample'.*not {system}"):
        select_variant(others, device)


def test_a_windows_library_is_named_as_windows_loads_it() -> None:
    names = [s.name for s in samples.artifact("x86-64-v2", "windows-x86-64").manifest.sections if s.critical]
    assert [n for n in names if "library" in n] == ["variant-0/library", "variant-1/library.dll"]


def test_this_machine_runs_what_is_built_for_it() -> None:
    assert select_variant(samples.artifact("llvm"), DeviceCapabilities.of_host())
    artifact = write_artifact("m", [samples.variant("native")], [b"so"])
    assert select_variant(artifact, DeviceCapabilities.of_host())
    assert select_variant(artifact, DeviceCapabilities.from_attributes({}, Target.detect()))


@pytest.mark.parametrize(
    ("device", "requires", "message"),
    [
        (PI4, {}, "is x86_64 code, not aarch64"),
        (V3, {"os": "android"}, "is for android, not linux"),
        (DeviceCapabilities("cpu", "x86_64", "linux", V3.cpu_features - {"avx2", "fma"}), {}, "lacks: avx2, fma"),
        (V3, {"native_abi": 9}, "speaks native ABI 9, the device 1"),
        (V3, {"libraries": ["libm.so.6", "libmissing.so.7"]}, "shared libraries that it lacks: libmissing.so.7"),
        (DeviceCapabilities("opencl", "x86_64", "linux"), {}, "is for the runtime 'cpu', not 'opencl'"),
    ],
)
def test_what_is_missing_is_named_with_the_next_step(
    device: DeviceCapabilities, requires: dict[str, object], message: str
) -> None:
    artifact = write_artifact("sample", [samples.variant("x86-64-v3", **requires)], [b"so"])
    with pytest.raises(IncompatibleArtifact) as failure:
        select_variant(artifact, device)
    assert message in failure.value.message
    assert "target=device.target" in failure.value.hint


def test_each_variant_says_what_it_lacks() -> None:
    with pytest.raises(IncompatibleArtifact) as failure:
        select_variant(samples.artifact("x86-64-v4", "aarch64-linux-generic"), V3)
    assert "variant for x86-64-v4 needs CPU features that it lacks: avx512bw" in failure.value.message
    assert "variant for aarch64-linux-generic is aarch64 code, not x86_64" in failure.value.message


def test_the_reference_device_runs_any_artifact_with_its_module_and_null_any_at_all() -> None:
    reference, null = (DeviceCapabilities(runtime, "x86_64", "linux") for runtime in ("reference", "null"))
    foreign = samples.artifact("riscv64-linux-generic")
    assert select_variant(foreign, reference) == select_variant(foreign, null)
    bare = write_artifact("bare", [samples.variant()], [b"so"])
    assert select_variant(bare, null)
    with pytest.raises(IncompatibleArtifact, match="does not carry its IRModule"):
        select_variant(bare, reference)


def test_an_artifact_without_variants_runs_nowhere() -> None:
    with pytest.raises(IncompatibleArtifact, match="no variant"):
        select_variant(write_artifact("empty", [], []), V3)
