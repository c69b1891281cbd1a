"""Host triples: ``aarch64-linux-android``, ``x86_64-unknown-linux-gnu``, ``x86_64-windows-msvc`` ↔ arch and os."""

from __future__ import annotations

from crossfarm.errors import InvalidTarget
from crossfarm.target.kinds import suggest

_ARCHES = {
    "x86_64": "x86_64",
    "amd64": "x86_64",
    "aarch64": "aarch64",
    "arm64": "aarch64",
    "armv7": "arm",
    "armv7a": "arm",
    "arm": "arm",
    "riscv64": "riscv64",
}
_VENDORS = ("unknown", "pc", "none", "apple", "w64")
_OSES = {"linux": "linux", "windows": "windows", "win32": "windows", "darwin": "macos", "macos": "macos"}
_ABIS = ("gnu", "gnueabihf", "musl", "msvc", "android", "androideabi")

_CANONICAL = {
    ("x86_64", "linux"): "x86_64-unknown-linux-gnu",
    ("aarch64", "linux"): "aarch64-unknown-linux-gnu",
    ("arm", "linux"): "armv7-unknown-linux-gnueabihf",
    ("riscv64", "linux"): "riscv64-unknown-linux-gnu",
    ("x86_64", "android"): "x86_64-unknown-linux-android",
    ("aarch64", "android"): "aarch64-unknown-linux-android",
    ("arm", "android"): "armv7-unknown-linux-androideabi",
    ("x86_64", "windows"): "x86_64-w64-windows-gnu",
    ("aarch64", "windows"): "aarch64-w64-windows-gnu",
    ("x86_64", "macos"): "x86_64-apple-darwin",
    ("aarch64", "macos"): "arm64-apple-darwin",
}

#: Architectures and operating systems that native libraries are built for.
HOSTS = (
    ("x86_64", "linux"),
    ("aarch64", "linux"),
    ("arm", "linux"),
    ("riscv64", "linux"),
    ("x86_64", "android"),
    ("aarch64", "android"),
    ("arm", "android"),
    ("x86_64", "windows"),
)


def looks_like_triple(word: str) -> bool:
    """True when the word begins with an architecture and has an operating system."""
    parts = word.split("-")
    return len(parts) >= 2 and parts[0] in _ARCHES and any(p in _OSES for p in parts[1:])


def parse_triple(word: str) -> tuple[str, str]:
    """``"aarch64-linux-android"`` → ``("aarch64", "android")``. Raises InvalidTarget naming the part that is wrong."""
    arch, *rest = word.split("-")
    if arch not in _ARCHES:
        hint = suggest(arch, _ARCHES) or "a triple is ARCH-OS or ARCH-OS-ABI, such as aarch64-linux-gnu"
        raise InvalidTarget(f"unknown architecture {arch!r} in triple {word!r}", hint=hint)
    rest = [part for part in rest if part not in _VENDORS]
    if not rest or rest[0] not in _OSES:
        what = f"operating system {rest[0]!r}" if rest else "(missing) operating system"
        raise InvalidTarget(f"unknown {what} in triple {word!r}", hint=f"known are: {', '.join(_OSES)}")
    system, abi = _OSES[rest[0]], rest[1:]
    if len(abi) > 1 or (abi and abi[0] not in _ABIS):
        raise InvalidTarget(f"unknown ABI {'-'.join(abi)!r} in triple {word!r}", hint=f"known are: {', '.join(_ABIS)}")
    if abi and abi[0].startswith("android"):
        system = "android"
    return _ARCHES[arch], system


def llvm_triple(arch: str, system: str) -> str:
    """LLVM's triple for an architecture and operating system. Raises InvalidTarget where LLVM has none here."""
    try:
        return _CANONICAL[arch, system]
    except KeyError:
        raise InvalidTarget(f"there is no target triple for {arch} on {system}") from None
