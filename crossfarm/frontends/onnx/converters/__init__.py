"""Converters of ONNX's operators, one file a family; importing this fills the table in ``registry``."""

from crossfarm.frontends.onnx.converters import (  # noqa: F401
    activations,
    contraction,
    control,
    elementwise,
    generators,
    images,
    indexing,
    movement,
    normalization,
    pooling,
    quantization,
    recurrent,
    reductions,
    sequences,
    spectral,
)
