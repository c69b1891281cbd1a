"""CPU features and models: one vocabulary for targets, artifacts' requirements and what a machine has.

Names of features are LLVM's without the sign (``avx2``, ``sse4.1``, ``neon``, ``dotprod``), whatever the operating
system calls them. A target's ``features`` attribute is the same names with ``+`` or ``-`` in front, as LLVM takes them.
Nothing here imports a compiler: agents on boards call it.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

ARCHES = ("x86_64", "aarch64", "arm", "riscv64")

_MACHINES = {
    "x86_64": "x86_64",
    "amd64": "x86_64",
    "aarch64": "aarch64",
    "arm64": "aarch64",
    "armv7l": "arm",
    "armv8l": "arm",
    "arm": "arm",
    "riscv64": "riscv64",
}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# x86: name in /proc/cpuinfo → LLVM's.
_X86: dict[str, str] = {
    **{
        name: name
        for name in _words(
            "cmov cx8 fxsr mmx sse sse2 ssse3 cx16 popcnt avx avx2 bmi2 f16c fma movbe xsave xsavec xsaves xsaveopt "
            "aes adx rdseed rdpid vaes vpclmulqdq gfni clflushopt clwb clzero fsgsbase invpcid sse4a fma4 xop tbm lwp "
            "avx512f avx512bw avx512cd avx512dq avx512vl avx512ifma avx512vbmi"
        )
    },
    "pni": "sse3",
    "sse4_1": "sse4.1",
    "sse4_2": "sse4.2",
    "lahf_lm": "sahf",
    "abm": "lzcnt",
    "bmi1": "bmi",
    "pclmulqdq": "pclmul",
    "rdrand": "rdrnd",
    "sha_ni": "sha",
    "3dnowprefetch": "prfchw",
    "avx512_vbmi2": "avx512vbmi2",
    "avx512_vnni": "avx512vnni",
    "avx512_bitalg": "avx512bitalg",
    "avx512_vpopcntdq": "avx512vpopcntdq",
    "avx512_bf16": "avx512bf16",
    "avx512_fp16": "avx512fp16",
    "avx512_vp2intersect": "avx512vp2intersect",
    "avx_vnni": "avxvnni",
    "avx_vnni_int8": "avxvnniint8",
    "avx_ifma": "avxifma",
    "amx_tile": "amx-tile",
    "amx_int8": "amx-int8",
    "amx_bf16": "amx-bf16",
    "avx10_1": "avx10.1",
}

# aarch64: bit of AT_HWCAP (linux/arch/arm64/include/uapi/asm/hwcap.h) → LLVM's name. Of aes and pmull LLVM makes one.
_AARCH64_HWCAP = {
    0: "fp-armv8",
    1: "neon",
    3: "aes",
    6: "sha2",
    7: "crc",
    8: "lse",
    10: "fullfp16",
    12: "rdm",
    13: "jsconv",
    14: "complxnum",
    15: "rcpc",
    16: "ccpp",
    17: "sha3",
    19: "sm4",
    20: "dotprod",
    22: "sve",
    23: "fp16fml",
    24: "dit",
    25: "lse2",
    26: "rcpc-immo",
    27: "flagm",
    28: "ssbs",
    29: "sb",
    30: "pauth",
}
_AARCH64_HWCAP2 = {0: "ccdp", 1: "sve2", 7: "altnzcv", 8: "fptoint", 13: "i8mm", 14: "bf16", 16: "rand", 17: "bti"}

# arm: bit of AT_HWCAP (linux/arch/arm/include/uapi/asm/hwcap.h) → LLVM's name. That there is VFPv3 or v4 says nothing
# of its 32 registers, which LLVM's vfp3 and vfp4 have: bit 14 (VFPv3-D16) or no bit 19 (VFPD32) denies them.
_ARM_HWCAP = {12: "neon", 13: "vfp3", 16: "vfp4", 17: "hwdiv-arm", 18: "hwdiv"}
_ARM_HWCAP2 = {4: "crc"}
_ARM_D16 = "vfp3d16"

# riscv64: bit of AT_HWCAP → extension: bit 0 is "a".
_RISCV_HWCAP = {ord(letter) - ord("a"): letter for letter in "imafdcv"}

#: Every feature name by architecture.
FEATURES: dict[str, frozenset[str]] = {
    "x86_64": frozenset(_X86.values()),
    "aarch64": frozenset(_AARCH64_HWCAP.values()) | frozenset(_AARCH64_HWCAP2.values()),
    "arm": frozenset({*_ARM_HWCAP.values(), *_ARM_HWCAP2.values(), _ARM_D16}),
    "riscv64": frozenset(_RISCV_HWCAP.values()),
}

_V1 = _words("cmov cx8 fxsr mmx sse sse2")
_V2 = _V1 | _words("cx16 sahf popcnt sse3 sse4.1 sse4.2 ssse3")
_V3 = _V2 | _words("avx avx2 bmi bmi2 f16c fma lzcnt movbe xsave")
_V4 = _V3 | _words("avx512f avx512bw avx512cd avx512dq avx512vl")
_CRYPTO = _words("aes pclmul")
_ICELAKE = (
    _V4
    | _CRYPTO
    | _words("avx512ifma avx512vbmi avx512vbmi2 avx512vnni avx512bitalg avx512vpopcntdq")
    | _words("gfni vaes vpclmulqdq sha rdpid")
)
_ZEN4 = _ICELAKE | frozenset({"avx512bf16"})
_ARM80 = frozenset({"fp-armv8", "neon"})
_A53 = _ARM80 | frozenset({"crc", "aes", "sha2"})
_ARM82 = _A53 | frozenset({"lse", "rdm", "fullfp16", "dotprod", "rcpc"})
# What Debian's armhf asks for, with which the hard float calling convention is possible at all
_ARMV7 = frozenset({_ARM_D16})
_CORTEX_A7 = _ARMV7 | _words("neon vfp3 vfp4 hwdiv hwdiv-arm")
_NEOVERSE_V1 = _ARM82 | frozenset({"sve", "i8mm", "bf16", "fp16fml", "complxnum", "jsconv"})

#: What each known CPU model (LLVM's names) brings, by architecture: the psABI levels, ``generic`` and real cores.
MODELS: dict[str, dict[str, frozenset[str]]] = {
    "x86_64": {
        "x86-64": _V1,
        "x86-64-v2": _V2,
        "x86-64-v3": _V3,
        "x86-64-v4": _V4,
        "nehalem": _V2,
        "goldmont": _V2 | _CRYPTO | {"movbe", "sha", "rdrnd"},
        "haswell": _V3 | _CRYPTO,
        "broadwell": _V3 | _CRYPTO | {"adx", "rdseed"},
        "skylake": _V3 | _CRYPTO | {"adx", "rdseed"},
        "alderlake": _V3 | _CRYPTO | {"adx", "rdseed", "avxvnni", "gfni", "vaes", "vpclmulqdq", "sha"},
        "skylake-avx512": _V4 | _CRYPTO,
        "cascadelake": _V4 | _CRYPTO | {"avx512vnni"},
        "icelake-server": _ICELAKE,
        "sapphirerapids": _ZEN4 | {"avx512fp16", "avxvnni", "amx-tile", "amx-int8", "amx-bf16"},
        "znver1": _V3 | _CRYPTO | {"adx", "rdseed", "sha"},
        "znver2": _V3 | _CRYPTO | {"adx", "rdseed", "sha"},
        "znver3": _V3 | _CRYPTO | {"adx", "rdseed", "sha", "vaes", "vpclmulqdq"},
        "znver4": _ZEN4,
        "znver5": _ZEN4 | {"avxvnni"},
    },
    "aarch64": {
        "generic": _ARM80,
        "cortex-a35": _A53,
        "cortex-a53": _A53,
        "cortex-a55": _ARM82,
        "cortex-a57": _A53,
        "cortex-a72": _A53,
        "cortex-a73": _A53,
        "cortex-a75": _ARM82,
        "cortex-a76": _ARM82,
        "cortex-a77": _ARM82,
        "cortex-a78": _ARM82,
        "cortex-a78ae": _ARM82,
        "cortex-x1": _ARM82,
        "cortex-a510": _NEOVERSE_V1 | {"sve2"},
        "cortex-a710": _NEOVERSE_V1 | {"sve2"},
        "cortex-a715": _NEOVERSE_V1 | {"sve2"},
        "cortex-x2": _NEOVERSE_V1 | {"sve2"},
        "cortex-x3": _NEOVERSE_V1 | {"sve2"},
        "carmel": _A53 | {"lse", "rdm", "fullfp16"},
        "neoverse-n1": _ARM82,
        "neoverse-v1": _NEOVERSE_V1,
        "neoverse-n2": _NEOVERSE_V1 | {"sve2"},
        "neoverse-v2": _NEOVERSE_V1 | {"sve2"},
        "apple-m1": _ARM82 | {"sha3", "fp16fml", "complxnum", "jsconv"},
    },
    "arm": {
        "generic": _ARMV7,
        "cortex-a7": _CORTEX_A7,
        "cortex-a8": _ARMV7 | {"neon", "vfp3"},
        "cortex-a9": _ARMV7 | {"neon", "vfp3"},
        "cortex-a15": _CORTEX_A7,
        "cortex-a17": _CORTEX_A7,
        "cortex-a53": _CORTEX_A7 | {"crc"},
        "cortex-a72": _CORTEX_A7 | {"crc"},
    },
    "riscv64": {"generic-rv64": frozenset("imafdc"), "sifive-u74": frozenset("imafdc")},
}

#: The model a target gets that names an architecture and no model: what nearly every machine of the last ten years
#: runs. x86-64-v3 is Intel's Haswell of 2013 and AMD's Excavator of 2015; older ones say x86-64-v2.
BASELINE = {"x86_64": "x86-64-v3", "aarch64": "generic", "arm": "cortex-a7", "riscv64": "generic-rv64"}

_X86_LEVELS = ("x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4")

# (implementer, part) of MIDR_EL1 → LLVM's name
_ARM_PARTS = {
    (0x41, 0xC07): "cortex-a7",
    (0x41, 0xC08): "cortex-a8",
    (0x41, 0xC09): "cortex-a9",
    (0x41, 0xC0E): "cortex-a17",
    (0x41, 0xC0F): "cortex-a15",
    (0x41, 0xD03): "cortex-a53",
    (0x41, 0xD04): "cortex-a35",
    (0x41, 0xD05): "cortex-a55",
    (0x41, 0xD07): "cortex-a57",
    (0x41, 0xD08): "cortex-a72",
    (0x41, 0xD09): "cortex-a73",
    (0x41, 0xD0A): "cortex-a75",
    (0x41, 0xD0B): "cortex-a76",
    (0x41, 0xD0C): "neoverse-n1",
    (0x41, 0xD0D): "cortex-a77",
    (0x41, 0xD40): "neoverse-v1",
    (0x41, 0xD41): "cortex-a78",
    (0x41, 0xD42): "cortex-a78ae",
    (0x41, 0xD44): "cortex-x1",
    (0x41, 0xD46): "cortex-a510",
    (0x41, 0xD47): "cortex-a710",
    (0x41, 0xD49): "neoverse-n2",
    (0x41, 0xD4F): "neoverse-v2",
    (0x4E, 0x004): "carmel",
}

# (vendor, family, models or None for all) → LLVM's name; only where it is sure.
_X86_MODELS: list[tuple[str, int, frozenset[int] | None, str]] = [
    ("AuthenticAMD", 26, None, "znver5"),
    ("AuthenticAMD", 25, frozenset({*range(0x10, 0x20), *range(0x60, 0x80), *range(0xA0, 0xB0)}), "znver4"),
    ("AuthenticAMD", 25, None, "znver3"),
    ("AuthenticAMD", 23, frozenset({*range(0x30, 0x40), *range(0x60, 0xB0)}), "znver2"),
    ("AuthenticAMD", 23, None, "znver1"),
    ("GenuineIntel", 6, frozenset({60, 63, 69, 70}), "haswell"),
    ("GenuineIntel", 6, frozenset({61, 71, 79, 86}), "broadwell"),
    ("GenuineIntel", 6, frozenset({78, 94, 142, 158, 165, 166}), "skylake"),
    ("GenuineIntel", 6, frozenset({85}), "skylake-avx512"),
    ("GenuineIntel", 6, frozenset({106, 108}), "icelake-server"),
    ("GenuineIntel", 6, frozenset({143, 207}), "sapphirerapids"),
    ("GenuineIntel", 6, frozenset({151, 154, 183, 186, 191}), "alderlake"),
]


def host_arch() -> str:
    """This machine's architecture, one of ARCHES where it is one, else as the system names it."""
    machine = platform.machine().lower()
    if machine == "aarch64" and sys.maxsize < 2**32:
        return "arm"  # a 32-bit Python on a 64-bit kernel runs 32-bit code
    return _MACHINES.get(machine, machine)


