"""Makes and uses an arm64 Debian userland, so that a real aarch64 agent runs on a machine of another architecture.

``make`` unpacks Debian's arm64 Python and what it needs into ``.roots/arm64``, and the aarch64 wheels of the agent's
dependencies beside it. Nothing is installed: apt works on a state directory of its own with the host's sources, and
the packages are only unpacked. The other commands run that Python under Debian's ``qemu-user-static``, by naming the
emulator outright: no binfmt registration, no chroot, no privileges.

The root has an OpenCL driver as well, PoCL, which compiles kernels for the emulated processor with an LLVM that is
itself emulated: the nearest to a phone that runs anywhere. Only linking is this machine's work (``.host/bin``), as a
process under the emulator cannot start another of its own architecture.

::

    python tools/arm64_root.py make
    python tools/arm64_root.py python -- -c "import platform; print(platform.machine())"
    python tools/arm64_root.py agent -- --tracker 127.0.0.1:7461 --name board --state /tmp/board
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
ROOT = REPOSITORY / ".roots" / "arm64"
CONSTRAINTS = REPOSITORY / "constraints.txt"

#: Debian packages whose dependency closure is unpacked; libstdc++6 is what grpcio's and numpy's wheels link to.
DEBIAN_PACKAGES = ("python3", "libstdc++6", "pocl-opencl-icd")
#: What apt shall take for installed: PoCL depends on the program clang, and so on half a tool chain, but calls only the
#: library of it.
ABSENT_PACKAGES = tuple(f"clang-{version}" for version in range(11, 31))
#: What a device agent depends on, as in pyproject.toml, and its OpenCL driver; constraints.txt says which version.
WHEELS = (
    "grpcio", "protobuf", "numpy", "psutil", "typing_extensions", "pyopencl", "pytools", "platformdirs", "siphash24",
)  # fmt: skip
#: The oldest glibc that aarch64 wheels are built for.
OLDEST_GLIBC_MINOR = 17
#: A merged /usr, which Debian's packages expect to find and only its installer creates.
MERGED_DIRECTORIES = ("bin", "lib", "sbin")

_STAMP = ".complete"
_SMOKE_TEST = """
import google.protobuf, grpc, numpy, platform, psutil, pyopencl
assert pyopencl.get_platforms()[0].get_devices(), "PoCL has no device"
print(platform.machine())
"""
#: Programs of this machine's for processes under the emulator, and the libraries that programs are linked to.
_HOST_PROGRAMS = Path(".host", "bin")
_HOST_LIBRARIES = Path(".host", "lib")
#: The linker as clang's driver asks for it first.
_LINKER = "aarch64-unknown-linux-gnu-ld"
#: What clang's driver names by ``-l``, and the root's file; its static library of helpers is not called for by kernels.
_LIBRARIES = {"libc.so": "libc.so.6", "libm.so": "libm.so.6", "libgcc_s.so": "libgcc_s.so.1", "libgcc.a": None}


class ArmRootError(Exception):
    """The root cannot be made or used; the message says what is missing and how to get it."""


def emulator() -> str:
    """Path of the user-mode emulator. Raises ArmRootError where it is not installed."""
    found = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if found is None:
        raise ArmRootError("qemu-aarch64-static is missing: run `make system-packages` (Debian: qemu-user-static)")
    return found


def python_command(root: Path = ROOT) -> list[str]:
    """The command prefix that runs the root's Python under the emulator. Raises ArmRootError where it is not made."""
    if not (root / _STAMP).exists():
        raise ArmRootError(f"no arm64 root at {root}: run `make arm64-root`")
    # Started by its path inside the root, Python takes its prefix from there and never sees the host's packages.
    return [emulator(), "-L", str(root), str(_interpreter(root)), "-s"]


def environment(root: Path = ROOT) -> dict[str, str]:
    """This process's environment, less what belongs to its own Python, for a process under the emulator.

    ``CROSSFARM_PYTHON`` is what an agent starts its workers with: ``sys.executable`` would name an aarch64 binary,
    which this machine's kernel cannot start. OpenBLAS is held to one thread: emulated threads only slow it down.
    Compiled kernels are kept in the root, as a phone keeps them, unless ``POCL_CACHE_DIR`` names another place.
    """
    dropped = (
        "PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "VIRTUAL_ENV", "LD_PRELOAD", "LD_LIBRARY_PATH",
        "OCL_ICD_VENDORS", "OCL_ICD_FILENAMES", "OPENCL_VENDOR_PATH",
    )  # fmt: skip
    env = {name: value for name, value in os.environ.items() if name not in dropped}
    env["CROSSFARM_PYTHON"] = shlex.join(python_command(root))
    env["PATH"] = os.pathsep.join([str(root / _HOST_PROGRAMS), env.get("PATH", os.defpath)])
    env.setdefault("OPENBLAS_NUM_THREADS", "1")
    env.setdefault("POCL_CACHE_DIR", str(root / "var" / "cache" / "pocl"))
    return env


def is_complete(root: Path = ROOT) -> bool:
    """Whether the root is there and made from what this file and constraints.txt say now."""
    stamp = root / _STAMP
    return stamp.exists() and stamp.read_text() == _fingerprint()


