"""The emulated aarch64 Python is a real one, kept apart from the host's."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tools import arm64_root

TOOL = [sys.executable, str(ROOT / "tools" / "arm64_root.py")]


def run_python(program: str, *, cwd: Path = ROOT) -> str:
    ran = subprocess.run([*TOOL, "python", "--", "-c", program], cwd=cwd, capture_output=True, text=True, timeout=100)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


@pytest.mark.emulated
def test_it_runs_on_aarch64_with_its_own_packages_and_this_repository(tmp_path: Path) -> None:
    program = "import crossfarm, numpy, platform, sys; print(platform.machine(), numpy.__file__, crossfarm.__file__)"
    machine, numpy_file, crossfarm_file = run_python(program, cwd=tmp_path).split()
    assert machine == "aarch64"
    assert Path(numpy_file).is_relative_to(arm64_root.ROOT)
    assert Path(crossfarm_file) == ROOT / "crossfarm" / "__init__.py"


@pytest.mark.emulated
def test_a_process_under_the_emulator_can_start_another() -> None:
    program = (
        "import os, shlex, subprocess; "
        "command = shlex.split(os.environ['CROSSFARM_PYTHON']); "
        "print(subprocess.check_output([*command, '-c', 'import platform; print(platform.machine())'], text=True))"
    )
    assert run_python(program) == "aarch64"


@pytest.mark.emulated
def test_making_it_again_does_nothing() -> None:
    assert arm64_root.is_complete(), "the root is out of date: run `make arm64-root`"
    assert arm64_root.make() is False


def test_a_missing_root_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(arm64_root.ArmRootError, match="make arm64-root"):
        arm64_root.python_command(tmp_path)


def test_a_missing_emulator_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(arm64_root.ArmRootError, match="qemu-user-static"):
        arm64_root.emulator()


@pytest.mark.emulated
def test_the_hosts_python_settings_do_not_leak_into_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.setenv("VIRTUAL_ENV", "/nowhere")
    monkeypatch.setenv("OCL_ICD_VENDORS", "/nowhere")
    environment = arm64_root.environment()
    assert "PYTHONPATH" not in environment
    assert "VIRTUAL_ENV" not in environment
    assert "OCL_ICD_VENDORS" not in environment
    assert environment["PATH"].endswith(f":{os.environ['PATH']}")
    assert shlex.split(environment["CROSSFARM_PYTHON"]) == arm64_root.python_command()