def host_os() -> str:
    """``linux``, ``android``, ``windows`` or ``macos``, else as the system names it."""
    if sys.platform == "android" or hasattr(sys, "getandroidapilevel"):
        return "android"
    return {"linux": "linux", "win32": "windows", "darwin": "macos"}.get(sys.platform, sys.platform)


@cache
def host_cpu_features() -> frozenset[str]:
    """Features of this machine's CPU under the names of FEATURES.

    x86-64: /proc/cpuinfo. The others: the kernel's AT_HWCAP, which is also right where /proc/cpuinfo speaks of another
    machine: under user-mode emulation, and for a 32-bit process of a 64-bit kernel. Elsewhere (Windows, macOS) what
    each machine of that architecture has: code built for it runs, code that needs more is refused.
    """
    arch = host_arch()
    if sys.platform != "win32":
        if arch == "x86_64" and (flags := cpuinfo().get("flags")):
            return frozenset(_X86[f] for f in flags.split() if f in _X86)
        if arch in _FEATURES_OF_HWCAPS and host_os() in ("linux", "android"):
            return _FEATURES_OF_HWCAPS[arch](*_hwcaps(arch))
    floor = {"x86_64": "x86-64-v2", "aarch64": "generic"}.get(arch)
    return MODELS[arch][floor] if floor else frozenset()