def make(root: Path = ROOT) -> bool:
    """Makes the root unless one of the same contents is there; True when it had work to do.

    An interrupted run is picked up where it stopped: downloads are kept, and the root is complete only with its stamp.
    Raises ArmRootError naming the missing tool or the command that failed.
    """
    if is_complete(root):
        return False
    emulator()
    missing = [tool for tool in ("apt-get", "dpkg-deb", "tar") if shutil.which(tool) is None]
    if missing:
        raise ArmRootError(f"{', '.join(missing)} is missing: the arm64 root can be made on Debian and its kin only")
    packages = _download_packages(root.with_name("arm64-apt"))
    if root.exists():
        shutil.rmtree(root)
    root.mkdir(parents=True)
    for directory in MERGED_DIRECTORIES:
        (root / "usr" / directory).mkdir(parents=True, exist_ok=True)
        (root / directory).symlink_to(f"usr/{directory}")
    for package in packages:
        _unpack(package, root)
    _install_wheels(root)
    _install_opencl(root)
    _compile_bytecode(root)
    stamp = root / _STAMP
    stamp.write_text(_fingerprint())
    try:
        check(root)
    except ArmRootError:
        stamp.unlink()
        raise
    return True


def check(root: Path = ROOT) -> str:
    """Imports the agent's dependencies under the emulator and finds its devices; the machine name that Python gives."""
    ran = subprocess.run(
        [*python_command(root), "-c", _SMOKE_TEST], env=environment(root), capture_output=True, text=True, timeout=300
    )
    machine = ran.stdout.strip()
    if ran.returncode != 0 or machine != "aarch64":
        raise ArmRootError(f"the Python in {root} does not work (exit {ran.returncode}): {ran.stderr.strip()}")
    return machine


def _fingerprint() -> str:
    """Identifies what the root is made from: this file and the pinned versions."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    digest.update("\n".join(_pinned_requirements()).encode())
    digest.update(str(REPOSITORY).encode())  # the root points back at the repository
    return digest.hexdigest()


def _pinned_requirements() -> list[str]:
    pins = dict(re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)$", CONSTRAINTS.read_text(), re.MULTILINE))
    missing = [name for name in WHEELS if name not in pins]
    if missing:
        raise ArmRootError(f"{CONSTRAINTS} does not pin {', '.join(missing)}")
    return [f"{name}=={pins[name]}" for name in WHEELS]


def _interpreter(root: Path) -> Path:
    return (root / "usr" / "bin" / "python3").resolve()


def _python_version(root: Path) -> str:
    """Such as ``3.11``: what the suite's python3 is, which need not be the host's."""
    return _interpreter(root).name.removeprefix("python")


def _glibc_minor(root: Path) -> int:
    """The minor version of the root's glibc 2.x, which bounds the wheels that load there."""
    text = (root / "usr" / "lib" / "aarch64-linux-gnu" / "libc.so.6").read_bytes()
    return max(int(minor) for minor in re.findall(rb"\0GLIBC_2\.(\d+)(?=\0)", text))


def _run(command: list[str], doing: str) -> str:
    ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if ran.returncode != 0:
        raise ArmRootError(f"{doing} failed (exit {ran.returncode}): {shlex.join(command)}\n{ran.stdout[-2000:]}")
    return ran.stdout


def _download_packages(state: Path) -> list[Path]:
    """Downloads the packages with a private apt state: the host's sources and keys, but arm64 and nothing installed."""
    for directory in ("lists/partial", "archives/partial", "nothing/partial"):
        (state / directory).mkdir(parents=True, exist_ok=True)
    absent = ", ".join(ABSENT_PACKAGES)
    (state / "status").write_text(
        "Package: crossfarm-absent\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n"
        f"Maintainer: nobody\nDescription: what is taken for installed\nProvides: {absent}\n"
    )
    configuration = state / "apt.conf"
    configuration.write_text(
        f"""
        #clear APT::Architectures;
        #clear APT::Update::Post-Invoke;
        #clear APT::Update::Post-Invoke-Success;
        #clear DPkg::Post-Invoke;
        APT::Architecture "arm64";
        APT::Architectures {{ "arm64"; }};
        APT::Sandbox::User "";
        Acquire::Languages "none";
        Dir::State "{state}";
        Dir::State::lists "{state}/lists";
        Dir::State::status "{state}/status";
        Dir::Cache "{state}";
        Dir::Cache::archives "{state}/archives";
        Dir::Log "{state}";
        """
    )
    apt = ["apt-get", "-c", str(configuration), "-qq", "-y"]
    _run([*apt, "update"], "fetching Debian's arm64 package lists")
    install = [*apt, "install", "--no-install-recommends", *DEBIAN_PACKAGES]
    _run([*install, "--download-only"], "downloading Debian's arm64 packages")
    # The directory may hold older versions from an earlier run. apt lists what it would download, one a line
    # ('address' name.deb size digest), and from an empty directory that is everything.
    empty = ["--option", f"Dir::Cache::archives={state}/nothing", "--print-uris"]
    listed = _run([*install, *empty], "listing Debian's arm64 packages")
    return [state / "archives" / name for name in re.findall(r"^'\S+' (\S+\.deb) ", listed, re.MULTILINE)]


