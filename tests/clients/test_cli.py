"""The ``crossfarm`` command as a person or a script uses it: results, JSON, and the way it fails."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.sdk.farm import Farm
from crossfarm.target import Target
from tests.clients import programs
from tests.clients.conftest import Crossfarm, comes_back

#: A machine that this one is not.
FOREIGN = "x86-64-v3" if Target.detect().attributes["arch"] == "aarch64" else "aarch64-linux-generic"


@pytest.fixture
def add(tmp_path: Path) -> Path:
    return write(tmp_path, programs.ADD)


def write(directory: Path, text: str, name: str = "program.py") -> Path:
    path = directory / name
    path.write_text(text)
    return path


def parsed(ran: subprocess.CompletedProcess[str]) -> Any:
    """The one JSON document that a command printed."""
    return json.loads(ran.stdout)


def expect_failure(ran: subprocess.CompletedProcess[str], code: int, kind: str, *said: str) -> None:
    """A failed command with ``--json``: exit code, type, message; no traceback, and the message on standard error."""
    assert ran.returncode == code, ran.stderr
    error = parsed(ran)["error"]
    assert error["type"] == kind, error
    for words in said:
        assert words in error["message"] + error["hint"], error
    assert error["message"].splitlines()[0] in ran.stderr
    assert "Traceback" not in ran.stderr


def test_devices_show_what_is_there_and_what_to_type_next(crossfarm: Crossfarm, farm: Farm) -> None:
    ran = crossfarm("devices", farm=farm)
    assert ran.returncode == 0
    assert "local/cpu0" in ran.stdout
    assert "crossfarm run FILE --select id=local/cpu0" in ran.stderr
    document = parsed(crossfarm("devices", "--json", farm=farm))
    assert document["devices"][0]["attributes"]["kind"] == "cpu"
    assert document["devices"][0]["state"] == "free"


def test_targets_say_what_the_server_builds_for(crossfarm: Crossfarm, farm: Farm) -> None:
    listed = parsed(crossfarm("targets", "--json", farm=farm))["targets"]
    reasons = {target["name"]: target["reason"] for target in listed}
    assert reasons["raspberry-pi/4b"] == ""
    assert set(reasons.values()) == {""}, "every tag and every kind"


def test_a_program_is_built_inspected_and_run(crossfarm: Crossfarm, farm: Farm, add: Path, tmp_path: Path) -> None:
    built = parsed(crossfarm("build", add, "--target", "llvm", "-o", "add.cfa", "--json", farm=farm))
    assert len(built["digest"]) == 64
    shown = parsed(crossfarm("inspect", "add.cfa", "--json"))
    assert shown["digest"] == built["digest"]
    assert "A: float32[8]" in shown["variants"][0]["functions"]["main"]
    np.save(tmp_path / "a.npy", np.arange(8, dtype=np.float32))
    ran = crossfarm(
        *("run", "add.cfa", "--select", "kind=cpu", "--input", "A=@a.npy", "--input", "B=8xf32=1", "--json"),
        *("--output", "C=@c.npy"),
        farm=farm,
    )
    assert ran.returncode == 0, ran.stderr
    assert parsed(ran)["outputs"][0]["values"] == [1, 2, 3, 4, 5, 6, 7, 8]
    np.testing.assert_array_equal(np.load(tmp_path / "c.npy"), np.arange(1, 9, dtype=np.float32))


def test_expected_outputs_are_compared(crossfarm: Crossfarm, farm: Farm, add: Path, tmp_path: Path) -> None:
    reference = np.full(8, 3, np.float32)
    np.save(tmp_path / "right.npy", reference)
    reference[5] = 4
    np.save(tmp_path / "wrong.npy", reference)
    job = ("run", add, "-i", "A=8xf32=1", "-i", "B=8xf32=2")
    assert crossfarm(*job, "--expect", "C=@right.npy", farm=farm).returncode == 0
    expect_failure(
        crossfarm(*job, "--expect", "C=@wrong.npy", "--json", farm=farm),
        *(1, "Mismatch", "1 of 8 elements", "C[5] = 3.0, expected 4.0", "absolute error 1,", "relative 0.25"),
    )


def test_a_benchmark_gives_every_sample_and_its_statistics(crossfarm: Crossfarm, farm: Farm, add: Path) -> None:
    ran = crossfarm("bench", add, "--repeat", 7, "--min-repeat-ms", 0, "--json", farm=farm)
    document = parsed(ran)
    assert len(document["samples"]) == 7
    assert set(document["seconds"]) == {"min", "mean", "median", "p90", "p95", "p99", "max", "std"}
    assert document["seconds"]["min"] == min(document["samples"])


def test_threads_and_cpus_are_the_users_to_choose(crossfarm: Crossfarm, farm: Farm, add: Path) -> None:
    cpu = min(os.sched_getaffinity(0))
    ran = crossfarm("bench", add, "--repeat", 1, "--threads", 1, "--cpus", f"{cpu}-{cpu}", "--json", farm=farm)
    assert parsed(ran)["environment"]["threads"] == "1"
    assert crossfarm("run", add, "--threads", 2, "--cpus", cpu, farm=farm).returncode == 0
    expect_failure(crossfarm("run", add, "--cpus", "3-1", "--json", farm=farm), 2, "UsageError", "--cpus 0,4-7")
    expect_failure(crossfarm("run", add, "--cpus", 100000, "--json", farm=farm), 1, "ArgumentError", "CPU 100000")


def test_plain_text_where_nobody_watches(crossfarm: Crossfarm, farm: Farm, add: Path) -> None:
    ran = crossfarm("run", add, farm=farm)
    assert ran.returncode == 0, ran.stderr
    assert "\x1b" not in ran.stdout + ran.stderr
    assert ran.stdout.splitlines()[0].split() == ["output", "shape", "min", "max", "mean", "values"]


def test_a_table_and_progress_on_a_terminal(farm: Farm, add: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "clients.cli.main", "run", str(add), "--tracker", farm.address]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as ran:
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 4096):
                shown += piece
        except OSError:  # Linux: the other side closed
            pass
    os.close(ours)
    assert ran.returncode == 0
    assert "┏━".encode() in shown
    assert b"asking for a device" in shown


@pytest.mark.parametrize(
    ("program", "arguments", "kind", "said"),
    [
        (programs.MALFORMED, (), "ScriptError", "program.py"),
        ("def (:", (), "ScriptError", "program.py"),
        (programs.ILL_FORMED, (), "VerifyError", "main"),
        (programs.ADD, ("--target", "llwm"), "InvalidTarget", "llvm"),
        (programs.ADD, ("--target", "raspberry-pi/4c"), "InvalidTarget", "raspberry-pi/4b"),
        (programs.ADD, ("--target", "x86_64-apple-darwin"), "UnsupportedTarget", "macos"),
        (programs.ADD, ("--function", "mane"), "NoSuchFunction", "main"),
        (programs.TWO, (), "NoSuchFunction", "double, half"),
        (programs.ADD, ("--input", "Z=1"), "ArgumentError", "Z"),
        (programs.ADD, ("--input", "A=9xf32"), "ArgumentError", "A"),
        (programs.ADD, ("--input", "A=8xf64"), "ArgumentError", "float32"),
        (programs.ADD, ("--output", "A=@a.npy"), "ArgumentError", "does not write A"),
        (programs.ADD, ("--select", "arch=vax"), "NoSuchDevice", "vax"),
        (programs.ADD, ("--select", "kind="), "InvalidSelector", "column 6"),
        (programs.ADD, ("--target", FOREIGN), "IncompatibleArtifact", "arch"),
    ],
    ids=[
        "reaches for Python",
        "no Python",
        "ill-formed",
        "unknown kind",
        "unknown tag",
        "unbuildable target",
        "unknown function",
        "several functions",
        "unknown parameter",
        "wrong shape",
        "wrong dtype",
        "no output",
        "impossible selector",
        "malformed selector",
        "another architecture",
    ],
)
def test_bad_input_is_named_and_costs_nothing(
    crossfarm: Crossfarm,
    farm: Farm,
    tmp_path: Path,
    program: str,
    arguments: tuple[str, ...],
    kind: str,
    said: str,
) -> None:
    ran = crossfarm("run", write(tmp_path, program), *arguments, "--json", farm=farm)
    expect_failure(ran, 1, kind, said)
    assert still_works(farm)


@pytest.mark.parametrize(
    ("program", "arguments", "kind", "said"),
    [
        (programs.DIVIDE, ("--input", "B=4xi32=0"), "ProgramError", "zero"),
        (programs.CRASH, ("--input", f"I=4xi64={2**40}"), "RemoteCrash", "SIGSEGV"),
        (programs.ENDLESS, ("--input", "A=4xi32=0", "--call-timeout", "0.5"), "Timeout", "0.5"),
        (programs.ENDLESS, ("--input", "A=4xi32=0", "--session-timeout", "0.7"), "Timeout", "session"),
        (programs.HUNGRY, ("--input", "A=64xf32=1"), "LimitExceeded", "memory"),
    ],
    ids=["divides by zero", "crashes", "never ends", "outlives its session", "allocates everything"],
)
def test_a_wicked_program_is_told_apart_and_the_device_comes_back(
    crossfarm: Crossfarm,
    farm: Farm,
    tmp_path: Path,
    program: str,
    arguments: tuple[str, ...],
    kind: str,
    said: str,
) -> None:
    ran = crossfarm("run", write(tmp_path, program), *arguments, "--json", farm=farm)
    expect_failure(ran, 1, kind, said)
    assert still_works(farm)


def still_works(farm: Farm) -> bool:
    """The farm's device can be leased and runs a program."""
    from crossfarm.frontends.tvmscript import parse

    with farm.acquire("kind=cpu", timeout=20) as device:
        ones = np.ones(8, np.float32)
        result = device.load(farm.build(parse(programs.ADD)))["main"](ones, ones)
    return bool((result == 2).all())