def host_cpu_model() -> str:
    """LLVM's name of this machine's core where it is sure, else ``""``."""
    info = cpuinfo()
    if host_arch() in ("aarch64", "arm"):
        try:
            part = (int(info["CPU implementer"], 16), int(info["CPU part"], 16))
        except (KeyError, ValueError):
            return ""
        return _ARM_PARTS.get(part, "")
    try:
        vendor, family, model = info["vendor_id"], int(info["cpu family"]), int(info["model"])
    except (KeyError, ValueError):
        return ""
    for known_vendor, known_family, models, name in _X86_MODELS:
        if vendor == known_vendor and family == known_family and (models is None or model in models):
            return name
    return ""


def x86_level(features: Iterable[str]) -> str:
    """The highest psABI level (``x86-64`` … ``x86-64-v4``) that ``features`` meet in full."""
    have = frozenset(features)
    met = [level for level in _X86_LEVELS if MODELS["x86_64"][level] <= have]
    return met[-1] if met else _X86_LEVELS[0]


def enabled_features(arch: str, model: str, features: Iterable[str]) -> frozenset[str]:
    """What code for this model and these signed features may use: ``+name`` adds, ``-name`` takes away, in order."""
    enabled = set(MODELS.get(arch, {}).get(model, frozenset()))
    for feature in features:
        if feature.startswith("-"):
            enabled.discard(feature[1:])
        else:
            enabled.add(feature.removeprefix("+"))
    return frozenset(enabled)