def _unpack(package: Path, root: Path) -> None:
    """Unpacks one package, following the symlinks of the merged /usr instead of replacing them by directories."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as source:
        tar = ["tar", "-x", "--keep-directory-symlink", "--no-same-owner", "-C", str(root)]
        ran = subprocess.run(tar, stdin=source.stdout, capture_output=True, text=True)
    if source.returncode != 0 or ran.returncode != 0:
        raise ArmRootError(f"cannot unpack {package}: {ran.stderr.strip()}")


def _install_wheels(root: Path) -> None:
    """Unpacks the wheels where the root's Python looks for local packages, and makes this repository importable."""
    version = _python_version(root)
    site = root / "usr" / "local" / "lib" / f"python{version}" / "dist-packages"
    platforms = [f"manylinux_2_{minor}_aarch64" for minor in range(_glibc_minor(root), OLDEST_GLIBC_MINOR - 1, -1)]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--only-binary=:all:"]
    command += ["--target", str(site), "--python-version", version, "--implementation", "cp"]
    for abi in (f"cp{version.replace('.', '')}", "abi3", "none"):
        command += ["--abi", abi]
    for platform in [*platforms, "manylinux2014_aarch64", "any"]:
        command += ["--platform", platform]
    _run([*command, *_pinned_requirements()], "downloading the aarch64 wheels")
    (site / "crossfarm.pth").write_text(f"{REPOSITORY}\n")


def _install_opencl(root: Path) -> None:
    """Lets the OpenCL loader find PoCL by a path that it and clang can look around from, and gives it a linker.

    qemu-user looks up in the root what a program opens, but not what it only asks the presence of (``faccessat``): PoCL
    asks for its own files beside its library, which must therefore be loaded by its real path.
    """
    libraries = root / "usr" / "lib" / "aarch64-linux-gnu"
    for vendor in (root / "etc" / "OpenCL" / "vendors").glob("*.icd"):
        vendor.write_text(f"{libraries / vendor.read_text().strip()}\n")
    programs, linked = root / _HOST_PROGRAMS, root / _HOST_LIBRARIES
    programs.mkdir(parents=True)
    linked.mkdir(parents=True)
    for name, file in _LIBRARIES.items():
        if file is None:
            (linked / name).write_bytes(b"!<arch>\n")
        else:
            (linked / name).symlink_to(libraries / file)
    linker = programs / _LINKER
    linker.write_text(f'#!/bin/sh\nexec {shlex.join(_host_linker())} -L {shlex.quote(str(linked))} "$@"\n')
    linker.chmod(0o755)


def _host_linker() -> list[str]:
    """A linker of this machine's for aarch64: the ziglang wheel's LLD, else the system's."""
    zig = importlib.util.find_spec("ziglang")
    if zig is not None and zig.origin is not None:
        return [str(Path(zig.origin).with_name("zig")), "ld.lld"]
    system = shutil.which("ld.lld")
    if system is None:
        raise ArmRootError("no linker for aarch64: install the ziglang package (`make venv`) or LLD (Debian: lld)")
    return [system]


def _compile_bytecode(root: Path) -> None:
    """Compiles the root's Python files with this Python, where it is of the same version.

    Debian's packages and wheels leave that to their installation. Under emulation a process of the agent's would spend
    4 of its first 6 seconds of processor time on it.
    """
    version = _python_version(root)
    if version != f"{sys.version_info.major}.{sys.version_info.minor}":
        return
    folders = [root / "usr" / "lib" / f"python{version}", root / "usr" / "local" / "lib" / f"python{version}"]
    # Files that are no valid Python, such as templates of other versions, are reported by the status and not compiled.
    subprocess.run([sys.executable, "-m", "compileall", "-qq", *map(str, folders)], stdout=subprocess.DEVNULL)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("make", help="make .roots/arm64, or find it complete")
    commands.add_parser("check", help="import the agent's dependencies under the emulator")
    for name, what in (("agent", "`device_agent serve`"), ("python", "its Python")):
        sub = commands.add_parser(name, help=f"run {what} under the emulator")
        sub.add_argument("arguments", nargs=argparse.REMAINDER, metavar="-- ARGS", help="passed on as they are")
    return parser


def main() -> int:
    options = _parser().parse_args()
    try:
        if options.command == "make":
            began = time.monotonic()
            worked = make()
            print(f"{ROOT}: " + (f"made in {time.monotonic() - began:.0f} s" if worked else "complete"))
        elif options.command == "check":
            print(f"{ROOT}: works, machine {check()}")
        else:
            arguments = options.arguments[1:] if options.arguments[:1] == ["--"] else options.arguments
            program = ["-m", "device_agent", "serve"] if options.command == "agent" else []
            command = [*python_command(), *program, *arguments]
            sys.stdout.flush()
            # in place of this process, so that signals and the death of the parent reach the agent itself
            os.execve(command[0], command, environment())
    except ArmRootError as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