def test_a_damaged_artifact_is_refused_before_a_device_is_asked_for(
    crossfarm: Crossfarm, farm: Farm, add: Path, tmp_path: Path
) -> None:
    assert crossfarm("build", add, "-o", "good.cfa", farm=farm).returncode == 0
    good = (tmp_path / "good.cfa").read_bytes()
    (tmp_path / "short.cfa").write_bytes(good[:-100])
    (tmp_path / "changed.cfa").write_bytes(good[:-100] + bytes([good[-100] ^ 1]) + good[-99:])
    (tmp_path / "other.cfa").write_bytes(b"something else")
    for name in ("short.cfa", "changed.cfa", "other.cfa"):
        expect_failure(crossfarm("run", name, "--json", farm=farm), 1, "InvalidArtifact", name)
        expect_failure(crossfarm("inspect", name, "--json"), 1, "InvalidArtifact", name)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nonsense",), "nonsense"),
        (("run", "missing.py"), "missing.py"),
        (("run", "program.txt"), "program.txt"),
        (("build", "program.py", "--opt-level", "7"), "opt-level"),
        (("run", "program.py", "--input", "A"), "NAME=VALUE"),
        (("run", "program.py", "--output", "C=c.npy"), "@c.npy"),
        (("run", "program.py", "--expect", "C=@missing.npy"), "missing.npy"),
        (("devices", "--tracker", "nowhere"), "host:port"),
    ],
)
def test_a_wrong_command_line_is_a_usage_error(
    crossfarm: Crossfarm, farm: Farm, add: Path, arguments: tuple[str, ...], said: str
) -> None:
    expect_failure(crossfarm(*arguments, "--json", farm=farm), 2, "UsageError", said)


