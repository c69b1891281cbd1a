"""Object file → shared library, by an LLD; and what the library then needs of the device.

No sysroot: what the code may call of libm and libc is known, so stub libraries with those symbols are made here, once a
target, and linked against. The result names only the libraries that it really uses.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from crossfarm.errors import BuildFailed

LINK_TIMEOUT = 60.0

#: float64 functions of libm that code or LLVM may call; each has a float32 one with ``f`` appended.
_LIBM_NAMES = (
    "acos acosh asin asinh atan atan2 atanh cbrt ceil copysign cos cosh erf erfc exp exp2 expm1 fabs fdim floor fma "
    "fmax fmin fmod hypot ldexp lgamma log log10 log1p log2 nearbyint nextafter pow remainder rint round roundeven "
    "sin sincos sinh sqrt tan tanh tgamma trunc"
)
#: Only GNU's libm has these.
_GNU_LIBM_NAMES = "exp10"
_LIBC_NAMES = ("memcpy", "memmove", "memset", "memcmp", "bcmp")
#: What the runtime of parallel loops calls. Before glibc 2.34 the threads' functions are in a library of their own,
#: which later ones still have, though empty.
_RUNTIME_NAMES = ("free", "getpid", "malloc", "open", "close", "read", "sigdelset", "sigfillset", "syscall")
_THREAD_NAMES = (
    "pthread_attr_destroy", "pthread_attr_init", "pthread_attr_setstacksize", "pthread_create", "pthread_join",
    "pthread_sigmask",
)  # fmt: skip


@dataclass(frozen=True)
class Platform:
    """How to link for one operating system: sonames by stub name, and the symbols of each."""

    sonames: dict[str, str]
    symbols: dict[str, tuple[str, ...]]


def _with_float(names: str) -> tuple[str, ...]:
    return tuple(sorted(f"{name}{suffix}" for name in names.split() for suffix in ("", "f")))


#: LLD's emulation by architecture: a row more, and an architecture more.
EMULATIONS = {"x86_64": "elf_x86_64", "aarch64": "aarch64linux", "arm": "armelf_linux_eabi", "riscv64": "elf64lriscv"}
PLATFORMS = {
    "linux": Platform(
        {"m": "libm.so.6", "c": "libc.so.6", "pthread": "libpthread.so.0"},
        {
            "m": _with_float(f"{_LIBM_NAMES} {_GNU_LIBM_NAMES}"),
            "c": (*_LIBC_NAMES, *_RUNTIME_NAMES),
            "pthread": _THREAD_NAMES,
        },
    ),
    "android": Platform(
        {"m": "libm.so", "c": "libc.so"},
        {"m": _with_float(_LIBM_NAMES), "c": (*_LIBC_NAMES, *_RUNTIME_NAMES, *_THREAD_NAMES)},
    ),
}

#: Makes the object file that defines the given symbols.
StubMaker = Callable[[tuple[str, ...]], bytes]


def link(
    code: bytes,
    arch: str,
    system: str,
    soname: str,
    stub_object: StubMaker,
    *,
    more: Sequence[bytes] = (),
    timeout: float = LINK_TIMEOUT,
) -> bytes:
    """Links an object file, and ``more`` of them, into a shared library that exports their visible symbols.

    The same input gives the same bytes.

    Raises:
        BuildFailed: no linker for the platform, or the linker failed or ran over ``timeout`` seconds.
    """
    if system not in PLATFORMS or arch not in EMULATIONS:
        raise BuildFailed(f"no linking for {arch} on {system} yet")
    stubs = _stubs(arch, system, stub_object)
    with tempfile.TemporaryDirectory(prefix="crossfarm-link-") as folder:
        library = Path(folder, "code.so")
        files = [Path(folder, f"code{i}.o") for i in range(1 + len(more))]
        for path, content in zip(files, (code, *more)):
            path.write_bytes(content)
        for name, content in stubs.items():
            Path(folder, name).write_bytes(content)
        _run_linker(
            [
                "-m", EMULATIONS[arch], "-shared", "-o", str(library), *map(str, files), "-soname", soname,
                "--as-needed", *(os.path.join(folder, name) for name in stubs), "--no-undefined", "--gc-sections",
                "--strip-all", "--build-id=none", "--hash-style=gnu", "-z", "relro", "-z", "now", "-z", "noexecstack",
            ],
            timeout,
        )  # fmt: skip
        return library.read_bytes()


def linker_version() -> str:
    """The linker's own version line, as ``"LLD 14.0.6"``."""
    return _version(tuple(_find_linker()))


