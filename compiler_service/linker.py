"""Object file → shared library, by an LLD.

No sysroot: what the code may call of libm and libc is known, so stub libraries with those symbols are made here, once a
target, and linked against. The result names only the libraries that it really uses. On Windows nothing is taken from a
C library at all: only threads come from the system, through import libraries made here.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from crossfarm.errors import BuildFailed

LINK_TIMEOUT = 60.0
_ARCHIVE = b"!<arch>\n"

#: float64 functions of libm that code or LLVM may call; each has a float32 one with ``f`` appended.
_LIBM_NAMES = (
    "acos acosh asin asinh atan atan2 atanh cbrt ceil copysign cos cosh erf erfc exp exp2 expm1 fabs fdim floor fma "
    "fmax fmin fmod hypot ldexp lgamma log log10 log1p log2 nearbyint nextafter pow remainder rint round roundeven "
    "sin sincos sinh sqrt tan tanh tgamma trunc"
)
#: Only GNU's libm has these.
_GNU_LIBM_NAMES = "exp10"
_LIBC_NAMES = ("memcpy", "memmove", "memset", "memcmp", "bcmp")
#: What the runtime calls. Before glibc 2.34 the threads' functions are in a library of their own,
#: which later ones still have, though empty.
_RUNTIME_NAMES = (
    "clock_gettime", "close", "free", "getpid", "malloc", "open", "read", "sigdelset", "sigfillset", "syscall",
)  # fmt: skip
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
#: More for some platforms. Android has pages of 16 KiB on some devices, for which segments must lie far enough apart;
#: LLD does that for aarch64 and arm by itself.
_MORE_OPTIONS = {("x86_64", "android"): ("-z", "max-page-size=16384")}
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

#: What the runtime calls on Windows, by the library that has it.
WINDOWS_IMPORTS = {
    "kernel32.dll": (
        "CloseHandle", "CreateThread", "FreeLibrary", "FreeLibraryAndExitThread", "GetCurrentProcess",
        "GetCurrentThread", "GetModuleHandleExA", "GetProcessAffinityMask", "GetProcessHeap", "HeapAlloc", "HeapFree",
        "QueryPerformanceCounter", "QueryPerformanceFrequency", "SetThreadAffinityMask", "WaitForSingleObject",
    ),
    "api-ms-win-core-synch-l1-2-0.dll": ("WaitOnAddress", "WakeByAddressAll", "WakeByAddressSingle"),
}  # fmt: skip

#: Makes the object file that defines the given symbols.
StubMaker = Callable[[tuple[str, ...]], bytes]


def library_name(system: str) -> str:
    """What a library calls itself: its soname, or the name in its table of exports."""
    return "crossfarm-program.dll" if system == "windows" else "libcrossfarm-program.so"


def link(
    code: bytes,
    arch: str,
    system: str,
    name: str,
    stub_object: StubMaker,
    *,
    more: Sequence[bytes] = (),
    exports: Sequence[str] = (),
    timeout: float = LINK_TIMEOUT,
) -> bytes:
    """Links an object file, and ``more`` of them and archives, into a shared library that exports its visible symbols.

    The same input gives the same bytes.

    Args:
        name: what the library calls itself.
        exports: for Windows, where no symbol of ``code`` is visible by itself: those that shall be.

    Raises:
        BuildFailed: no linker for the platform, or the linker failed or ran over ``timeout`` seconds.
    """
    with tempfile.TemporaryDirectory(prefix="crossfarm-link-") as folder:
        files = []
        for number, content in enumerate((code, *more)):
            files.append(Path(folder, f"code{number}.{'a' if content.startswith(_ARCHIVE) else 'o'}"))
            files[-1].write_bytes(content)
        library = Path(folder, name)
        if (arch, system) == ("x86_64", "windows"):
            _link_dll(library, files, exports, timeout)
        elif system in PLATFORMS and arch in EMULATIONS:
            _link_elf(library, files, arch, system, _stubs(arch, system, stub_object), timeout)
        else:
            raise BuildFailed(f"no linking for {arch} on {system} yet")
        return library.read_bytes()


def _link_elf(
    library: Path, files: list[Path], arch: str, system: str, stubs: dict[str, bytes], timeout: float
) -> None:
    for name, content in stubs.items():
        library.with_name(name).write_bytes(content)
    _run_linker(
        "ld.lld",
        [
            "-m", EMULATIONS[arch], "-shared", "-o", str(library), *map(str, files), "-soname", library.name,
            "--as-needed", *(str(library.with_name(name)) for name in stubs), "--no-undefined", "--gc-sections",
            "--strip-all", "--build-id=none", "--hash-style=gnu", "-z", "relro", "-z", "now", "-z", "noexecstack",
            *_MORE_OPTIONS.get((arch, system), ()), "--threads=1",
        ],
        timeout,
    )  # fmt: skip


def _link_dll(library: Path, files: list[Path], exports: Sequence[str], timeout: float) -> None:
    """/Brepro puts a digest where the time would be; there is no entry, as nothing is to be done at loading."""
    imports = []
    for name, content in _import_libraries().items():
        imports.append(library.with_name(f"{name}.lib"))
        imports[-1].write_bytes(content)
    _run_linker(
        "lld-link",
        [
            "/nologo", "/dll", "/noentry", "/machine:x64", "/nodefaultlib", "/Brepro", "/opt:ref", "/debug:none",
            f"/out:{library}", f"/implib:{library}.lib", *(f"/export:{name}" for name in exports), *map(str, files),
            *map(str, imports), "/threads:1",
        ],
        timeout,
    )  # fmt: skip


@cache
def _import_libraries() -> dict[str, bytes]:
    """Import library of each Windows library that code may call, by its name."""
    made = {}
    for name, symbols in WINDOWS_IMPORTS.items():
        with tempfile.TemporaryDirectory(prefix="crossfarm-stub-") as folder:
            definition, library = Path(folder, "names.def"), Path(folder, "names.lib")
            definition.write_text("\n".join([f"LIBRARY {name}", "EXPORTS", *symbols, ""]))
            command = ["/nologo", "/lib", f"/def:{definition}", "/machine:x64", f"/out:{library}"]
            _run_linker("lld-link", command, LINK_TIMEOUT)
            made[name] = library.read_bytes()
    return made


def linker_version() -> str:
    """The linker's own version line, as ``"LLD 14.0.6"``."""
    return _version(tuple(_find_linker("ld.lld")))


