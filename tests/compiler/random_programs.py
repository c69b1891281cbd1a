"""Programs of several blocks that exchange rows, columns and single elements, made up by chance."""

from __future__ import annotations

from random import Random

#: Indices and loops of each kind of tensor: of rows by columns, of rows, of columns, of one element.
_INDEX = {"RC": "[vi, vj]", "R": "[vi]", "C": "[vj]", "1": "[0]"}
_KINDS = {"R": "SR", "C": "RS", "1": "RR"}
#: What an element may be computed of.
_USABLE = {"RC": ("RC", "R", "C", "1"), "R": ("R", "1"), "C": ("C", "1"), "1": ("1",)}


def random_program(seed: int) -> tuple[str, int, int]:
    """Script of ``main(X, Z, Y)``, where ``Y`` is the output, and the rows and columns of all three.

    Blocks are maps and reductions; what they read is at the same place, at one that is mirrored, or broadcast.
    """
    rng = Random(seed)
    rows, columns = rng.choice([1, 3, 8, 17, 33]), rng.choice([1, 4, 16, 35, 64])
    return _Maker(rng, rows, columns).script(), rows, columns


class _Maker:
    def __init__(self, rng: Random, rows: int, columns: int) -> None:
        self.rng, self.rows, self.columns = rng, rows, columns
        self.made = [("X", "RC"), ("Z", "RC")]

    def script(self) -> str:
        shapes = [self.rng.choice(["RC", "RC", "R", "C", "R", "C", "1"]) for _ in range(self.rng.randint(2, 5))]
        temporaries, body = [], []
        for number, shape in enumerate(shapes):
            temporaries.append(f'    t{number} = T.alloc_buffer({self._dims(shape)}, "float32")\n')
            body.append(self._block(f"t{number}", shape))
        body.append(self._block("Y", "RC"))
        params = ", ".join(f'{name}: T.Buffer({self._dims("RC")}, "float32")' for name in "XZY")
        head = f"@T.prim_func\ndef main({params}):\n    T.func_attr({{'tir.noalias': True}})\n"
        return "from crossfarm.script import tir as T\n" + head + "".join(temporaries) + "".join(body)

    def _dims(self, shape: str) -> str:
        return {"RC": f"({self.rows}, {self.columns})", "R": f"({self.rows},)", "C": f"({self.columns},)", "1": "(1,)"}[
            shape
        ]

    def _block(self, name: str, shape: str) -> str:
        at = f"{name}{_INDEX[shape]}"
        if shape != "RC" and (self.rng.random() < 0.75 or self._operand(shape) is None):
            value = self._value("RC")
            start, step = self.rng.choice(
                [("T.float32(0)", f"{at} + ({value})"), ('T.float32("-inf")', f"T.max({at}, {value})")]
            )
            axes = f'vi, vj = T.axis.remap("{_KINDS[shape]}", [i, j])'
            lines = [axes, "with T.init():", f"    {at} = {start}", f"{at} = {step}"]
            loops = f"for i, j in T.grid({self.rows}, {self.columns}):"
        else:
            loops, axes = {
                "RC": (f"for i, j in T.grid({self.rows}, {self.columns}):", 'vi, vj = T.axis.remap("SS", [i, j])'),
                "R": (f"for i in range({self.rows}):", f"vi = T.axis.spatial({self.rows}, i)"),
                "C": (f"for j in range({self.columns}):", f"vj = T.axis.spatial({self.columns}, j)"),
                "1": ("for u in range(1):", "vu = T.axis.spatial(1, u)"),
            }[shape]
            lines = [axes, f"{at} = {self._value(shape)}"]
        self.made.append((name, shape))
        inside = "".join(f"            {line}\n" for line in lines)
        return f'    {loops}\n        with T.block("{name}"):\n{inside}'

    def _value(self, shape: str) -> str:
        a, b = self._operand(shape), self._operand(shape)
        assert a is not None
        bounded = f"T.exp(T.min({a}, T.float32(0)))"
        return self.rng.choice(
            [f"{a} + {b}", f"{a} * T.float32(0.5)", f"T.max({a}, {b})", f"{a} - {b}", bounded, str(a)]
        )

    def _operand(self, shape: str) -> str | None:
        usable = [tensor for tensor in self.made if tensor[1] in _USABLE[shape]]
        if not usable:
            return None
        name, kind = self.rng.choice(usable[-4:] if self.rng.random() < 0.7 else usable)
        row = self.rng.choice(["vi"] * 5 + [f"{self.rows - 1} - vi"])
        column = self.rng.choice(["vj"] * 5 + [f"{self.columns - 1} - vj"])
        return name + {"RC": f"[{row}, {column}]", "R": f"[{row}]", "C": f"[{column}]", "1": "[0]"}[kind]
