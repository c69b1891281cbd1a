"""Programs for copies, layouts and padding."""

from __future__ import annotations


def program(body: str, params: str) -> str:
    """A module of one function."""
    indented = "\n".join(f"    {line}" for line in body.strip("\n").splitlines())
    return f"from crossfarm.script import tir as T\n\n@T.prim_func\ndef main({params}):\n{indented}\n"


def matmul(m: int, n: int, k: int, dtype: str = "float32") -> str:
    """``C = A @ B``."""
    return program(
        f"""
for i, j, k in T.grid({m}, {n}, {k}):
    with T.block("C"):
        v_i, v_j, v_k = T.axis.remap("SSR", [i, j, k])
        with T.init():
            C[v_i, v_j] = T.{dtype}(0)
        C[v_i, v_j] = C[v_i, v_j] + A[v_i, v_k] * B[v_k, v_j]
""",
        f'A: T.Buffer(({m}, {k}), "{dtype}"), B: T.Buffer(({k}, {n}), "{dtype}"), C: T.Buffer(({m}, {n}), "{dtype}")',
    )


SYMBOLIC_MATMUL = program(
    """
M = T.int32()
N = T.int32()
K = T.int32()
A = T.match_buffer(a, (M, K))
B = T.match_buffer(b, (K, N))
C = T.match_buffer(c, (M, N))
for i, j, k in T.grid(M, N, K):
    with T.block("C"):
        v_i, v_j, v_k = T.axis.remap("SSR", [i, j, k])
        with T.init():
            C[v_i, v_j] = T.float32(0)
        C[v_i, v_j] = C[v_i, v_j] + A[v_i, v_k] * B[v_k, v_j]
""",
    "a: T.handle, b: T.handle, c: T.handle",
)

#: A convolution with stride 2 over an input padded by 1 on each side.
CONV = program(
    """
P = T.alloc_buffer((2, 11, 11, 3))
for n, h, w, c in T.grid(2, 11, 11, 3):
    with T.block("P"):
        v_n, v_h, v_w, v_c = T.axis.remap("SSSS", [n, h, w, c])
        P[v_n, v_h, v_w, v_c] = T.if_then_else(
            1 <= v_h and v_h < 10 and 1 <= v_w and v_w < 10, A[v_n, v_h - 1, v_w - 1, v_c], T.float32(0))
for n, h, w, o, r, s, c in T.grid(2, 5, 5, 5, 3, 3, 3):
    with T.block("C"):
        v_n, v_h, v_w, v_o, v_r, v_s, v_c = T.axis.remap("SSSSRRR", [n, h, w, o, r, s, c])
        with T.init():
            C[v_n, v_h, v_w, v_o] = T.float32(0)
        C[v_n, v_h, v_w, v_o] = (
            C[v_n, v_h, v_w, v_o] + P[v_n, v_h * 2 + v_r, v_w * 2 + v_s, v_c] * W[v_r, v_s, v_c, v_o])
""",
    "A: T.Buffer((2, 9, 9, 3)), W: T.Buffer((3, 3, 3, 5)), C: T.Buffer((2, 5, 5, 5))",
)
