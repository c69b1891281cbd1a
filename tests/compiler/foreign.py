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
        root: where Debian has the platform's C library.
        interpreter: the dynamic linker's path there.
        options: of the emulator.
    """

    emulator: str
    root: str
    interpreter: str
    options: tuple[str, ...] = ()


EMULATED = {
    "arm": Emulated("qemu-arm", "/usr/arm-linux-gnueabihf", "/lib/ld-linux-armhf.so.3", ("-cpu", "cortex-a7")),
    "riscv64": Emulated(
        "qemu-riscv64", "/usr/riscv64-linux-gnu", "/lib/ld-linux-riscv64-lp64d.so.1", ("-cpu", "sifive-u54")
    ),
    "aarch64": Emulated("qemu-aarch64", "/usr/aarch64-linux-gnu", "/lib/ld-linux-aarch64.so.1"),
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
    """

    def __init__(self, arch: str, system: str, folder: Path) -> None:
        self.arch = arch
        self.target = Target(f"llvm arch={arch} os={system}")
        self.folder = folder
        self.environment = dict(os.environ)
        object_file = _compiled(runtime.ZIG_TARGETS[arch, system if system == "windows" else "linux"], folder)
        make = self._windows if system == "windows" else self._linux
        self.command = make(arch, object_file)

    def _linux(self, arch: str, object_file: Path) -> list[str]:
        here = EMULATED[arch]
        emulator = _tool(f"{here.emulator}-static", here.emulator)
        libc = Path(here.root, "lib", "libc.so.6")
        if not libc.exists():
            _tool(str(libc))
        program = self.folder / "run_library"
        linker._run_linker(
            "ld.lld",
            ["-m", linker.EMULATIONS[arch], "-o", str(program), str(object_file), str(libc), "-e", "start",
             "--dynamic-linker", here.interpreter, "--allow-shlib-undefined"],
            TIMEOUT,
        )  # fmt: skip
        return [emulator, *here.options, "-L", here.root, str(program)]

    def _windows(self, arch: str, object_file: Path) -> list[str]:
        raise NotImplementedError

    def call(self, library: Path, symbol: str, slots: list[Any], workspace: int) -> int:
        """Calls a function there, buffers in place; its status."""
        parts = [_packed(str(library)), _packed(symbol), struct.pack("<QI", workspace, len(slots))]
        buffers = [slot for slot in slots if isinstance(slot, np.ndarray)]
        for slot in slots:
            if isinstance(slot, np.ndarray):
                parts += [struct.pack("<IQ", 1, slot.nbytes), np.ascontiguousarray(slot).tobytes()]
            else:
                parts.append(struct.pack("<IQ", 0, slot))
        ran = subprocess.run(
            self.command, input=b"".join(parts), capture_output=True, timeout=TIMEOUT, env=self.environment, check=False
        )
        assert ran.returncode == 0, (ran.returncode, ran.stderr.decode(errors="replace")[-2000:])
        at = 4
        for buffer in buffers:
            content = np.frombuffer(ran.stdout[at : at + buffer.nbytes], buffer.dtype).reshape(buffer.shape)
            buffer[...] = content
            at += buffer.nbytes
        assert len(ran.stdout) == at
        return int.from_bytes(ran.stdout[:4], "little", signed=True)


def _packed(text: str) -> bytes:
    content = text.encode() + b"\0"
    return struct.pack("<I", len(content)) + content


class Foreign:
    """A module built for another machine, called like ``Native``."""

    def __init__(self, module: IRModule, target: Target | str, machine: Machine, **options: Any) -> None:
        self.built: BuiltVariant = build_variant(module, Target(target), compiler_pb2.BuildOptions(**options))
        self.machine = machine
        self.library = machine.folder / f"program{'.dll' if self.built.library[:2] == b'MZ' else '.so'}"
        self.library.write_bytes(self.built.library)
        self.entries = {e.name: e for e in self.built.variant.entry_points}

    def __call__(self, name: str, *args: Any) -> None:
        """Calls in place, like the interpreter. Raises ProgramError with the message of a nonzero status."""
        entry = self.entries[name]
        slots, workspace = slots_of(entry, args)
        status = self.machine.call(self.library, entry.native.symbol, slots, workspace)
        if status:
            raise ProgramError(entry.failures[status - 1])
