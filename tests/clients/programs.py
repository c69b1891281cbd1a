"""The programs that the tests of the clients build: small, and some of them wicked."""

from __future__ import annotations

_HEAD = """from crossfarm.script import ir as I, tir as T


@I.ir_module
class Module:
"""


def _function(name: str, parameters: str, body: str) -> str:
    lines = "\n".join(f"        {line}" if line else "" for line in body.strip().splitlines())
    return f"    @T.prim_func\n    def {name}({parameters}):\n{lines}\n"


ADD = _HEAD + _function(
    "main",
    'A: T.Buffer((8,), "float32"), B: T.Buffer((8,), "float32"), C: T.Buffer((8,), "float32")',
    """
for i in range(8):
    with T.block("C"):
        vi = T.axis.spatial(8, i)
        C[vi] = A[vi] + B[vi]
""",
)

#: Two functions, none of them main.
TWO = _HEAD + "\n".join(
    _function(
        name,
        'A: T.Buffer((4,), "float32"), C: T.Buffer((4,), "float32")',
        f"""
for i in range(4):
    with T.block("C"):
        vi = T.axis.spatial(4, i)
        C[vi] = A[vi] {operation} T.float32(2)
""",
    )
    for name, operation in (("double", "*"), ("half", "/"))
)

#: Divides by what it is given.
DIVIDE = _HEAD + _function(
    "main",
    'A: T.Buffer((4,), "int32"), B: T.Buffer((4,), "int32"), C: T.Buffer((4,), "int32")',
    """
for i in range(4):
    with T.block("C"):
        vi = T.axis.spatial(4, i)
        C[vi] = A[vi] // B[vi]
""",
)

#: Writes where it is told to: far away that is a segmentation fault.
CRASH = _HEAD + _function(
    "main",
    'I: T.Buffer((4,), "int64"), C: T.Buffer((4,), "float32")',
    """
for i in range(4):
    with T.block("C"):
        vi = T.axis.spatial(4, i)
        C[I[vi]] = T.float32(1)
""",
)

#: Never ends: the condition stays true as long as nobody changes the input.
ENDLESS = _HEAD + _function(
    "main",
    'A: T.Buffer((4,), "int32"), C: T.Buffer((4,), "int32")',
    """
C[0] = 0
while A[0] == 0:
    C[0] = C[0] + 1
""",
)

#: Needs a workspace of 4 GiB for each element that it is given.
HUNGRY = _HEAD + _function(
    "main",
    'var_A: T.handle, C: T.Buffer((1,), "float32")',
    """
n = T.int64()
A = T.match_buffer(var_A, (n,), "float32")
X = T.alloc_buffer((n * T.int64(1073741824),), "float32")
for i in T.serial(n * T.int64(1073741824)):
    with T.block("X"):
        vi = T.axis.spatial(n * T.int64(1073741824), i)
        X[vi] = A[vi % n]
for i in T.serial(n * T.int64(1073741824)):
    with T.block("C"):
        vi = T.axis.reduce(n * T.int64(1073741824), i)
        with T.init():
            C[0] = T.float32(0)
        C[0] = C[0] + X[vi]
""",
)

#: Reads behind the end of a buffer.
ILL_FORMED = _HEAD + _function(
    "main",
    'A: T.Buffer((4,), "float32"), C: T.Buffer((4,), "float32")',
    """
for i in range(4):
    with T.block("C"):
        vi = T.axis.spatial(4, i)
        C[vi] = A[9]
""",
)

#: Reaches for Python.
MALFORMED = "import os\nos.system('true')\n"
