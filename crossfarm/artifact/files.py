"""Writing files so that a crash, a kill or a full disk leaves either the old file or the new one, never half of one."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from crossfarm.errors import Error, ResourceExhausted, UsageError

#: Errors of the file system that mean "no room", with the words for them.
_FULL = {errno.ENOSPC: "no space left", errno.EDQUOT: "quota used up", errno.EFBIG: "file size limit reached"}
SCRATCH_SUFFIX = ".tmp"


def write_atomically(path: str | os.PathLike[str], data: bytes | memoryview, rest: Iterable[memoryview] = ()) -> None:
    """Puts ``data`` and then each of ``rest`` at ``path``: written aside, flushed, then renamed over what was there.

    Raises:
        ResourceExhausted: the disk or quota is full; nothing changed at ``path``.
        UsageError: the directory is missing or not writable.
    """
    target = Path(path)
    scratch = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}{SCRATCH_SUFFIX}")
    try:
        try:
            with open(scratch, "xb") as file:
                file.write(data)
                for part in rest:
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            os.replace(scratch, target)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise
    except OSError as failure:
        raise write_error(failure, target) from failure


def write_error(failure: OSError, path: Path) -> Error:
    """The crossfarm error for a failed write at ``path``."""
    if failure.errno in _FULL:
        return ResourceExhausted(
            f"cannot write {path}: {_FULL[failure.errno]}", hint="free some space there, then try again"
        )
    return UsageError(f"cannot write {path}: {failure.strerror or failure}", hint="check the path and its permissions")