def vector_bits(arch: str, enabled: Iterable[str]) -> int:
    """Width in bits of the widest fixed-size vector register that ``enabled`` features bring; 0 for none."""
    have = frozenset(enabled)
    if arch == "x86_64":
        return 512 if "avx512f" in have else 256 if "avx" in have else 128
    return 128 if have & {"neon", "v"} else 0


@cache
def cpuinfo() -> dict[str, str]:
    """The first processor's lines of /proc/cpuinfo; empty where there is none."""
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return {}
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            found.setdefault(key.strip(), value.strip())
    return found


#: AT_HWCAP and AT_HWCAP2 of each machine of an architecture, for where the C library cannot be asked: aarch64 has
#: floating point and NEON; what else Linux runs on has less for sure.
_LEAST_HWCAPS = {"aarch64": (0b11, 0), "arm": (0, 0), "riscv64": (sum(1 << ord(x) - ord("a") for x in "imafdc"), 0)}


def _hwcaps(arch: str) -> tuple[int, int]:
    try:
        getauxval = ctypes.CDLL(None).getauxval
    except (OSError, AttributeError):
        return _LEAST_HWCAPS[arch]
    getauxval.restype, getauxval.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
    return int(getauxval(16)), int(getauxval(26))  # AT_HWCAP, AT_HWCAP2


def _names(bits: int, names: dict[int, str]) -> frozenset[str]:
    return frozenset(name for bit, name in names.items() if bits >> bit & 1)


def _aarch64_features(hwcap: int, hwcap2: int) -> frozenset[str]:
    return _names(hwcap, _AARCH64_HWCAP) | _names(hwcap2, _AARCH64_HWCAP2)


def _arm_features(hwcap: int, hwcap2: int) -> frozenset[str]:
    found = _names(hwcap, _ARM_HWCAP) | _names(hwcap2, _ARM_HWCAP2)
    if "vfp3" in found or "vfp4" in found:
        found |= {_ARM_D16}
    has_32_registers = "neon" in found or hwcap >> 19 & 1
    return found if has_32_registers and not hwcap >> 14 & 1 else found - {"vfp3", "vfp4"}


_FEATURES_OF_HWCAPS: dict[str, Callable[[int, int], frozenset[str]]] = {
    "aarch64": _aarch64_features,
    "arm": _arm_features,
    "riscv64": lambda hwcap, hwcap2: _names(hwcap, _RISCV_HWCAP),
}
