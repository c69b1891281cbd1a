"""``make check-cuda``: what only a machine with an NVIDIA GPU can show, in one command that downloads nothing.

Conformance of CUDA devices through a whole farm, none of it skipped, then the benchmarks of ``benchmarks/cuda``. Needs
Python's packages of ``NEEDED`` alone; pytest's plugins are used where they are. Stubs of ``proto/`` are made where
grpcio-tools is, else those that are there are used.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STUBS = ROOT / "crossfarm" / "wire" / "v1" / "artifact_pb2.py"
CORPUS = ROOT.parent / "shared" / "corpus"
REPORT = ROOT / "build" / "check-cuda" / "tests.xml"
#: Module → the package that brings it.
NEEDED = {
    "numpy": "numpy", "ml_dtypes": "ml_dtypes", "google.protobuf": "protobuf", "grpc": "grpcio",
    "grpc_health": "grpcio-health-checking", "grpc_reflection": "grpcio-reflection", "llvmlite": "llvmlite",
    "psutil": "psutil", "sqlalchemy": "sqlalchemy", "alembic": "alembic", "pytest": "pytest", "pycuda": "pycuda",
}  # fmt: skip
#: Seconds that a test may take, where pytest-timeout is there to see to it.
_TEST_SECONDS = 300


def main() -> int:
    parser = argparse.ArgumentParser(prog="make check-cuda", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=("tests", "benchmarks"), help="one of the two parts")
    parser.add_argument("--quick", action="store_true", help="fewer sizes in the benchmarks")
    parser.add_argument("-k", metavar="EXPRESSION", help="of the tests, those that pytest's -k picks")
    options = parser.parse_args()
    for problem in (missing_packages(), missing_stubs(), missing_corpus()):
        if problem:
            print(f"check-cuda: {problem}", file=sys.stderr)
            return 2
    failed = []
    if options.only != "benchmarks" and run_tests(options.k):
        failed.append("tests")
    if options.only != "tests" and run([sys.executable, "-m", "benchmarks.cuda", *(["--quick"] * options.quick)]):
        failed.append("benchmarks")
    if failed:
        print(f"check-cuda: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def missing_packages() -> str:
    """What to say of packages that are not installed; "" for nothing."""
    absent = [package for module, package in NEEDED.items() if not has_module(module)]
    if not absent:
        return ""
    return (
        f"{sys.executable} has no {', '.join(absent)}\n"
        "  next: install them there, or name another Python: make check-cuda PYTHON=/path/to/python3"
        + ("\n  pycuda has no wheel: its source package is built with CUDA's nvcc" if "pycuda" in absent else "")
    )


def missing_stubs() -> str:
    """Makes the stubs where that is possible; what to say where there are none."""
    if has_module("grpc_tools"):
        made = run([sys.executable, str(ROOT / "tools" / "generate_stubs.py")])
        return "" if made == 0 else "the stubs of proto/ could not be made"
    if STUBS.exists():
        print("check-cuda: no grpcio-tools here: the stubs in crossfarm/wire/v1 are used as they are", file=sys.stderr)
        return ""
    return (
        "crossfarm/wire/v1 has no stubs, and there is no grpcio-tools to make them\n"
        "  next: run `make proto` where it is, and take the folder along"
    )


def missing_corpus() -> str:
    """What to say where the programs that tests read are not beside the checkout."""
    if CORPUS.exists():
        return ""
    return f"the corpus is not at {CORPUS}\n  next: put it there, or a link to it"


def has_module(name: str) -> bool:
    """Whether it is installed; it is not imported."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def run_tests(picked: str | None) -> int:
    """The conformance suite for CUDA alone; what it skips counts as failed."""
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "tools" / "check_cuda.ini"), f"--rootdir={ROOT}"]
    command += [f"--junitxml={REPORT}", "tests/conformance"]
    if has_module("pytest_timeout"):
        command += [f"--timeout={_TEST_SECONDS}"]
    if picked:
        command += ["-k", picked]
    status = run(command, CROSSFARM_CONFORMANCE="cuda", CROSSFARM_DEVICES="cuda")
    if REPORT.exists():
        status |= run([sys.executable, str(ROOT / "tools" / "refuse_skips.py"), str(REPORT)])
    return status


def run(command: list[str], **environment: str) -> int:
    path = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH", "")) if p)
    return subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path, **environment}).returncode


if __name__ == "__main__":
    sys.exit(main())
