"""What the documents show is run: Python blocks and console commands, as a reader of a fresh checkout would."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import crossfarm as cf
from tests.conftest import ROOT

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)")
COMMAND_SECONDS = 60


def blocks(document: Path, language: str) -> list[str]:
    return [text for name, text in BLOCK.findall(document.read_text()) if name == language]


def commands(document: Path) -> list[str]:
    lines = "".join(blocks(document, "console")).replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


def with_some(documents: list[Path], language: str) -> list[Path]:
    return [document for document in documents if blocks(document, language)]


def run(command: list[str], directory: Path, tracker: str = "embedded") -> None:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "CROSSFARM_TRACKER": tracker,
        "CROSSFARM_CONFIG": str(directory / "config.toml"),
        "CROSSFARM_STATE": str(directory / "state"),
        "CROSSFARM_CACHE": str(directory / "cache"),
    }
    ran = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=COMMAND_SECONDS
    )
    assert ran.returncode == 0, f"{shlex.join(command)} ended with {ran.returncode}:\n{ran.stdout}{ran.stderr}"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A directory that looks like a checkout to a reader's commands, with a model and an image of the reader's own."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    image = np.random.default_rng(0).random((1, 3, 32, 32), np.float32)
    np.save(tmp_path / "image.npy", image)
    nodes = [
        helper.make_node("Conv", ["data", "filters"], ["pixels"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["pixels"], ["positive"]),
        helper.make_node("GlobalAveragePool", ["positive"], ["means"]),
    ]
    data = helper.make_tensor_value_info("data", TensorProto.FLOAT, image.shape)
    means = helper.make_tensor_value_info("means", TensorProto.FLOAT, (1, 8, 1, 1))
    filters = numpy_helper.from_array(np.ones((8, 3, 3, 3), np.float32), "filters")
    graph = helper.make_graph(nodes, "reader", [data], [means], [filters])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), tmp_path / "model.onnx")
    return tmp_path


@pytest.mark.parametrize("document", with_some(DOCUMENTS, "python"), ids=lambda path: path.name)
def test_python_in_the_documents_runs(document: Path, checkout: Path) -> None:
    script = checkout / "blocks.py"
    script.write_text("\n".join(blocks(document, "python")))
    run([sys.executable, str(script)], checkout)


@pytest.mark.slow
@pytest.mark.parametrize("document", with_some(DOCUMENTS, "console"), ids=lambda path: path.name)
def test_commands_in_the_documents_run(document: Path, checkout: Path) -> None:
    with cf.connect("embedded") as farm:
        for command in commands(document):
            run(shlex.split(command), checkout, tracker=farm.address)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_in_the_documents_lead_somewhere(document: Path) -> None:
    broken = []
    for path, anchor in LINK.findall(document.read_text()):
        target = document.parent / path if path else document
        if not target.exists():
            broken.append(path)
        elif anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            if anchor not in {
                re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings
            }:
                broken.append(f"{path}#{anchor}")
    assert broken == []


def test_every_environment_variable_is_documented() -> None:
    told = (ROOT / "docs" / "debugging.md").read_text()
    packages = ("crossfarm", "compiler_service", "tracker", "device_agent", "clients")
    used = {
        name
        for package in packages
        for path in (ROOT / package).rglob("*.py")
        for name in re.findall(r"\bCROSSFARM_[A-Z_]+\b", path.read_text())
    }
    assert sorted(name for name in used if f"`{name}`" not in told) == []
