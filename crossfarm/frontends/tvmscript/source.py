"""The text being parsed: turns it into a Python syntax tree within limits, and words errors that point into it."""

from __future__ import annotations

import ast
import difflib
import warnings
from collections.abc import Iterable

from crossfarm.errors import InvalidModule, ScriptError
from crossfarm.ir.visitor import MAX_DEPTH

#: Largest script, in characters. The longest real ones (whole models) are about 2 MB.
MAX_TEXT = 16 * 1024 * 1024
#: Longest quoted shape expression.
MAX_QUOTED = 4096
#: Syntax nests a little deeper than the IR it means (a call in an argument in a call).
MAX_SYNTAX_DEPTH = 2 * MAX_DEPTH
_EXCERPT = 100
_LONGEST_NAME = 64
_LONGEST_MESSAGE = 400


class Source:
    """One script text. Lines and columns in errors are 1-based and refer to ``filename``.

    Args:
        first_line: number of the text's first line in the file; indent: columns cut off from each line. Both are for
            decorators, which see one definition of a file.
    """

    def __init__(self, text: str, filename: str = "<script>", first_line: int = 1, indent: int = 0) -> None:
        self.text = text
        self.filename = filename
        self._first_line = first_line
        self._indent = indent
        self._lines: list[str] | None = None

    def error(self, node: ast.AST | None, message: str, *, construct: str = "", hint: str = "") -> ScriptError:
        """The error to raise about ``node`` (None: about the whole text)."""
        line = getattr(node, "lineno", 1)
        return self.error_at(line, self._column(line, getattr(node, "col_offset", 0)), message, construct, hint)

    def error_at(self, line: int, column: int, message: str, construct: str = "", hint: str = "") -> ScriptError:
        """The error for a 1-based line and 1-based character column of the text."""
        file_line, file_column = line + self._first_line - 1, column + self._indent
        where = f"{self.filename}:{file_line}:{file_column}"
        return ScriptError(
            f"{where}: {_cut(message)}{self._excerpt(line, column)}",
            filename=self.filename,
            line=file_line,
            column=file_column,
            construct=_cut(construct),
            hint=_cut(hint),
        )

    def wrap(self, node: ast.AST, error: InvalidModule, construct: str = "") -> ScriptError:
        """An error of the IR's constructors, placed at ``node``."""
        return self.error(node, error.message, construct=construct, hint=error.hint)

    def tree(self) -> ast.Module:
        """The syntax tree. Raises ScriptError for text too long, too deep, or not Python."""
        if len(self.text) > MAX_TEXT:
            raise self.error(
                None, f"the script has {len(self.text)} characters, more than {MAX_TEXT}", construct="script",
                hint="split it into several modules, or send it as .cfir",
            )  # fmt: skip
        tree = self._parse(self.text, "exec")
        assert isinstance(tree, ast.Module)
        self._check_depth(tree)
        return tree

    def quoted(self, node: ast.Constant) -> ast.expr:
        """The expression inside a string such as ``"n + m"``, its nodes placed where the string stands."""
        text = str(node.value)
        if len(text) > MAX_QUOTED:
            raise self.error(node, f"a quoted expression of {len(text)} characters", construct="quoted expression")
        try:
            tree = self._parse(text.strip(), "eval")
        except ScriptError as error:
            reason = error.details.get("reason", "it does not parse")
            raise self.error(
                node, f"the quoted expression {text!r} is not an expression: {reason}", construct="quoted expression",
                hint='write a size, as "n" or "n + m"',
            ) from None  # fmt: skip
        assert isinstance(tree, ast.Expression)
        for inner in ast.walk(tree):
            if hasattr(inner, "lineno"):
                ast.copy_location(inner, node)
        self._check_depth(tree)
        return tree.body

    def _parse(self, text: str, mode: str) -> ast.AST:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # odd escapes in foreign text are no news to our user
                return ast.parse(text, mode=mode)
        except SyntaxError as error:
            reason = error.msg or "invalid syntax"
            failure = self.error_at(
                error.lineno or 1, error.offset or 1, f"not valid Python syntax: {reason}", "syntax"
            )
        except (RecursionError, MemoryError):
            reason = "it nests too deep"
            failure = self.error_at(1, 1, "the script nests too deep to be parsed", "syntax")
        except (ValueError, OverflowError) as error:  # null bytes, lone surrogates
            reason = str(error)
            failure = self.error_at(1, 1, f"not valid Python syntax: {reason}", "syntax")
        failure.details["reason"] = reason
        raise failure from None

    def _check_depth(self, tree: ast.AST) -> None:
        # a stack of our own: the tree may be deeper than Python's allows
        stack: list[tuple[ast.AST, int]] = [(tree, 0)]
        while stack:
            node, depth = stack.pop()
            if depth > MAX_SYNTAX_DEPTH:
                raise self.error(
                    node, f"nested deeper than {MAX_SYNTAX_DEPTH} levels", construct="nesting",
                    hint="split the expression or the loops into several statements or functions",
                )  # fmt: skip
            stack.extend((child, depth + 1) for child in ast.iter_child_nodes(node))

    def _line(self, line: int) -> str:
        if self._lines is None:
            self._lines = self.text.splitlines()
        return self._lines[line - 1] if 0 < line <= len(self._lines) else ""

    def _column(self, line: int, byte_offset: int) -> int:
        """ast counts columns in UTF-8 bytes; people count characters."""
        text = self._line(line)
        if text.isascii():
            return byte_offset + 1
        return len(text.encode("utf-8", "surrogatepass")[:byte_offset].decode("utf-8", "ignore")) + 1

    def _excerpt(self, line: int, column: int) -> str:
        text = self._line(line)
        if not text.strip():
            return ""
        start = max(0, column - 1 - _EXCERPT // 2) if len(text) > _EXCERPT else 0
        shown = text[start : start + _EXCERPT]
        cut = len(shown) - len(shown.lstrip()) if start == 0 else 0
        return f"\n    {shown[cut:].rstrip()}\n    {' ' * max(0, column - 1 - start - cut)}^"


def _cut(text: str) -> str:
    """A foreign text may be as long as it likes; a message may not."""
    return text if len(text) <= _LONGEST_MESSAGE else text[: _LONGEST_MESSAGE - 1] + "…"


def nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    """``the nearest known one is …`` as a hint, or a plain one where nothing is near."""
    if len(name) > _LONGEST_NAME:
        return ""
    found = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    return f"the nearest known one is {prefix}{found[0]}" if found else ""
