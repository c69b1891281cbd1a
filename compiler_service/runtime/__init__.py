"""The C runtime that libraries with parallel loops contain: ``threads.c``, compiled by zig for each platform.

Objects are kept on disk under the digest of everything that shapes them, so that each is compiled once on a machine.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from importlib import metadata
from pathlib import Path

from crossfarm.artifact.files import write_atomically
from crossfarm.errors import BuildFailed, Error

COMPILE_TIMEOUT = 120.0

#: zig's name of each platform. Android's C library has no headers there; musl's say the same of what is used.
ZIG_TARGETS = {
    ("x86_64", "linux"): "x86_64-linux-gnu",
    ("aarch64", "linux"): "aarch64-linux-gnu",
    ("arm", "linux"): "arm-linux-gnueabihf",
    ("riscv64", "linux"): "riscv64-linux-gnu",
    ("x86_64", "android"): "x86_64-linux-musl",
    ("aarch64", "android"): "aarch64-linux-musl",
    ("arm", "android"): "arm-linux-musleabi",
    ("x86_64", "windows"): "x86_64-windows-gnu",
}
FLAGS = (
    "-std=c11", "-O2", "-g0", "-fPIC", "-fvisibility=hidden", "-ffunction-sections", "-fno-sanitize=all",
    "-fno-builtin", "-fno-stack-protector", "-fno-exceptions", "-fno-unwind-tables", "-fno-asynchronous-unwind-tables",
)  # fmt: skip
_FOLDER = Path(__file__).parent


@cache
def runtime_object(arch: str, system: str) -> bytes:
    """The runtime's object file for a platform; the same bytes always.

    Raises:
        BuildFailed: there is no runtime for the platform, or no zig to compile it with.
    """
    target = ZIG_TARGETS.get((arch, system))
    if target is None:
        raise BuildFailed(f"parallel loops cannot be built for {arch} on {system} yet")
    kept = _cache_folder() / f"{_digest(target)}.o"
    try:
        return kept.read_bytes()
    except OSError:
        pass
    made = _compile(target)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, made)
    except (OSError, Error):
        pass  # it will be compiled again
    return made


@cache
def zig() -> str:
    """The path of zig: the wheel's, else the system's. Raises BuildFailed where there is none."""
    try:
        import ziglang
    except ImportError:
        found = shutil.which("zig")
        if found is None:
            raise BuildFailed(
                "parallel loops need zig, whose C compiler makes their runtime", hint="install the ziglang package"
            ) from None
        return found
    return os.path.join(os.path.dirname(ziglang.__file__), "zig")


@cache
def zig_version() -> str:
    """``"0.17.0"``. Raises BuildFailed where there is no zig."""
    try:
        return metadata.version("ziglang")
    except metadata.PackageNotFoundError:
        command = [zig(), "version"]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=COMPILE_TIMEOUT
        ).stdout.strip()


def _digest(target: str) -> str:
    content = hashlib.sha256(f"{zig_version()} {target} {' '.join(FLAGS)}".encode())
    for path in sorted(_FOLDER.glob("*.[ch]")):
        content.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return content.hexdigest()


def _cache_folder() -> Path:
    named = os.environ.get("CROSSFARM_CACHE")
    base = Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crossfarm"
    return base / "runtime"


def _compile(target: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="crossfarm-runtime-") as folder:
        output = Path(folder, "threads.o")
        command = [zig(), "cc", "-target", target, *FLAGS, "-c", str(_FOLDER / "threads.c"), "-o", str(output)]
        environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": folder, "ZIG_LOCAL_CACHE_DIR": folder}
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=COMPILE_TIMEOUT, check=False, env=environment
            )
        except (OSError, subprocess.TimeoutExpired) as failure:
            raise BuildFailed(f"the runtime of parallel loops cannot be compiled: {failure}") from failure
        if done.returncode != 0:
            raise BuildFailed(f"the runtime of parallel loops does not compile for {target}: {done.stderr[-2000:]}")
        return output.read_bytes()
