"""What libraries contain besides generated code, compiled by zig for each platform.

- ``threads.c``: the threads of parallel loops, in libraries that have such loops.
- ``profile.c``: the times of calls that a function makes, in libraries that have functions of calls.
- ``arm.c``: what LLVM calls on 32-bit Arm where the CPU has no instruction, such as 64-bit division.
- ``windows.zig``: what other systems' C libraries have and LLVM calls: memory, stack probes, mathematical functions.

Of the last two a library contains what it calls. Objects are kept on disk under the digest of everything that shapes
them, so that each is compiled once on a machine.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
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
#: Every ARMv7 with floating point, also one of 16 registers and without NEON. Android's functions take floats in
#: integer registers.
_ARM_FLAGS = ("-mcpu=generic+v7a-d32",)
_MORE_FLAGS = {("arm", "linux"): _ARM_FLAGS, ("arm", "android"): (*_ARM_FLAGS, "-mfloat-abi=softfp")}
_ZIG_FLAGS = ("-static", "-OReleaseFast", "-fstrip", "-ffunction-sections", "-fcompiler-rt", "--name", "support")
_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class _Source:
    """A file of this folder, and zig's command line for a platform: ``{}`` stands for the output's path."""

    file: str
    command: tuple[str, ...]


@cache
def runtime_object(arch: str, system: str, file: str = "threads.c") -> bytes:
    """The object file of ``threads.c`` or ``profile.c`` for a platform; the same bytes always.

    Raises:
        BuildFailed: there is no runtime for the platform, or no zig to compile it with.
    """
    target = ZIG_TARGETS.get((arch, system))
    if target is None:
        raise BuildFailed(f"parallel loops and models cannot be built for {arch} on {system} yet")
    return _made(_c_source(file, target, _MORE_FLAGS.get((arch, system), ())))


@cache
def support_objects(arch: str, system: str) -> tuple[bytes, ...]:
    """Object files and archives with what LLVM calls on a platform and a device need not have; none for most.

    Raises:
        BuildFailed: there is no zig to compile them with.
    """
    target = ZIG_TARGETS.get((arch, system), "")
    if arch == "arm":
        return (_made(_c_source("arm.c", target, _MORE_FLAGS[arch, system])),)
    if system == "windows":
        return (_made(_Source("windows.zig", ("build-lib", "-target", target, *_ZIG_FLAGS, "-femit-bin={}"))),)
    return ()


def _c_source(file: str, target: str, more: tuple[str, ...]) -> _Source:
    return _Source(file, ("cc", "-target", target, *FLAGS, *more, "-c", "-o", "{}"))


def _made(source: _Source) -> bytes:
    """What the source compiles to; kept on disk."""
    kept = _cache_folder() / f"{_digest(source)}.o"
    try:
        return kept.read_bytes()
    except OSError:
        pass
    made = _compile(source)
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
                "parallel loops, models and some targets need zig, which compiles what supports them",
                hint="install the ziglang package",
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


def _digest(source: _Source) -> str:
    content = hashlib.sha256(f"{zig_version()} {source.file} {' '.join(source.command)}".encode())
    for path in sorted([_FOLDER / source.file, *_FOLDER.glob("*.h")]):
        content.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return content.hexdigest()


def _cache_folder() -> Path:
    named = os.environ.get("CROSSFARM_CACHE")
    base = Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crossfarm"
    return base / "runtime"


def _compile(source: _Source) -> bytes:
    with tempfile.TemporaryDirectory(prefix="crossfarm-runtime-") as folder:
        output = Path(folder, "made")
        command = [zig(), *(word.replace("{}", str(output)) for word in source.command), str(_FOLDER / source.file)]
        environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": folder, "ZIG_LOCAL_CACHE_DIR": folder}
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=COMPILE_TIMEOUT, check=False, env=environment
            )
        except (OSError, subprocess.TimeoutExpired) as failure:
            raise BuildFailed(f"{source.file} of the runtime cannot be compiled: {failure}") from failure
        if done.returncode != 0:
            raise BuildFailed(
                f"{source.file} of the runtime does not compile ({' '.join(source.command[:3])}): {done.stderr[-2000:]}"
            )
        return output.read_bytes()