def needed_libraries(library: bytes) -> tuple[str, ...]:
    """Sonames that an ELF shared library names as needed (DT_NEEDED), in its order."""
    wide = library[4] == 2
    order = "<" if library[5] == 1 else ">"
    dynamic = _section(library, order, wide, kind=6)
    if dynamic is None:
        return ()
    offset, size, strings = dynamic
    entry = struct.Struct(f"{order}{'qQ' if wide else 'iI'}")
    names = []
    for at in range(offset, offset + size, entry.size):
        tag, value = entry.unpack_from(library, at)
        if tag == 1:
            start = strings + value
            names.append(library[start : library.index(b"\0", start)].decode())
    return tuple(names)


def _section(library: bytes, order: str, wide: bool, kind: int) -> tuple[int, int, int] | None:
    """File offset and size of the first section of a type, and the offset of the strings it links to."""
    table = struct.unpack_from(f"{order}{'Q' if wide else 'I'}", library, 40 if wide else 32)[0]
    size, count = struct.unpack_from(f"{order}HH", library, 58 if wide else 46)
    row = struct.Struct(f"{order}{'IIQQQQI' if wide else 'IIIIIII'}")
    rows = [row.unpack_from(library, table + i * size) for i in range(count)]
    for _, type_, _, _, offset, length, linked in rows:
        if type_ == kind:
            return offset, length, rows[linked][4]
    return None


def _run_linker(arguments: list[str], timeout: float) -> None:
    # one thread: there is nothing to share out among more, and starting them takes longer than the work
    command = [*_find_linker(), *arguments, "--threads=1"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise BuildFailed(f"the linker took longer than {timeout:g} s") from None
    except OSError as failure:
        raise BuildFailed(f"the linker {command[0]} cannot be started: {failure}") from failure
    if done.returncode != 0:
        said = "; ".join(line for line in done.stderr.splitlines() if line.strip())[:2000]
        raise BuildFailed(f"the linker failed with status {done.returncode}: {said or 'it said nothing'}")


@cache
def _find_linker() -> list[str]:
    """The LLD inside the ziglang wheel, else the system's of the highest version.

    The wheel's is one file that starts in 7 ms, where a distribution's loads all of LLVM as a library first and takes
    15; and it is the same one wherever the same wheels are installed.
    """
    zig = _zig()
    if zig is not None:
        return [zig, "ld.lld"]
    found: list[tuple[int, str]] = []
    for folder in os.get_exec_path():
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        for name in names:
            match = re.fullmatch(r"ld\.lld(?:-(\d+))?", name)
            if match and os.access(os.path.join(folder, name), os.X_OK):
                found.append((int(match[1] or 0), os.path.join(folder, name)))
    if found:
        return [max(found, key=lambda pair: pair[0])[1]]
    raise BuildFailed("no linker found", hint="install LLD (Debian: lld), or the ziglang package, which has one")


def _zig() -> str | None:
    try:
        import ziglang
    except ImportError:
        return shutil.which("zig")
    return os.path.join(os.path.dirname(ziglang.__file__), "zig")


@cache
def _version(command: tuple[str, ...]) -> str:
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=LINK_TIMEOUT, check=False)
    match = re.search(r"LLD \d[\w.]*", done.stdout)
    return match[0] if match else "LLD"


_stub_libraries: dict[tuple[str, str], dict[str, bytes]] = {}


def _stubs(arch: str, system: str, stub_object: StubMaker) -> dict[str, bytes]:
    """The platform's stub libraries by soname; linked on first use in this process and kept in memory."""
    known = _stub_libraries.get((arch, system))
    if known is not None:
        return known
    platform = PLATFORMS[system]
    made = {}
    for name, soname in platform.sonames.items():
        with tempfile.TemporaryDirectory(prefix="crossfarm-stub-") as folder:
            object_file, library = Path(folder, "stub.o"), Path(folder, soname)
            object_file.write_bytes(stub_object(platform.symbols[name]))
            command = ["-m", EMULATIONS[arch], "-shared", "-o", str(library), str(object_file), "-soname", soname]
            _run_linker(command, LINK_TIMEOUT)
            made[soname] = library.read_bytes()
    _stub_libraries[arch, system] = made
    return made
