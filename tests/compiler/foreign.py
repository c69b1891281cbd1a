"""Builds for another machine and runs the library there: under QEMU's user-mode emulators, and under Wine.

``runtime/run_library.c`` is the program that loads the library there. It is compiled by zig and linked with Debian's
C library of the platform, without any of the start files and static libraries that zig would first have to build.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compiler_service import linker, runtime
from compiler_service.build import BuiltVariant, build_variant
from crossfarm.errors import ProgramError
from crossfarm.ir.module import IRModule
from crossfarm.target import Target
from crossfarm.wire.v1 import compiler_pb2
from tests.compiler.native import slots_of

SOURCE = Path(__file__).parent / "runtime" / "run_library.c"
TIMEOUT = 60.0


@dataclass(frozen=True)
class Emulated:
    """A platform of Linux under QEMU.

    Attributes:
        emulator: its name; Debian's static one has ``-static`` appended.
        zig_target: what the program that loads libraries is compiled for.
        root: where Debian has the platform's C library.
        interpreter: the dynamic linker's path there.
        options: of the emulator.
    """

    emulator: str
    zig_target: str
    root: str
    interpreter: str
    options: tuple[str, ...] = ()


_AARCH64 = Emulated(
    "qemu-aarch64", "aarch64-linux-gnu", "/usr/aarch64-linux-gnu", "/lib/ld-linux-aarch64.so.1", ("-cpu", "cortex-a53")
)
_ARM = ("-cpu", "cortex-a7")
#: Android is Debian's C library under the names of Android's; on arm that of armel, which passes floats as Android's.
EMULATED = {
    ("aarch64", "linux"): _AARCH64,
    ("aarch64", "android"): _AARCH64,
    ("arm", "linux"): Emulated(
        "qemu-arm", "arm-linux-gnueabihf", "/usr/arm-linux-gnueabihf", "/lib/ld-linux-armhf.so.3", _ARM
    ),
    ("arm", "android"): Emulated("qemu-arm", "arm-linux-gnueabi", "/usr/arm-linux-gnueabi", "/lib/ld-linux.so.3", _ARM),
    ("riscv64", "linux"): Emulated(
        "qemu-riscv64",
        "riscv64-linux-gnu",
        "/usr/riscv64-linux-gnu",
        "/lib/ld-linux-riscv64-lp64d.so.1",
        ("-cpu", "sifive-u54"),
    ),
}


def _tool(*names: str) -> str:
    """The first of the programs that is there; a test without it is skipped, and in CI fails."""
    for name in names:
        if found := shutil.which(name):
            return found
    what = f"{names[0]} is missing: run `make system-packages`"
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def _compiled(zig_target: str, folder: Path) -> Path:
    made = folder / f"{zig_target}.o"
    command = [runtime.zig(), "cc", "-target", zig_target, "-O1", "-g0", "-fno-sanitize=all", "-fno-stack-protector"]
    environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": str(folder), "ZIG_LOCAL_CACHE_DIR": str(folder)}
    subprocess.run([*command, "-c", str(SOURCE), "-o", str(made)], check=True, timeout=TIMEOUT, env=environment)
    return made


class Machine:
    """One that runs libraries: a command line, and the program that loads them.

    Args:
        folder: for what is made; of this machine alone.

    Attributes:
        target: what to build for it: the architecture's baseline.
        marks: nanoseconds at the first steps of the last call, of a library that tells them.
    """

    def __init__(self, arch: str, system: str, folder: Path) -> None:
        self.arch, self.system = arch, system
        self.target = Target(f"llvm arch={arch} os={system}")
        self.folder = folder
        self.environment = dict(os.environ)
        self.marks: tuple[int, ...] = ()
        self.command = self._windows() if system == "windows" else self._linux(EMULATED[arch, system])

    def _linux(self, here: Emulated) -> list[str]:
        object_file = _compiled(here.zig_target, self.folder)
        emulator = _tool(f"{here.emulator}-static", here.emulator)
        libc = Path(here.root, "lib", "libc.so.6")
        if not libc.exists():
            _tool(str(libc))
        program = self.folder / "run_library"
        linker._run_linker(
            "ld.lld",
            ["-m", linker.EMULATIONS[self.arch], "-o", str(program), str(object_file), str(libc), "-e", "start",
             "--dynamic-linker", here.interpreter, "--allow-shlib-undefined"],
            TIMEOUT,
        )  # fmt: skip
        options = ["-E", f"LD_LIBRARY_PATH={self._bionic(here.root)}"] if self.system == "android" else []
        return [emulator, *here.options, *options, "-L", here.root, str(program)]

    def _bionic(self, root: str) -> Path:
        """A folder with Debian's C library under the names of Android's."""
        folder = self.folder / "bionic"
        folder.mkdir()
        for name in ("libc.so", "libm.so"):
            (folder / name).symlink_to(Path(root, "lib", f"{name}.6"))
        return folder

    def _windows(self) -> list[str]:
        object_file = _compiled("x86_64-windows-gnu", self.folder)
        wine = _tool("wine64", "/usr/lib/wine/wine64")
        program = self.folder / "run_library.exe"
        linker._run_linker(
            "lld-link",
            ["/nologo", "/entry:start", "/subsystem:console", "/machine:x64", "/nodefaultlib", f"/out:{program}",
             str(object_file), str(_import_library(self.folder, "kernel32.dll", _HOST_IMPORTS))],
            TIMEOUT,
        )  # fmt: skip
        self.environment.update(WINEDEBUG="-all", WINEPREFIX=str(_wine_prefix(self.folder)), WINEBOOTSTRAPMODE="1")
        return [wine, str(program)]

    def call(self, library: Path, symbol: str, slots: list[Any], workspace: int) -> int:
        """Calls a function there, buffers in place; its status."""
        path = f"z:{library}" if library.suffix == ".dll" else str(library)
        parts = [_packed(path), _packed(symbol), struct.pack("<QI", workspace, len(slots))]
        buffers = [slot for slot in slots if isinstance(slot, np.ndarray)]
        for slot in slots:
            if isinstance(slot, np.ndarray):
                parts += [struct.pack("<IQ", 1, slot.nbytes), np.ascontiguousarray(slot).tobytes()]
            else:
                parts.append(struct.pack("<IQ", 0, slot))
        output, status = self._run(b"".join(parts))
        assert status == 0, (status, (self.folder / "errors").read_text(errors="replace")[-2000:])
        at = 4
        for buffer in buffers:
            content = np.frombuffer(output[at : at + buffer.nbytes], buffer.dtype).reshape(buffer.shape)
            buffer[...] = content
            at += buffer.nbytes
        self.marks = struct.unpack(f"<{(len(output) - at) // 8}Q", output[at:])
        return int.from_bytes(output[:4], "little", signed=True)

    def _run(self, request: bytes) -> tuple[bytes, int]:
        """The program's output and exit status. Through files, as Wine's server outlives the program by a second, and
        would hold a pipe open as long."""
        files = {name: self.folder / name for name in ("request", "output", "errors")}
        files["request"].write_bytes(request)
        with files["request"].open("rb") as given, files["output"].open("wb") as out, files["errors"].open("wb") as err:
            ran = subprocess.run(
                self.command, stdin=given, stdout=out, stderr=err, timeout=TIMEOUT, env=self.environment, check=False
            )
        return files["output"].read_bytes(), ran.returncode


#: What run_library.c calls on Windows.
_HOST_IMPORTS = (
    "ExitProcess", "FreeLibrary", "GetProcAddress", "GetProcessHeap", "GetStdHandle", "HeapAlloc", "LoadLibraryA",
    "ReadFile", "WriteFile",
)  # fmt: skip


def _import_library(folder: Path, name: str, symbols: tuple[str, ...]) -> Path:
    definition, library = folder / f"{name}.def", folder / f"{name}.lib"
    definition.write_text("\n".join([f"LIBRARY {name}", "EXPORTS", *symbols, ""]))
    linker._run_linker(
        "lld-link", ["/nologo", "/lib", f"/def:{definition}", "/machine:x64", f"/out:{library}"], TIMEOUT
    )
    return library


def _wine_prefix(folder: Path) -> Path:
    """A Windows with nothing in it, made in no time: Wine is told not to install its 700 MB, and to take its own
    libraries from where Debian put them (WINEBOOTSTRAPMODE)."""
    prefix = folder / "wine"
    (prefix / "drive_c" / "windows" / "system32").mkdir(parents=True)
    (prefix / "dosdevices").mkdir()
    (prefix / "dosdevices" / "c:").symlink_to("../drive_c")
    (prefix / "dosdevices" / "z:").symlink_to("/")
    (prefix / ".update-timestamp").write_text("disable\n")
    return prefix


def _packed(text: str) -> bytes:
    content = text.encode() + b"\0"
    return struct.pack("<I", len(content)) + content


class Foreign:
    """A module built for another machine, called like ``Native``."""

    def __init__(self, module: IRModule, target: Target | str, machine: Machine, **options: Any) -> None:
        self.built: BuiltVariant = build_variant(module, Target(target), compiler_pb2.BuildOptions(**options))
        self.machine = machine
        self.library = machine.folder / f"program{'.dll' if self.built.code[:2] == b'MZ' else '.so'}"
        self.library.write_bytes(self.built.code)
        self.entries = {e.name: e for e in self.built.variant.entry_points}

    def __call__(self, name: str, *args: Any) -> None:
        """Calls in place, like the interpreter. Raises ProgramError with the message of a nonzero status."""
        entry = self.entries[name]
        slots, workspace = slots_of(entry, args)
        status = self.machine.call(self.library, entry.native.symbol, slots, workspace)
        if status:
            raise ProgramError(entry.failures[status - 1])
