"""The notebook docs/tour.ipynb runs from top to bottom, and prints nothing but its answers."""

import pytest

from tests.conftest import REPOSITORY

TOUR = REPOSITORY / "docs" / "tour.ipynb"


def test_the_tour_runs():
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(TOUR, as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace('.glob("*.jpg"))', '.glob("*.jpg"))[:3]')
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(TOUR.parent)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert sum("image/jpeg" in output.get("data", {}) for output in outputs) == 2
    remarks = "".join(output.text for output in notebook.cells[-1].outputs)
    for word in ("grey", "tiny", "all of one colour"):
        assert word in remarks


def test_the_tour_is_committed_with_its_output():
    nbformat = pytest.importorskip("nbformat")
    cells = nbformat.read(TOUR, as_version=4).cells
    assert all(cell.outputs for cell in cells if cell.cell_type == "code")
