"""The notebooks in docs/notebooks run from top to bottom as Jupyter runs them, on the tiny model that they make, and
lie in Git without what they put out."""

from __future__ import annotations

import ast
import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient

from tests.docs.blocks import ROOT
from tests.docs.session import make_clone
from tests.docs.test_links import unknown_options

FOLDER = ROOT / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
COMMAND_SAYS = {"use_a_checkpoint": "files are as they were published", "publish": '"verdict"'}
every = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_of(path: Path) -> list[str]:
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


@every
def test_nothing_is_kept_of_what_it_put_out(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [(cell.outputs, cell.execution_count, dict(cell.metadata)) for cell in cells] == [([], None, {})] * len(
        cells
    )


@every
def test_every_cell_is_python_whose_imports_and_commands_are_there(path: Path) -> None:
    for source in code_of(path):
        for line in source.splitlines():
            if line.startswith("!"):
                assert unknown_options(line[1:]) == [], line
        for node in ast.walk(ast.parse(TransformerManager().transform_cell(source))):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert all((FOLDER / f"{name}.py").is_file() or find_spec(name) for name in names), names


@every
@pytest.mark.long
@pytest.mark.timeout(600)
def test_it_runs_from_top_to_bottom(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(FOLDER, tmp_path / "notebooks")
    make_clone(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]))
    monkeypatch.setenv("WORK", str(tmp_path / "work"))
    (tmp_path / "work").mkdir()
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path / "notebooks")}})
    client.execute()  # raises what a cell raises; commands only say it
    said = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "Error" not in said
    assert COMMAND_SAYS[path.stem] in said
