"""Where a user's files of crossfarm live, on every platform.

| | Linux and BSD | macOS | Windows |
| --- | --- | --- | --- |
| configuration | ``~/.config`` | ``~/Library/Application Support`` | ``%APPDATA%`` |
| state: the farm of ``crossfarm up`` | ``~/.local/state`` | ``~/Library/Application Support`` | ``%LOCALAPPDATA%`` |
| cache: built artifacts | ``~/.cache`` | ``~/Library/Caches`` | ``%LOCALAPPDATA%`` |

each in a folder ``crossfarm``. ``CROSSFARM_CONFIG`` (a file), ``CROSSFARM_STATE``, ``CROSSFARM_CACHE`` (folders) name
them outright; else an ``XDG_CONFIG_HOME``, ``XDG_STATE_HOME`` or ``XDG_CACHE_HOME`` that is set wins on every platform.
Only ``make`` creates a directory.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from crossfarm.errors import UsageError

_APPLICATION = "crossfarm"


def config_file() -> Path:
    """The user's configuration file; it need not exist."""
    if named := os.environ.get("CROSSFARM_CONFIG"):
        return Path(named)
    return _base("XDG_CONFIG_HOME", ".config", "Library/Application Support", "APPDATA") / "config.toml"


def state_dir() -> Path:
    """The directory of the farm that ``crossfarm up`` keeps running; it need not exist."""
    if named := os.environ.get("CROSSFARM_STATE"):
        return Path(named)
    return _base("XDG_STATE_HOME", ".local/state", "Library/Application Support", "LOCALAPPDATA")


def cache_dir() -> Path:
    """The directory of what can be built again; it need not exist, and may be deleted at any time."""
    if named := os.environ.get("CROSSFARM_CACHE"):
        return Path(named)
    return _base("XDG_CACHE_HOME", ".cache", "Library/Caches", "LOCALAPPDATA")


def make(directory: Path, variable: str) -> Path:
    """``directory``, created if it is not there. Raises UsageError, which names ``variable`` as the way out."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        raise UsageError(
            f"cannot create the directory {directory}: {failure.strerror}",
            hint=f"set {variable} to a directory that you may write",
        ) from failure
    return directory


def _base(xdg: str, unix: str, mac: str, windows: str) -> Path:
    if named := os.environ.get(xdg):
        return Path(named) / _APPLICATION
    if sys.platform == "win32":
        return Path(os.environ.get(windows) or Path.home() / "AppData" / "Local") / _APPLICATION
    return Path.home() / (mac if sys.platform == "darwin" else unix) / _APPLICATION
