"""Text that means harm: it is refused as any other mistake, nothing of it runs, and nothing takes long."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from crossfarm.errors import ScriptError
from crossfarm.frontends.tvmscript import parse
from crossfarm.frontends.tvmscript.source import MAX_TEXT
from tests.frontends.helpers import program, round_trips

HARMFUL = [
    "import os\nos.system('touch {path}')",
    "from os import system\nsystem('touch {path}')",
    "import tvm.script.os as T",
    "from tvm.script import tir as T\nimport subprocess",
    "__import__('os').system('touch {path}')",
    "open('{path}', 'w')",
    "[open('{path}', 'w') for _ in (1,)]",
    "exec('1')",
    "x = __builtins__",
    "@__import__('os').system\ndef f():\n    pass",
    "@(lambda f: open('{path}', 'w'))\ndef f():\n    pass",
    "@T.prim_func(private=open('{path}', 'w'))\ndef f():\n    pass",
    "@T.prim_func\ndef f(a=open('{path}', 'w')):\n    pass",
    "@T.prim_func\ndef f(a: open('{path}', 'w')):\n    pass",
    '@T.prim_func\ndef f(A: T.Buffer((\'open("{path}", "w")\',))):\n    pass',
    "@T.prim_func\ndef f(A: T.Buffer(('().__class__',))):\n    pass",
    "@T.prim_func\ndef f(A: T.Buffer((4,), open('{path}', 'w'))):\n    pass",
    "@T.prim_func\ndef f() -> open('{path}', 'w'):\n    pass",
    "@I.ir_module\nclass M(metaclass=type):\n    pass",
    "@I.ir_module\nclass M:\n    x = open('{path}', 'w')",
    "@I.ir_module\nclass M:\n    I.module_attrs(open('{path}', 'w'))",
    "@I.ir_module\nclass M:\n    I.module_attrs({{**open('{path}', 'w')}})",
    "@I.ir_module\nclass M:\n    def __init_subclass__(cls):\n        pass",
    "n = TypeVar('n')\nn.__class__",
    "from __future__ import braces, annotations\nimport sys",
]


@pytest.mark.parametrize("text", HARMFUL)
def test_text_that_would_act_if_it_ran_is_refused_and_does_not_run(text: str, tmp_path: Path) -> None:
    path = tmp_path / "touched"
    with pytest.raises(ScriptError):
        parse(text.replace("{path}", str(path)).replace("{{", "{").replace("}}", "}"))
    assert not path.exists()


BODIES = [
    "A[i, j] = __import__('os').getpid()",
    "A[i, j] = ().__class__.__bases__[0].__subclasses__()",
    "A[i, j] = T.__class__.__mro__",
    "A[i, j] = T.exp.__globals__['os']",
    "A[i, j] = x.__class__",
    "A[i, j] = A.__init__(1)",
    "A[i, j] = getattr(T, 'exp')(x)",
    "A[i, j] = eval('x')",
    "A[i, j] = f'{open(1)}'",
    "A.data.__setattr__('x', 1)",
    "T.exp = 3",
    "T.call_extern('int32', 'system', 'ls')",
    "T.call_extern('int32', 'exp' + 'f', x)",
    "T.evaluate((yield))",
    "for k in iter(int, 1):\n    pass",
    "for k in ().__class__.__subclasses__():\n    pass",
    "with open('/etc/passwd') as f:\n    pass",
    "@T.prim_func\ndef g():\n    pass",
    "match x:\n    case 1:\n        pass",
    "T.attr({**{}}, 1, 2)",
    "print(*A)",
]


@pytest.mark.parametrize("body", BODIES)
def test_reaching_for_python_from_a_program_is_refused(body: str) -> None:
    with pytest.raises(ScriptError):
        parse(program(body))


DEEP = 100_000
MONSTERS = {
    "parentheses": "(" * DEEP + "x" + ")" * DEEP,
    "brackets": "[" * DEEP,
    "unary minus": "-" * DEEP + "x",
    "not": "not " * DEEP + "p",
    "sum": "x" + " + x" * DEEP,
    "comparison": "x" + " < x" * DEEP,
    "attributes": "x" + ".a" * DEEP,
    "subscripts": "A" + "[0]" * DEEP,
    "calls": "T.exp(" * DEEP + "x" + ")" * DEEP,
    "call chain": "T" + "()" * DEEP,
    "huge integer": "1" + "0" * DEEP,
    "big integer": "1" + "0" * 1000,
    "power tower": "9**9**9**9",
    "product of integers": " * ".join(["18446744073709551615"] * 150),
    "shift": "1 << 10000000000",
    "repeated string": "'a' * 10000000000",
    "float overflow": "1e308 * 1e308 * x.y",
    "null byte": "x + \0",
    "lone surrogate": "'\ud800'",
    "lambda chain": "lambda: " * DEEP + "x",
    "f-string": "f'" + "{x}" * 1000 + "'",
    "lanes": "T.Broadcast(x, 1000000000000)",
    "ramp": "A[i, 0:1000000000]",
    "dtype": "T.Cast('float32x99999999', x)",
    "dtype text": "T.Cast('" + "a" * DEEP + "', x)",
    "conditional chain": "x if p else " * DEEP + "x",
}


@pytest.mark.parametrize("name", MONSTERS)
@pytest.mark.timeout(20)
def test_monstrous_expressions_are_refused(name: str) -> None:
    with pytest.raises(ScriptError) as caught:
        parse(program(f"A[i, j] = {MONSTERS[name]}"))
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    "text",
    [
        "\n".join("    " * d + f"for i{d} in range(2):" for d in range(99)) + "\n" + "    " * 99 + "pass",
        "\n".join("    " * d + "if p:" for d in range(99)) + "\n" + "    " * 99 + "pass",
        "for " + ", ".join(f"i{d}" for d in range(300)) + " in T.grid(" + ", ".join(["2"] * 300) + "):\n    pass",
        "\n".join(f"v{d}: T.int32 = {d}" for d in range(300)),
        "\n".join(f"v{d}: T.int32 = {d}" for d in range(10_000)),
        "with T.block('b'):\n" + "\n".join(f"    v{d}: T.int32 = {d}" for d in range(1000)),
        "if p:\n    pass\n" + "elif p:\n    pass\n" * 300,
    ],
)
def test_statements_nested_too_deep_are_refused(text: str) -> None:
    with pytest.raises(ScriptError, match=r"nest|levels"):
        parse(program(text))


@pytest.mark.parametrize(
    "text",
    [
        "x" + " + x" * 150,
        "x + (" * 150 + "x" + ")" * 150,
        "T.exp(" * 150 + "x" + ")" * 150,
        "-(" * 150 + "x" + ")" * 150,
    ],
)
def test_what_is_as_deep_as_allowed_is_read_and_printed(text: str) -> None:
    round_trips(parse(program(f"A[i, j] = {text}")))


def test_a_text_too_long_is_refused() -> None:
    with pytest.raises(ScriptError, match="more than"):
        parse("#" * (MAX_TEXT + 1))


@pytest.mark.parametrize("text", ["\0", "\ud800", "\ufeffx", "\x0c", "\r", "\\", '"""', "'", "\t x", "#" * 100_000])
def test_odd_characters_are_refused(text: str) -> None:
    with pytest.raises(ScriptError):
        parse(text)


def test_a_long_program_is_read_in_time_proportional_to_its_length() -> None:
    one = "    for i in range(4):\n        A[i, 0] = A[i, 0] * T.float32(2) + A[i, 1]\n"
    module = parse('@T.prim_func\ndef main(A: T.Buffer((4, 4), "float32")):\n' + one * 2000)
    assert module.script().count("for i in") == 2000


def test_parsing_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    before = os.getcwd(), dict(os.environ)
    with pytest.raises(ScriptError):
        parse(f"import os\nos.chdir({str(tmp_path)!r})\nos.environ['X'] = '1'")
    assert (os.getcwd(), dict(os.environ)) == before
