"""Tags: one word for a device people know. Each row is a target as ``Target`` takes it; hosts are tags or triples.

A tag is a shorthand, not an identity: ``Target("raspberry-pi/4b")`` equals the target with the same attributes spelled
out. Numbers are the vendors' data sheets'.
"""

from __future__ import annotations

from typing import Any

_LINUX_X86 = {"kind": "llvm", "arch": "x86_64", "os": "linux"}
_LINUX_ARM = {"kind": "llvm", "arch": "aarch64", "os": "linux"}
_CPU_KIB = 1024
_MIB = 1 << 20


def _x86(model: str, **more: Any) -> dict[str, Any]:
    return {**_LINUX_X86, "cpu": model, **more}


def _arm(model: str, **more: Any) -> dict[str, Any]:
    return {**_LINUX_ARM, "cpu": model, **more}


def _cloud(base: dict[str, Any], cores: int, threads: int, gib: int) -> dict[str, Any]:
    return {**base, "cores": cores, "threads": threads, "memory_bytes": gib << 30}


def _jetson(sm: int, units: int, gib: int, host: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "kind": "cuda",
        "sm": sm,
        "compute_units": units,
        "memory_bytes": gib << 30,
        "fp16": True,
        "host": host,
        **more,
    }


def _adreno(model: str, extensions: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    return {
        "kind": "opencl",
        "model": model,
        "version": "2.0",
        "max_threads_per_group": 1024,
        "shared_bytes": 32 * _CPU_KIB,
        "warp_size": 64,
        "fp16": True,
        "image2d_max": 16384,
        "extensions": ("cl_khr_fp16", *extensions),
        "host": "aarch64-linux-android",
        **more,
    }


def _mali(model: str, units: int, **more: Any) -> dict[str, Any]:
    return {
        "kind": "opencl",
        "model": model,
        "version": "2.0",
        "compute_units": units,
        "max_threads_per_group": 384,
        "shared_bytes": 32 * _CPU_KIB,
        "warp_size": 8,
        "fp16": True,
        "image2d_max": 65536,
        "extensions": ("cl_khr_fp16",),
        "host": "aarch64-linux-android",
        **more,
    }


_SKYLAKE_SP = _x86("skylake-avx512", l1_bytes=32 * _CPU_KIB, l2_bytes=_MIB)
_CASCADE = _x86("cascadelake", l1_bytes=32 * _CPU_KIB, l2_bytes=_MIB)
_ICE = _x86("icelake-server", l1_bytes=48 * _CPU_KIB, l2_bytes=1280 * _CPU_KIB)
_SAPPHIRE = _x86("sapphirerapids", l1_bytes=48 * _CPU_KIB, l2_bytes=2 * _MIB)
_MILAN = _x86("znver3", l1_bytes=32 * _CPU_KIB, l2_bytes=512 * _CPU_KIB)
_GENOA = _x86("znver4", l1_bytes=32 * _CPU_KIB, l2_bytes=_MIB)
_GRAVITON2 = _arm("neoverse-n1", l1_bytes=64 * _CPU_KIB, l2_bytes=_MIB)
_GRAVITON3 = _arm("neoverse-v1", l1_bytes=64 * _CPU_KIB, l2_bytes=_MIB)
_GRAVITON4 = _arm("neoverse-v2", l1_bytes=64 * _CPU_KIB, l2_bytes=2 * _MIB)

# The boards' 64-bit systems. Raspberry Pi 3 and 4 have no cryptography instructions, which LLVM's models assume.
_PI3 = _arm(
    "cortex-a53", features=("-aes", "-sha2"), cores=4, threads=4, l1_bytes=32 * _CPU_KIB, l2_bytes=512 * _CPU_KIB
)
_PI4 = _arm("cortex-a72", features=("-aes", "-sha2"), cores=4, threads=4, l1_bytes=32 * _CPU_KIB, l2_bytes=_MIB)
_PI5 = _arm("cortex-a76", cores=4, threads=4, l1_bytes=64 * _CPU_KIB, l2_bytes=512 * _CPU_KIB, l3_bytes=2 * _MIB)
_NANO_CPU = _arm("cortex-a57", cores=4, threads=4, l1_bytes=32 * _CPU_KIB, l2_bytes=2 * _MIB)
_XAVIER_CPU = _arm("carmel", l1_bytes=64 * _CPU_KIB, l2_bytes=2 * _MIB, l3_bytes=4 * _MIB)
_ORIN_CPU = _arm("cortex-a78ae", l1_bytes=64 * _CPU_KIB, l2_bytes=256 * _CPU_KIB, l3_bytes=2 * _MIB)

TAGS: dict[str, Any] = {
    # Generic
    "x86-64": _x86("x86-64"),
    "x86-64-v2": _x86("x86-64-v2"),
    "x86-64-v3": _x86("x86-64-v3"),
    "x86-64-v4": _x86("x86-64-v4"),
    "aarch64-linux-generic": _arm("generic"),
    "aarch64-android-generic": {**_arm("generic"), "os": "android"},
    "armv7-linux-generic": {"kind": "llvm", "arch": "arm", "os": "linux", "cpu": "cortex-a7"},
    "riscv64-linux-generic": {"kind": "llvm", "arch": "riscv64", "os": "linux", "cpu": "generic-rv64"},
    "windows-x86-64": {"kind": "llvm", "arch": "x86_64", "os": "windows", "cpu": "x86-64-v2"},
    "windows-x86-64/vulkan": {
        "kind": "vulkan",
        "max_threads_per_group": 1024,
        "shared_bytes": 32 * _CPU_KIB,
        "host": {"kind": "llvm", "arch": "x86_64", "os": "windows", "cpu": "x86-64-v2"},
    },
    # One artifact for every CPU device of a farm of current machines
    "any-cpu": ["x86-64-v3", "aarch64-linux-generic"],
    # Cloud instances
    "aws/c5.xlarge": _cloud(_SKYLAKE_SP, 2, 4, 8),
    "aws/c5.4xlarge": _cloud(_SKYLAKE_SP, 8, 16, 32),
    "aws/c5.9xlarge": _cloud(_SKYLAKE_SP, 18, 36, 72),
    "aws/c5.12xlarge": _cloud(_CASCADE, 24, 48, 96),
    "aws/c6i.xlarge": _cloud(_ICE, 2, 4, 8),
    "aws/c6i.4xlarge": _cloud(_ICE, 8, 16, 32),
    "aws/c6a.xlarge": _cloud(_MILAN, 2, 4, 8),
    "aws/c6g.xlarge": _cloud(_GRAVITON2, 4, 4, 8),
    "aws/c6g.4xlarge": _cloud(_GRAVITON2, 16, 16, 32),
    "aws/c7g.xlarge": _cloud(_GRAVITON3, 4, 4, 8),
    "aws/c7g.4xlarge": _cloud(_GRAVITON3, 16, 16, 32),
    "aws/c7i.xlarge": _cloud(_SAPPHIRE, 2, 4, 8),
    "aws/c7i.4xlarge": _cloud(_SAPPHIRE, 8, 16, 32),
    "aws/c7a.xlarge": _cloud(_GENOA, 4, 4, 8),
    "aws/c8g.xlarge": _cloud(_GRAVITON4, 4, 4, 8),
    "gcp/n2-standard-4": _cloud(_CASCADE, 2, 4, 16),
    "gcp/n2d-standard-4": _cloud(_MILAN, 2, 4, 16),
    "gcp/c3-standard-4": _cloud(_SAPPHIRE, 2, 4, 16),
    "gcp/t2a-standard-4": _cloud(_GRAVITON2, 4, 4, 16),
    "azure/D4s_v5": _cloud(_ICE, 2, 4, 16),
    "azure/D4as_v5": _cloud(_MILAN, 2, 4, 16),
    "azure/D4ps_v5": _cloud(_GRAVITON2, 4, 4, 16),
    # Boards
    "raspberry-pi/3b": {**_PI3, "model": "Raspberry Pi 3 Model B", "memory_bytes": 1 << 30},
    "raspberry-pi/4b": {**_PI4, "model": "Raspberry Pi 4 Model B"},
    "raspberry-pi/5": {**_PI5, "model": "Raspberry Pi 5"},
    "nvidia/jetson-nano": _jetson(53, 1, 4, _NANO_CPU, model="Jetson Nano", registers_per_group=32768),
    "nvidia/jetson-tx2": _jetson(62, 2, 8, _NANO_CPU, model="Jetson TX2", registers_per_group=32768),
    "nvidia/jetson-xavier-nx": _jetson(72, 6, 8, {**_XAVIER_CPU, "cores": 6}, model="Jetson Xavier NX"),
    "nvidia/jetson-agx-xavier": _jetson(72, 8, 32, {**_XAVIER_CPU, "cores": 8}, model="Jetson AGX Xavier"),
    "nvidia/jetson-orin-nano": _jetson(87, 8, 8, {**_ORIN_CPU, "cores": 6}, model="Jetson Orin Nano"),
    "nvidia/jetson-orin-nx": _jetson(87, 8, 16, {**_ORIN_CPU, "cores": 8}, model="Jetson Orin NX"),
    "nvidia/jetson-agx-orin": _jetson(87, 16, 64, {**_ORIN_CPU, "cores": 12}, model="Jetson AGX Orin"),
    # Phones, by GPU class
    "qualcomm/adreno-5xx": _adreno("Adreno 5xx", warp_size=32),
    "qualcomm/adreno-6xx": _adreno("Adreno 6xx", ("cl_qcom_recordable_queues",)),
    "qualcomm/adreno-7xx": _adreno("Adreno 7xx", ("cl_qcom_recordable_queues",), version="3.0"),
    "arm/mali-t860": _mali("Mali-T860", 4, version="1.2", max_threads_per_group=256, warp_size=1),
    "arm/mali-g52": _mali("Mali-G52", 2),
    "arm/mali-g71": _mali("Mali-G71", 8, warp_size=4),
    "arm/mali-g76": _mali("Mali-G76", 10),
    "arm/mali-g78": _mali("Mali-G78", 14, max_threads_per_group=512, warp_size=16),
    "arm/mali-g710": _mali("Mali-G710", 10, max_threads_per_group=1024, warp_size=16, version="3.0"),
    "arm/mali-g715": _mali("Mali-G715", 11, max_threads_per_group=1024, warp_size=16, version="3.0"),
}
