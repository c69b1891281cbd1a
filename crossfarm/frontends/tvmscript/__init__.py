"""TVMScript in all its dialects → IRModule. The text is read (Python's ``ast`` is walked), never executed.

``source`` holds the text and words errors; ``dialect`` knows every spelling of a name; ``module``, ``functions``,
``statements`` (with ``loops``, ``blocks``, ``assignments``, ``scoped``), ``expressions`` and ``calls`` follow the
grammar; ``buffers``, ``attributes`` and ``arguments`` are what those share.
"""

from __future__ import annotations

from crossfarm.ir.module import IRModule


def parse(text: str, filename: str = "<script>") -> IRModule:
    """The module that a script text holds; a bare ``@T.prim_func`` is a module of one function.

    Raises:
        ScriptError: the text is outside the subset; says file, line, column and construct.
    """
    from crossfarm.frontends.tvmscript.module import parse_module
    from crossfarm.frontends.tvmscript.source import Source

    return parse_module(Source(text, filename))