def _run_linker(flavor: str, arguments: list[str], timeout: float) -> None:
    # callers ask for one thread: there is nothing to share out among more, and starting them takes longer than the work
    command = [*_find_linker(flavor), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise BuildFailed(f"the linker took longer than {timeout:g} s") from None
    except OSError as failure:
        raise BuildFailed(f"the linker {command[0]} cannot be started: {failure}") from failure
    if done.returncode != 0:
        lines = [*done.stderr.splitlines(), *done.stdout.splitlines()]
        said = "; ".join(line for line in lines if line.strip())[:2000]
        raise BuildFailed(f"the linker failed with status {done.returncode}: {said or 'it said nothing'}")


@cache
def _find_linker(flavor: str) -> list[str]:
    """The LLD inside the ziglang wheel, else the system's of the highest version; ``ld.lld`` or ``lld-link``.

    The wheel's is one file that starts in 7 ms, where a distribution's loads all of LLVM as a library first and takes
    15; and it is the same one wherever the same wheels are installed.
    """
    zig = _zig()
    if zig is not None:
        return [zig, flavor]
    found: list[tuple[int, str]] = []
    for folder in os.get_exec_path():
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        for name in names:
            match = re.fullmatch(rf"{re.escape(flavor)}(?:-(\d+))?", name)
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
            _run_linker("ld.lld", [*command, "--threads=1"], LINK_TIMEOUT)
            made[soname] = library.read_bytes()
    _stub_libraries[arch, system] = made
    return made
