"""The notebook docs/tour.ipynb runs from top to bottom, and prints nothing but its answers."""

import pytest

from pipeline.paths import TRAINED, RunFolder
from tests.conftest import REPOSITORY

TOUR = REPOSITORY / "docs" / "tour.ipynb"


def test_the_tour_runs(finished):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(TOUR, as_version=4)
    if not RunFolder(TRAINED).checksums.exists():  # networks that were trained on drawn pictures stand in
        for cell in notebook.cells:
            cell.source = cell.source.replace("load_run()", f"load_run({str(finished)!r})")
            cell.source = cell.source.replace("load_run(s", f"load_run({str(finished)!r}, s")
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(TOUR.parent)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert sum("image/jpeg" in output.get("data", {}) for output in outputs) == 2
    remarks = "".join(output.text for output in notebook.cells[-1].outputs)
    for word in ("grey", "tiny", "all of one colour"):
        assert word in remarks


def test_the_tour_is_committed_with_its_output():
    if not RunFolder(TRAINED).checksums.exists():
        pytest.skip("no trained networks yet")
    nbformat = pytest.importorskip("nbformat")
    cells = nbformat.read(TOUR, as_version=4).cells
    assert all(cell.outputs for cell in cells if cell.cell_type == "code")
