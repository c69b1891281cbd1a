"""How results look: tables and progress on a terminal, plain aligned text elsewhere, one JSON document on request."""

from __future__ import annotations

import json
import math
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from crossfarm.errors import Error

_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


class Progress:
    """What the user is told while something takes long; ``say`` replaces the line before."""

    def __init__(self, status: Status | None) -> None:
        self._status = status

    def say(self, text: str) -> None:
        if self._status is not None:
            self._status.update(escape(text))


class Output:
    """Standard output for results, standard error for everything else.

    Attributes:
        json: print one JSON document on standard output, and nothing else there.
    """

    def __init__(self) -> None:
        self.json = False
        self._results = Console(highlight=False)
        self._messages = Console(stderr=True, highlight=False)
        self._progress: Progress | None = None

    @property
    def is_terminal(self) -> bool:
        """True where results are read by a person as they come."""
        return self._results.is_terminal

    def document(self, value: Any) -> None:
        """The command's one JSON document."""
        print(json.dumps(_portable(value), indent=2, allow_nan=False))

    def line(self, text: str = "") -> None:
        """A line of the result."""
        print(text)

    def note(self, text: str) -> None:
        """A line for people only, on standard error."""
        self._messages.print(escape(text), soft_wrap=True)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "") -> None:
        """Rows under headings: drawn on a terminal, aligned with spaces elsewhere."""
        if self.is_terminal:
            table = Table(title=title or None, title_justify="left")
            for column in columns:
                table.add_column(escape(column), overflow="fold")
            for row in rows:
                table.add_row(*map(escape, row))
            self._results.print(table)
            return
        cells = [list(columns), *map(list, rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
        for row in cells:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())

    @contextmanager
    def progress(self, text: str) -> Iterator[Progress]:
        """Shows ``text`` with a spinner while the body runs, on a terminal; nothing elsewhere. One inside another
        takes over its line."""
        if not self._messages.is_terminal:
            yield Progress(None)
        elif self._progress is not None:
            self._progress.say(text)
            yield self._progress
        else:
            with self._messages.status(escape(text)) as status:
                self._progress = Progress(status)
                try:
                    yield self._progress
                finally:
                    self._progress = None

    def error(self, failure: BaseException, *, verbose: bool) -> None:
        """Why the command failed: the message and the next step on standard error, with ``--json`` also as document."""
        known = isinstance(failure, Error)
        message = failure.message if isinstance(failure, Error) else f"{type(failure).__name__}: {failure}"
        hint = failure.hint if isinstance(failure, Error) else ""
        if verbose:
            traceback.print_exception(failure, file=sys.stderr)
        elif not known:
            hint = "this is a defect of crossfarm: run again with -v and report what it prints"
        self._messages.print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)
        if hint:
            self._messages.print(f"  [dim]next:[/] {escape(hint)}", soft_wrap=True)
        if self.json:
            details = failure.details if isinstance(failure, Error) else {}
            self.document(
                {"error": {"type": type(failure).__name__, "message": message, "hint": hint, "details": details}}
            )


def _portable(value: Any) -> Any:
    """``value`` with what JSON has no word for as text: "nan", "inf", "-inf"."""
    if isinstance(value, dict):
        return {str(key): _portable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_portable(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def seconds(value: float) -> str:
    """A time with three significant digits: "1.23 ms"."""
    if value == 0:
        return "0 s"
    scale, unit = next(((s, u) for s, u in _UNITS if abs(value) >= s), _UNITS[-1])
    scaled = value / scale
    digits = 0 if scaled >= 100 else 1 if scaled >= 10 else 2
    return f"{scaled:.{digits}f} {unit}"


def quantity(value: float) -> str:
    """A count with three significant digits: "1.23 M"."""
    for scale, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= scale:
            return f"{value / scale:.3g} {prefix}"
    return f"{value:.3g} "


def size(count: int) -> str:
    """Bytes for people: "1.5 GiB"."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
