"""ONNX models → IRModule. Needs the ``onnx`` package, which is imported where a model is read.

::

    wire         weights cut out of a file, unread
    source       bytes, files, external data
    value        what a name stands for: unknown, known, or known in terms of sizes
    symbolic     operators on sizes
    emit         operators of the function; what is known is worked out
    names        each names one thing
    bodies       needed nodes, unsupported ones, functions in place of operators
    node         a node as its converter sees it
    registry     the table of converters
    converters/  one file a family
    importer     graphs, subgraphs, functions
    backend      ``onnx.backend``
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from crossfarm.errors import InvalidModule, UsageError
from crossfarm.ir.module import IRModule

if TYPE_CHECKING:
    from onnx import ModelProto


def load_onnx(
    model: str | os.PathLike[str] | bytes | ModelProto,
    *,
    shapes: Mapping[str, Sequence[int | str]] | None = None,
    values: Mapping[str, Any] | None = None,
) -> IRModule:
    """The module of an ONNX model: one graph function "main".

    Its parameters are the graph's inputs that are no initializers, in order. Weights are constants whose content
    stays in the file until it is needed. Dimensions with names become symbolic sizes, equal names equal ones; a
    dimension without a name becomes a size of its own. The function's attribute ``output_names`` holds the outputs'
    names, ``input_names`` the inputs' where they are no Python identifiers. A sequence that the model returns is
    returned as its tensors.

    Args:
        model: a path, the bytes of a file, or a ModelProto.
        shapes: input → its dimensions, numbers for those that are to be fixed and names for symbolic ones; must agree
            with what the model says.
        values: input → its value, for inputs that are to be constants: such as a shape that the model computes with.

    Raises:
        UsageError: the onnx package is not installed.
        InvalidModule: no ONNX model, a truncated one, one that needs a newer onnx package; operators that crossfarm
            does not have (all of them are listed); a shape that depends on values known only when the model runs.
        NotFound: a file with weights is missing.
    """
    try:
        import onnx  # noqa: F401
    except ModuleNotFoundError:
        raise UsageError("reading ONNX models needs the onnx package", hint="pip install 'crossfarm[onnx]'") from None
    from crossfarm.frontends.onnx import converters  # noqa: F401  fills the table
    from crossfarm.frontends.onnx.importer import Importer
    from crossfarm.frontends.onnx.source import Source

    try:
        source = Source(model)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InvalidModule(f"{model!s}: cannot be read: {reason}", hint="check the path") from None
    return Importer(source, shapes or {}, values or {}).module()