def test_a_farm_that_cannot_be_reached_is_an_infrastructure_failure(crossfarm: Crossfarm) -> None:
    ran = crossfarm("devices", "--tracker", "127.0.0.1:1", "--json")
    expect_failure(ran, 3, "Unavailable", "127.0.0.1:1")


def test_plaintext_beyond_loopback_is_refused(crossfarm: Crossfarm) -> None:
    expect_failure(crossfarm("devices", "--tracker", "192.0.2.1:7461", "--json"), 1, "PermissionDenied", "plaintext")


def test_a_place_that_cannot_be_written_says_which_variable_names_another(
    crossfarm: Crossfarm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    for variable, command in (("CROSSFARM_CACHE", "devices"), ("CROSSFARM_STATE", "up")):
        monkeypatch.setenv(variable, str(tmp_path / "file" / "below"))
        expect_failure(crossfarm(command, "--json"), 2, "UsageError", variable)


def test_tracebacks_are_shown_when_asked_for(crossfarm: Crossfarm) -> None:
    ran = crossfarm("inspect", "missing.cfa", "-v")
    assert ran.returncode == 2
    assert "Traceback" in ran.stderr


def test_script_and_sources_come_out_of_an_artifact(
    crossfarm: Crossfarm, farm: Farm, add: Path, tmp_path: Path
) -> None:
    crossfarm("build", add, "--keep-sources", "-o", "add.cfa", farm=farm)
    script = crossfarm("inspect", "add.cfa", "--script").stdout
    assert crossfarm("inspect", write(tmp_path, script, "again.py"), "--script").stdout == script
    ran = crossfarm("inspect", "add.cfa", "--sources", "out", "--json")
    written = {Path(path).name for path in parsed(ran)["written"]}
    assert "module.py" in written
    assert len(written) > 2
    assert all((tmp_path / "out" / name).stat().st_size for name in written)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_releases_its_device_at_once(farm: Farm, tmp_path: Path, number: signal.Signals) -> None:
    path = write(tmp_path, programs.ENDLESS)
    assert comes_back(farm)  # so that a lease that is seen is this command's, and its handlers are in place
    command = [sys.executable, "-m", "clients.cli.main", "run", str(path), "-i", "A=4xi32=0", "--tracker", farm.address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as ran:
        while farm.devices()[0].state != "leased":
            assert ran.poll() is None, ran.stderr.read() if ran.stderr else ""
        ran.send_signal(number)
        out, err = ran.communicate(timeout=20)
    assert comes_back(farm)  # sooner than a broken connection would be noticed
    assert ran.returncode == 128 + number, err
    assert "Traceback" not in err
    assert out == ""
    assert still_works(farm)


def lost_interrupt(afterwards: str) -> subprocess.CompletedProcess[str]:
    """A program whose first SIGINT comes in a destructor, where its exception is dropped."""
    swallowing = (
        "import os, signal, threading, time\n"
        "from clients.cli.interrupts import Interrupts\n"
        "Interrupts().install()\n"
        "class Destroyed:\n"
        "    def __del__(self): os.kill(os.getpid(), signal.SIGINT)\n"
        "Destroyed()\n" + afterwards
    )
    return subprocess.run([sys.executable, "-c", swallowing], capture_output=True, text=True, timeout=30, check=False)


def test_an_interrupt_that_gets_lost_is_sent_again() -> None:
    ended = lost_interrupt("try: threading.Event().wait()\nexcept KeyboardInterrupt: os._exit(77)\n")
    assert ended.returncode == 77, ended.stderr


def test_an_interrupt_is_not_sent_again_to_what_gives_back_because_of_it() -> None:
    unwinding = (
        "import os, signal, time\n"
        "from clients.cli import interrupts\n"
        "interrupts._NOTICE_SECONDS = 0.01\n"
        "interrupts.Interrupts().install()\n"
        "try: signal.raise_signal(signal.SIGINT)\n"
        "finally:\n"
        "    time.sleep(0.5)\n"
        "    os._exit(78)\n"
    )
    ended = subprocess.run([sys.executable, "-c", unwinding], capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 78, ended.stderr


def test_a_signal_that_was_ignored_before_stays_ignored() -> None:
    """As for a command that a script runs in the background, or under nohup."""
    ignoring = (
        "import os, signal\n"
        "from clients.cli.interrupts import Interrupts\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "Interrupts().install()\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "os._exit(79)\n"
    )
    ended = subprocess.run([sys.executable, "-c", ignoring], capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 79, ended.stderr


def test_a_command_that_hears_no_interrupt_ends_all_the_same() -> None:
    deaf = "while True:\n    try: threading.Event().wait()\n    except KeyboardInterrupt: pass\n"
    ended = lost_interrupt(deaf)
    assert ended.returncode == 128 + signal.SIGINT, ended.stderr


def test_the_programs_are_started_one_by_one(crossfarm: Crossfarm) -> None:
    for name in ("tracker", "compiler", "agent"):
        ran = crossfarm(name, "serve", "--help")
        assert ran.returncode == 0
        assert "--announce" in ran.stdout
