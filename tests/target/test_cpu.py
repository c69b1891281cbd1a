"""CPU features: what the system says, under the names that targets use."""

from __future__ import annotations

import sys

import llvmlite.binding as llvm
import pytest

from crossfarm.errors import InvalidTarget
from crossfarm.target import Target, cpu
from crossfarm.target.triples import llvm_triple, parse_triple


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="compares with what LLVM finds on Linux")
def test_what_is_detected_without_llvm_is_what_llvm_detects() -> None:
    by_llvm = {name for name, there in llvm.get_host_cpu_features().items() if there}
    ours = cpu.host_cpu_features()
    missed = (by_llvm & cpu.FEATURES[cpu.host_arch()]) - ours
    assert ours <= by_llvm
    # the kernel hides instructions that are broken on a model (rdseed on some), which LLVM does not know of
    assert not [name for name in missed if name.startswith(("avx", "sse", "fma", "f16c", "neon", "sve", "dotprod"))]


def test_levels_are_met_in_full_or_not_at_all() -> None:
    v3 = cpu.MODELS["x86_64"]["x86-64-v3"]
    assert cpu.x86_level(v3) == "x86-64-v3"
    assert cpu.x86_level(v3 - {"fma"}) == "x86-64-v2"
    assert cpu.x86_level([]) == "x86-64"


def test_later_features_win() -> None:
    assert "avx2" not in cpu.enabled_features("x86_64", "x86-64-v3", ["+avx2", "-avx2"])
    assert "avx512f" in cpu.enabled_features("x86_64", "x86-64-v3", ["-avx512f", "+avx512f"])


@pytest.mark.parametrize(
    ("words", "hwcap2", "expected"),
    [
        # bits 6 vfp, 12 neon, 13 vfpv3, 14 vfpv3d16, 16 vfpv4, 17 idiva, 18 idivt, 19 vfpd32; 4 of the second: crc32
        ((6,), 0, set()),
        ((6, 13, 14), 0, {"vfp3d16"}),
        ((6, 12, 13, 19), 0, {"vfp3d16", "vfp3", "neon"}),
        ((6, 13, 16, 17, 18), 0, {"vfp3d16", "hwdiv", "hwdiv-arm"}),
        ((6, 12, 13, 16, 17, 18, 19), 16, cpu.MODELS["arm"]["cortex-a53"]),
    ],
)
def test_32_bit_arm_is_known_by_the_kernels_bits(words: tuple[int, ...], hwcap2: int, expected: set[str]) -> None:
    assert cpu._FEATURES_OF_HWCAPS["arm"](sum(1 << bit for bit in words), hwcap2) == expected


def test_riscv_extensions_are_letters_of_the_kernels_bits() -> None:
    linux = cpu._LEAST_HWCAPS["riscv64"][0]
    assert linux == 0x112D
    assert cpu._FEATURES_OF_HWCAPS["riscv64"](linux, 0) == cpu.MODELS["riscv64"]["generic-rv64"]
    assert "v" in cpu._FEATURES_OF_HWCAPS["riscv64"](linux | 1 << 21, 0)
    assert cpu.vector_bits("riscv64", "imafdcv") == 128
    assert cpu.vector_bits("riscv64", "imafdc") == 0


@pytest.mark.parametrize("arch", ["arm", "riscv64", "aarch64"])
def test_a_machine_is_detected_from_what_its_kernel_says(arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = cpu.BASELINE[arch]
    bits = {"arm": (0xF3840, 0), "riscv64": cpu._LEAST_HWCAPS["riscv64"], "aarch64": cpu._LEAST_HWCAPS["aarch64"]}
    monkeypatch.setattr(cpu, "host_arch", lambda: arch)
    monkeypatch.setattr(cpu, "_hwcaps", lambda asked: bits[asked])
    monkeypatch.setattr(cpu, "cpuinfo", dict)
    cpu.host_cpu_features.cache_clear()
    try:
        detected = Target.detect()
    finally:
        cpu.host_cpu_features.cache_clear()
    assert detected.attributes["arch"] == arch
    assert detected.enabled_features() == cpu.MODELS[arch][model]
    assert detected.buildable_reason() is None


@pytest.mark.parametrize("arch", cpu.ARCHES)
def test_llvm_knows_every_model_and_feature_by_its_name_here(arch: str, capfd: pytest.CaptureFixture[str]) -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    module = llvm.parse_assembly("define void @f() { ret void }")
    target = llvm.Target.from_triple(llvm_triple(arch, "linux"))
    for model in cpu.MODELS[arch]:
        target.create_target_machine(cpu=model).emit_object(module)
    everything = ",".join(f"+{name}" for name in sorted(cpu.FEATURES[arch]))
    target.create_target_machine(features=everything).emit_object(module)
    assert capfd.readouterr().err == ""  # where LLVM complains of an unknown name
    target.create_target_machine(features="+flux-capacitor").emit_object(module)
    assert "flux-capacitor" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("triple", "expected"),
    [
        ("aarch64-linux-android", ("aarch64", "android")),
        ("aarch64-unknown-linux-gnu", ("aarch64", "linux")),
        ("x86_64-linux-gnu", ("x86_64", "linux")),
        ("x86_64-linux", ("x86_64", "linux")),
        ("armv7-linux-gnueabihf", ("arm", "linux")),
        ("x86_64-pc-windows-msvc", ("x86_64", "windows")),
        ("riscv64-linux-musl", ("riscv64", "linux")),
    ],
)
def test_triples_are_read_in_every_usual_spelling(triple: str, expected: tuple[str, str]) -> None:
    assert parse_triple(triple) == expected
    assert parse_triple(llvm_triple(*expected)) == expected


@pytest.mark.parametrize("triple", ["sparc-linux-gnu", "x86_64-beos", "x86_64", "x86_64-linux-gnu-extra"])
def test_a_wrong_triple_names_its_wrong_part(triple: str) -> None:
    with pytest.raises(InvalidTarget, match="triple"):
        parse_triple(triple)
