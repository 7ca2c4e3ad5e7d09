"""What each room may know: no import runs upwards."""

import ast

import pytest

from tests.conftest import REPOSITORY

# The packages, and config.py, from the ground up: each may import those named with it. Scripts may import all.
ROOMS = {
    "data": set(),
    "config": {"data"},
    "models": {"data"},
    "evaluation": {"data"},
    "pipeline": {"data", "config", "models", "evaluation"},
}
TOP = {
    *("seg_train", "seg_predict", "resize", "training", "cls_predict", "vote", "config"),
    *("evaluate", "predict", "paper_tables", "report"),
}


def imported(path):
    """Names of the top-level modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("room", ROOMS)
def test_no_import_runs_upwards(room):
    files = [REPOSITORY / "config.py"] if room == "config" else sorted((REPOSITORY / room).glob("*.py"))
    assert files
    own = {path.name.removesuffix(".py") for path in REPOSITORY.iterdir()}
    for path in files:
        assert own.intersection(imported(path)) <= {room} | ROOMS[room], path


def test_the_top_level_holds_stages_settings_and_tools():
    assert {path.stem for path in REPOSITORY.glob("*.py")} == TOP
