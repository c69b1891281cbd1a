"""Foreign programs → IRModule. ``load`` picks the frontend by the file's suffix."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from crossfarm.errors import InvalidModule
from crossfarm.ir.module import IRModule


def load(path: str | os.PathLike[str]) -> IRModule:
    """The module in a file: ``.py`` is TVMScript of any dialect (read, never executed), ``.cfir`` a saved module,
    ``.onnx`` an ONNX model (see ``crossfarm.frontends.onnx``, which takes more than a path).

    Raises:
        InvalidModule: unknown suffix, or a file that cannot be read; ScriptError: script outside the subset.
        UsageError: an ONNX model, and the onnx package is not installed.
    """
    file = Path(path)
    loader = _LOADERS.get(file.suffix.lower())
    if loader is None:
        known = ", ".join(f"{suffix} ({what})" for suffix, what in FORMATS.items())
        raise InvalidModule(
            f"{file}: unknown module format {file.suffix or '(no suffix)'!r}", hint=f"known formats are {known}"
        )
    try:
        return loader(file)
    except UnicodeDecodeError as error:
        raise InvalidModule(f"{file}: not UTF-8 text: {error.reason}", hint="save the script as UTF-8") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InvalidModule(f"{file}: cannot be read: {reason}", hint="check the path and its permissions") from None


def _script(path: Path) -> IRModule:
    from crossfarm.frontends.tvmscript import parse

    return parse(path.read_text(encoding="utf-8-sig"), filename=str(path))


def _saved(path: Path) -> IRModule:
    from crossfarm.ir.serialize import load_module

    return load_module(path)


def _onnx(path: Path) -> IRModule:
    from crossfarm.frontends.onnx import load_onnx

    return load_onnx(path)


#: Suffix → what it holds.
FORMATS = {".py": "TVMScript", ".cfir": "a saved module", ".onnx": "an ONNX model"}
_LOADERS: dict[str, Callable[[Path], IRModule]] = {".py": _script, ".cfir": _saved, ".onnx": _onnx}
