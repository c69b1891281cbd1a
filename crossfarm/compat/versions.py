"""The integers that everything written or sent carries. A line of history each; never compared with a release.

``ir_version``
    1  2026-11  PrimFuncs: expressions, statements, blocks, buffers, symbolic sizes.
    2  2026-11  Graph functions, constant tensors; a module without them is still read by readers of version 1.
``artifact_version``
    1  2026-11  Manifest with variants, entry points and sections.
``record_version``
    1  2026-11  Reserved for tuning records.
``trace_version``
    1  2026-11  Schedule traces: primitives, arguments, results, decisions.
``api_version``
    1  2026-11  compiler, tracker and session services.
``native_abi``
    1  2026-11  ``int32_t f(void *workspace, uint64_t *slots)``, see NativeEntry in proto/crossfarm/v1/artifact.proto.
"""

IR_VERSION = 2
IR_READABLE = (1, 2)

ARTIFACT_VERSION = 1
ARTIFACT_READABLE = (1, 1)

RECORD_VERSION = 1

TRACE_VERSION = 1

API_VERSION = 1
API_READABLE = (1, 1)

NATIVE_ABI = 1
