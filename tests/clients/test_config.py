"""Which farm a client talks to: the precedence of its settings, and what is wrong with bad ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clients.sdk import config, places, runfile
from crossfarm.errors import UsageError
from crossfarm.wire.channels import Security


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("CROSSFARM_TRACKER", "CROSSFARM_INSECURE", "CROSSFARM_CA"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("CROSSFARM_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("CROSSFARM_CONFIG", str(tmp_path / "config.toml"))


def write_config(text: str) -> None:
    places.config_file().write_text(text)


def note_running_farm(pid: int, started: float) -> None:
    runfile.write(runfile.RunningFarm("127.0.0.1:3", "127.0.0.1:4", pid, started, "/nowhere"))


def test_the_argument_wins_over_the_environment_over_a_running_farm_over_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = [config.resolve().tracker]
    write_config('tracker = "127.0.0.1:4"')
    found.append(config.resolve().tracker)
    note_running_farm(os.getpid(), runfile.start_time(os.getpid()))
    found.append(config.resolve().tracker)
    monkeypatch.setenv("CROSSFARM_TRACKER", "127.0.0.1:2")
    found.append(config.resolve().tracker)
    found.append(config.resolve("127.0.0.1:1").tracker)
    assert found == ["embedded", "127.0.0.1:4", "127.0.0.1:3", "127.0.0.1:2", "127.0.0.1:1"]


def test_a_running_farm_says_where_its_compiler_is() -> None:
    note_running_farm(os.getpid(), runfile.start_time(os.getpid()))
    assert config.resolve().compiler == "127.0.0.1:4"


@pytest.mark.parametrize("given_again", [False, True])
def test_a_note_of_a_process_that_is_gone_is_ignored(given_again: bool) -> None:
    started = runfile.start_time(os.getpid())
    if given_again:  # its id belongs to another process now
        note_running_farm(os.getpid(), started - 100)
    else:
        note_running_farm(2**22 + 1, started)
    assert runfile.read() is None
    assert config.resolve().tracker == config.EMBEDDED


@pytest.mark.parametrize("text", ["", "{", "[]", '{"tracker": 1}', '{"unknown": 1}'])
def test_an_unreadable_note_is_no_farm(text: str) -> None:
    runfile.path().parent.mkdir(parents=True)
    runfile.path().write_text(text)
    assert runfile.read() is None


def test_the_word_embedded_asks_for_a_private_farm_whatever_is_configured() -> None:
    write_config('tracker = "127.0.0.1:4"')
    assert config.resolve("embedded").tracker == config.EMBEDDED


def test_credentials_come_from_the_environment_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file.pem").write_bytes(b"from the file")
    (tmp_path / "environment.pem").write_bytes(b"from the environment")
    write_config('ca = "file.pem"\ninsecure = true')
    assert config.resolve().security == Security(root_certificates=b"from the file", insecure=True)
    monkeypatch.setenv("CROSSFARM_CA", str(tmp_path / "environment.pem"))
    monkeypatch.setenv("CROSSFARM_INSECURE", "0")
    assert config.resolve().security == Security(root_certificates=b"from the environment")
    assert config.resolve(security=Security(insecure=True)).security == Security(insecure=True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tracker = ", "not TOML"),
        ('tracer = "a:1"', "unknown key 'tracer'"),
        ("tracker = 1", "must be a str"),
        ('tracker = "nowhere"', "not host:port"),
        ('ca = "missing.pem"', "missing.pem"),
    ],
)
def test_a_bad_file_is_a_usage_error_that_names_the_file(text: str, said: str) -> None:
    write_config(text)
    with pytest.raises(UsageError, match=said) as caught:
        config.resolve()
    assert "config.toml" in str(caught.value)


def test_a_bad_address_says_where_it_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSFARM_TRACKER", "nowhere")
    with pytest.raises(UsageError, match="CROSSFARM_TRACKER"):
        config.resolve()


def test_xdg_variables_name_the_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("CROSSFARM_CONFIG", "CROSSFARM_STATE", "CROSSFARM_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    for variable in ("CONFIG", "STATE", "CACHE"):
        monkeypatch.setenv(f"XDG_{variable}_HOME", f"/x/{variable.lower()}")
    assert places.config_file() == Path("/x/config/crossfarm/config.toml")
    assert places.state_dir() == Path("/x/state/crossfarm")
    assert places.cache_dir() == Path("/x/cache/crossfarm")
