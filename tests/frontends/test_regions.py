"""What a block reads and writes, inferred where the text leaves it out."""

from __future__ import annotations

import pytest

from crossfarm.ir.printer import print_node
from crossfarm.ir.stmt import BlockRealize
from crossfarm.ir.visitor import walk
from tests.frontends.helpers import function

#: body → (reads, writes)
CASES = [
    ("Z[()] = A[v, w]", "A[v, w]", "Z[()]"),
    ("A[v, w] = A[v, w] + x", "A[v, w]", "A[v, w]"),
    ("with T.init():\n    A[v, w] = T.float32(0)\nA[v, w] = A[v, w] + D[v].astype('float32')", "D[v]", "A[v, w]"),
    ("A[v, w] = A[v, w] + A[v, w + 1]", "A[v, w:w + 2]", "A[v, w]"),
    ("A[v, w] = A[w, v]", "A[w, v]", "A[v, w]"),
    ("D[v] = D[v] + D[w]", "D[0:16]", "D[v]"),
    ("for k in range(4):\n    D[v * 4 + k] = D[k]", "D[0:4]", "D[v * 4:v * 4 + 4]"),
    ("for k in range(2, 6):\n    D[10 - k] = D[k // 2]", "D[1:3]", "D[5:9]"),
    ("for k in range(16):\n    D[k % 4] = D[T.min(k, 3)]", "D[0:4]", "D[0:4]"),
    ("for k in range(n):\n    D[k] = D[v]", "D[v]", "D[0:n]"),
    ("for k in range(4):\n    for l in range(k):\n        D[l] = D[v]", "D[v]", "D[0:3]"),
    ("for k in range(4):\n    D[k * k] = D[v]", "D[v]", "D[0:16]"),
    ("q: T.int32 = v + 1\nD[q] = D[v]", "D[v]", "D[v + 1]"),
    ("D[B[v, w]] = D[v]", "D[v], B[v, w]", "D[B[v, w]]"),
    ("if A[v, w] > x:\n    D[v] = D[w]", "A[v, w], D[w]", "D[v]"),
    ("A[v, T.Ramp(w * 4, 1, 4)] = A[v, T.Ramp(6, -2, 4)]", "A[v, 0:7]", "A[v, w * 4:w * 4 + 4]"),
    ("X = T.alloc_buffer((4,), 'float64')\nX[0] = D[v]\nD[w] = X[0]", "D[v]", "D[w]"),
    ("X = T.alloc_buffer((1,), 'int32')\nX[0] = B[v, w]\nD[X[0]] = D[v]", "B[v, w], D[v]", "D[0:16]"),
    ("q: T.int32\nq = B[v, w]\nD[v] = D[q + 1]", "B[v, w], D[0:16]", "D[v]"),
    ("V = T.match_buffer(A[v, 0:4], (4,), 'float32')\nV[0] = x", "", "A[v, 0:4]"),
    ("for k in range(4):\n    with T.block('c'):\n        u = T.axis.spatial(4, k)\n        T.reads(D[u:u + 2])\n"
     "        T.writes(Z[()])\n        Z[()] = x", "D[0:5]", "Z[()]"),
    ("T.evaluate(x)", "", ""),
    ("Z[()] = T.Let(A[q, w], where={q: v + 1})", "A[v + 1, w]", "Z[()]"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "reads", "writes"), CASES)
def test_regions_are_inferred(body: str, reads: str, writes: str) -> None:
    text = "with T.block('b'):\n    v, w = T.axis.remap('SS', [i, j])\n"
    text += "\n".join(f"    {line}" for line in body.splitlines())
    realize = next(n for n in walk(function(text).body) if isinstance(n, BlockRealize) and n.block.name == "b")
    assert ", ".join(map(print_node, realize.block.reads)) == reads
    assert ", ".join(map(print_node, realize.block.writes)) == writes


def test_what_the_text_says_is_kept_even_if_it_is_less() -> None:
    text = "with T.block('b'):\n    v, w = T.axis.remap('SS', [i, j])\n    T.reads()\n    A[v, w] = A[w, v]"
    realize = next(n for n in walk(function(text).body) if isinstance(n, BlockRealize) and n.block.name == "b")
    assert realize.block.reads == ()
    assert print_node(realize.block.writes[0]) == "A[v, w]"
