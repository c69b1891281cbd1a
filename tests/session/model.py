"""A model made by hand: functions whose trailing parameters are constants, stored ones and ones that others prepare."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from compiler_service.build import build_variant
from crossfarm.artifact import Artifact, write_artifact
from crossfarm.frontends.tvmscript import parse
from crossfarm.ir.serialize import dumps
from crossfarm.target import Target
from crossfarm.wire.v1.artifact_pb2 import Manifest
from crossfarm.wire.v1.compiler_pb2 import BuildOptions

SIZE = 40_000  # floats: above what is always sent along

PROGRAM = f"""
@I.ir_module
class Module:
    @T.prim_func
    def main(x: T.handle, y: T.handle, W: T.Buffer(({SIZE},), "float32"), P: T.Buffer((2,), "float32")):
        n = T.int64()
        X = T.match_buffer(x, (n,), "float32")
        Y = T.match_buffer(y, (n,), "float32")
        for i in range(n):
            with T.block("y"):
                vi = T.axis.spatial(n, i)
                Y[vi] = X[vi] * W[vi] + P[1]

    @T.prim_func
    def other(Y: T.Buffer(({SIZE},), "float32"), W: T.Buffer(({SIZE},), "float32")):
        for i in range({SIZE}):
            with T.block("y"):
                vi = T.axis.spatial({SIZE}, i)
                Y[vi] = W[vi] + T.float32(1)

    @T.prim_func
    def main_prepare(P: T.Buffer((2,), "float32"), unused: T.Buffer((2,), "float32"),
                     V: T.Buffer(({SIZE},), "float32"), first: T.Buffer((2,), "float32")):
        for i in range(2):
            with T.block("p"):
                vi = T.axis.spatial(2, i)
                P[vi] = V[vi] * T.float32(10) + first[vi]
        for i in range(2):
            with T.block("u"):
                vi = T.axis.spatial(2, i)
                unused[vi] = T.float32(0)

    @T.prim_func
    def first_prepare(first: T.Buffer((2,), "float32"), W: T.Buffer(({SIZE},), "float32")):
        for i in range(2):
            with T.block("p"):
                vi = T.axis.spatial(2, i)
                first[vi] = W[vi] - T.float32(100)
"""
W, V = (np.arange(SIZE, dtype=np.float32) + k for k in (3, 7))
CONTENT = {hashlib.sha256(array).hexdigest(): memoryview(array).cast("B") for array in (W, V)}
W_DIGEST, V_DIGEST = CONTENT
FROM = {
    **{(function, "W"): f"sha256:{W_DIGEST}" for function in ("main", "other", "first_prepare")},
    ("main_prepare", "V"): f"sha256:{V_DIGEST}",
    ("main_prepare", "first"): "first_prepare:0",
    ("main", "P"): "main_prepare:0",
}
X = np.array([1, 2, 3], np.float32)
EXPECTED = X * W[:3] + (V[1] * 10 + W[1] - 100)


def with_origins(built: Artifact, origins: Mapping[tuple[str, str], str]) -> Artifact:
    """The artifact with parameters (function, name) made constants, and nodes named: what a model's has."""
    manifest = Manifest()
    manifest.CopyFrom(built.manifest)
    for entry in (entry for variant in manifest.variants for entry in variant.entry_points):
        for parameter in entry.parameters:
            parameter.constant = origins.get((entry.name, parameter.name), "")
        for step in entry.steps:
            step.origin = f"Mul_0+Add_1 of {entry.name}"
    return built.rewritten(manifest)


def build() -> Artifact:
    """The model without its constants' content, for what this machine has in software: CPU, OpenCL, Vulkan."""
    module = parse(PROGRAM)
    targets = [Target.detect(), Target("opencl"), Target("vulkan")]
    built = [build_variant(module, target, BuildOptions()) for target in targets]
    whole = write_artifact("model", [b.variant for b in built], [b.code for b in built], module=dumps(module))
    return with_origins(whole, FROM)
