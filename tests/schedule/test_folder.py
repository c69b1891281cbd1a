"""The schedule's files stand in the order in which its package describes them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from crossfarm.ir import schedule

FOLDER = Path(schedule.__file__).parent


def described() -> list[str]:
    """The modules in the order of the package's docstring, ``methods_*`` taken apart."""
    names = re.findall(r"``([a-z_]+\*?)``", schedule.__doc__ or "")
    return [path.stem for name in names for path in sorted(FOLDER.glob(f"{name}.py"))]


def imported(module: str) -> set[str]:
    """The modules of the folder that ``module`` imports when it runs."""
    tree = ast.parse((FOLDER / f"{module}.py").read_text())
    for guard in [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]:
        guard.body.clear()
    found: set[str] = set()
    for node in [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]:
        if node.module == schedule.__name__:
            found |= {alias.name for alias in node.names}
        elif (node.module or "").startswith(f"{schedule.__name__}."):
            found.add((node.module or "").rsplit(".", 1)[-1])
    return found


def test_the_package_describes_every_file_once() -> None:
    assert sorted(described()) == sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")


def test_each_file_stands_on_those_before_it_alone() -> None:
    order = described()
    upwards = {name: imported(name) - set(order[: order.index(name)]) for name in order}
    assert {name: below for name, below in upwards.items() if below} == {}
