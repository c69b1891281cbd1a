"""CPU features and models: one vocabulary for targets, artifacts' requirements and what a machine has.

Names of features are LLVM's without the sign (``avx2``, ``sse4.1``, ``neon``, ``dotprod``), whatever the operating
system calls them. A target's ``features`` attribute is the same names with ``+`` or ``-`` in front, as LLVM takes them.
Nothing here imports a compiler: agents on boards call it.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Iterable
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

# arm: name in /proc/cpuinfo → LLVM's.
_ARM = {"neon": "neon", "vfpv3": "vfp3", "vfpv4": "vfp4", "idiva": "hwdiv-arm", "idivt": "hwdiv", "crc32": "crc"}

# riscv64: single letters of the isa string.
_RISCV = {letter: letter for letter in "imafdcv"}

#: Every feature name by architecture.
FEATURES: dict[str, frozenset[str]] = {
    "x86_64": frozenset(_X86.values()),
    "aarch64": frozenset(_AARCH64_HWCAP.values()) | frozenset(_AARCH64_HWCAP2.values()),
    "arm": frozenset(_ARM.values()),
    "riscv64": frozenset(_RISCV.values()),
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
        "generic": frozenset(),
        "cortex-a7": frozenset({"neon", "vfp4", "hwdiv", "hwdiv-arm"}),
        "cortex-a9": frozenset({"neon", "vfp3"}),
        "cortex-a15": frozenset({"neon", "vfp4", "hwdiv", "hwdiv-arm"}),
        "cortex-a53": frozenset({"neon", "vfp4", "hwdiv", "hwdiv-arm", "crc"}),
    },
    "riscv64": {"generic-rv64": frozenset("imafdc"), "sifive-u74": frozenset("imafdc")},
}

#: The model a target gets that names an architecture and no model: what nearly every machine of the last ten years
#: runs. x86-64-v3 is Intel's Haswell of 2013 and AMD's Excavator of 2015; older ones say x86-64-v2.
BASELINE = {"x86_64": "x86-64-v3", "aarch64": "generic", "arm": "cortex-a7", "riscv64": "generic-rv64"}

_X86_LEVELS = ("x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4")

# (implementer, part) of MIDR_EL1 → LLVM's name
_ARM_PARTS = {
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

    x86-64 and arm: /proc/cpuinfo. aarch64: the kernel's AT_HWCAP (also right under user-mode emulation, where
    /proc/cpuinfo is the host's). Elsewhere (Windows, macOS) what each machine of that architecture has: code built for
    it runs, code that needs more is refused.
    """
    arch = host_arch()
    if sys.platform != "win32":
        if arch == "x86_64" and (flags := cpuinfo().get("flags")):
            return frozenset(_X86[f] for f in flags.split() if f in _X86)
        if arch == "aarch64" and host_os() in ("linux", "android"):
            return _hwcap_features(*_hwcaps())
        if arch == "arm" and (words := cpuinfo().get("Features")):
            return frozenset(_ARM[f] for f in words.split() if f in _ARM)
        if arch == "riscv64" and (isa := cpuinfo().get("isa")):
            return frozenset(_RISCV[c] for c in isa.split("_")[0].removeprefix("rv64") if c in _RISCV)
    floor = {"x86_64": "x86-64-v2", "aarch64": "generic"}.get(arch)
    return MODELS[arch][floor] if floor else frozenset()


def host_cpu_model() -> str:
    """LLVM's name of this machine's core where it is sure, else ``""``."""
    info = cpuinfo()
    if host_arch() == "aarch64":
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
    return 128 if "neon" in have else 0


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


def _hwcaps() -> tuple[int, int]:
    try:
        getauxval = ctypes.CDLL(None).getauxval
    except (OSError, AttributeError):
        return 0b11, 0  # every aarch64 has floating point and NEON
    getauxval.restype, getauxval.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
    return int(getauxval(16)), int(getauxval(26))  # AT_HWCAP, AT_HWCAP2


def _hwcap_features(hwcap: int, hwcap2: int) -> frozenset[str]:
    low = {name for bit, name in _AARCH64_HWCAP.items() if hwcap >> bit & 1}
    return frozenset(low | {name for bit, name in _AARCH64_HWCAP2.items() if hwcap2 >> bit & 1})
