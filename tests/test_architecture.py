"""The house rules, as tests: floors between packages, what an agent may import, and what a file may hold."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

from tests.conftest import ROOT

PROGRAMS = ("crossfarm", "compiler_service", "tracker", "device_agent", "clients")
#: What only a server or a person's machine has. An agent runs on phones and boards without any of it.
SERVER_ONLY = (
    "llvmlite", "ziglang", "ml_dtypes", "sqlalchemy", "alembic", "typer", "rich", "click", "grpc_health",
    "grpc_reflection", "grpc_tools", "compiler_service", "tracker", "clients",
)  # fmt: skip
LONGEST_FILE = 500
#: ``mod.script()`` and ``mod.save(path)`` are where a user looks for them, so the module calls, when asked to, two
#: modules that stand on it.
UPWARDS = (("crossfarm.ir.module", "crossfarm.ir.printer"), ("crossfarm.ir.module", "crossfarm.ir.serialize"))

# Written in pieces, so that this file does not break its own rule.
DOWNLOAD_HOSTS = re.compile(
    "|".join(("py" + r"pi\.org", "python" + "hosted", "debian" + r"\.org/debian", "npm" + r"js\."))
)
MACHINE_PATHS = re.compile("|".join(("/wo" + "rk/", "/ro" + r"ot/(?!\S*\$)", "/ho" + r"me/\w", r"\.py" + "env/")))

IMPORT_WITHOUT = """
import importlib, pkgutil, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
package = importlib.import_module({package!r})
for module in pkgutil.walk_packages(package.__path__, {package!r} + "."):
    importlib.import_module(module.name)
"""


def tracked_files() -> list[Path]:
    """Every file in version control that still exists, and those about to be added."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [ROOT / name for name in listed if (ROOT / name).is_file()]


def python_files() -> list[Path]:
    return [path for path in tracked_files() if path.suffix == ".py"]


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def _test_names(node: ast.AST) -> list[str]:
    """Functions, and classes made by hand or by hypothesis (``TestIt = Machine.TestCase``)."""
    if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [t.id for t in node.targets if isinstance(t, ast.Name) and t.id.startswith("Test")]
    return []


def test_packages_import_only_what_is_below_them() -> None:
    ran = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_no_module_imports_itself_through_others() -> None:
    graph = grimp.build_graph(*PROGRAMS, exclude_type_checking_imports=True, cache_dir=None)
    for importer, imported in UPWARDS:
        graph.remove_import(importer=importer, imported=imported)
    circles = []
    for module in sorted(graph.modules):
        ways = [
            graph.find_shortest_chain(importer=imported, imported=module)
            for imported in graph.find_modules_directly_imported_by(module)
        ]
        found = [way for way in ways if way is not None]
        circles += [" -> ".join((module, *min(found, key=len)))] if found else []
    assert not circles, "\n".join(circles)


@pytest.mark.parametrize("package", ["device_agent", "crossfarm.artifact", "crossfarm.target", "crossfarm.wire"])
def test_an_agent_needs_nothing_that_only_a_server_has(package: str) -> None:
    script = IMPORT_WITHOUT.format(absent=set(SERVER_ONLY), package=package)
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_no_file_names_a_download_host_or_a_path_of_one_machine() -> None:
    broken = []
    for path in tracked_files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        broken += [
            f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
            for number, line in enumerate(text.splitlines(), start=1)
            if DOWNLOAD_HOSTS.search(line) or MACHINE_PATHS.search(line)
        ]
    assert not broken


def test_every_module_is_short_enough_to_be_one_thing() -> None:
    assert names([path for path in python_files() if len(path.read_text().splitlines()) > LONGEST_FILE]) == []


def test_every_module_says_what_it_is() -> None:
    silent = []
    for path in python_files():
        text = path.read_text()
        data = "programs" in path.parts or path.is_relative_to(ROOT / "examples")  # program text, in its own dialect
        if text.strip() and not data and ast.get_docstring(ast.parse(text)) is None:
            silent.append(path)
    assert names(silent) == []


def test_the_runner_finds_every_test() -> None:
    lost = []
    for path in python_files():
        if not path.is_relative_to(ROOT / "tests"):
            continue
        found = [name for node in ast.walk(ast.parse(path.read_text())) for name in _test_names(node)]
        if path.name.startswith("test_") != bool(found) or any(
            not name.startswith(("test_", "Test")) for name in found
        ):
            lost.append(path)
        elif not (path.parent / "__init__.py").exists():
            lost.append(path.parent / "__init__.py")  # two test files of one name would shadow each other
    assert names(sorted(set(lost))) == []


def test_the_makefile_tells_what_its_targets_do() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = re.findall(r"^\.PHONY: (\S+)$", text, re.MULTILINE)
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert phony
    assert [name for name in phony if not re.search(rf"^  {name} +\S", told, re.MULTILINE)] == []
