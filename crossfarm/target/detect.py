"""What the machine this runs on is as a target, from what the operating system says; no compiler is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil

from crossfarm.errors import UnsupportedTarget
from crossfarm.target import cpu

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def detect() -> dict[str, Any]:
    """This machine as a CPU target, in the mapping form that ``Target`` takes.

    The model is a level or ``generic`` and every further feature is listed, so that code needs only what is there
    (virtual machines hide features of the model they report); the core itself goes into ``tune``.

    Raises:
        UnsupportedTarget: for an architecture that crossfarm does not know.
    """
    arch = cpu.host_arch()
    if arch not in cpu.ARCHES:
        raise UnsupportedTarget(f"this machine's architecture {arch!r} is not one of {', '.join(cpu.ARCHES)}")
    have = cpu.host_cpu_features()
    model = {"x86_64": cpu.x86_level(have), "riscv64": "generic-rv64"}.get(arch, "generic")
    base = cpu.MODELS[arch][model]
    tree: dict[str, Any] = {
        "kind": "llvm",
        "arch": arch,
        "os": cpu.host_os() if cpu.host_os() in ("linux", "android", "windows", "macos") else "linux",
        "cpu": model,
        "features": [f"+{name}" for name in sorted(have - base)] + [f"-{name}" for name in sorted(base - have)],
        "vector_bits": cpu.vector_bits(arch, have),
        **_caches(),
    }
    tune = cpu.host_cpu_model()
    if tune in cpu.MODELS[arch]:
        tree["tune"] = tune
    for name, count in (("cores", psutil.cpu_count(logical=False)), ("threads", psutil.cpu_count())):
        if count:
            tree[name] = count
    return tree


def _caches() -> dict[str, int]:
    """Sizes of the first processor's data caches where Linux tells them."""
    found: dict[str, int] = {}
    for index in sorted(_CACHES.glob("index*")):
        try:
            level, kind = int((index / "level").read_text()), (index / "type").read_text().strip()
            size, line = (index / "size").read_text().strip(), int((index / "coherency_line_size").read_text())
        except (OSError, ValueError):
            continue
        units = {"K": 1 << 10, "M": 1 << 20}
        number = size.rstrip("KM")
        if kind == "Instruction" or level > 3 or not number.isdecimal():
            continue
        found[f"l{level}_bytes"] = int(number) * units.get(size[-1:], 1)
        found["cache_line_bytes"] = line
    return found
