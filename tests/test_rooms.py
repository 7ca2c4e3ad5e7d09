"""What each room may know: no import runs upwards, and none asks for what is not there."""

import ast
import symtable
from functools import cache
from importlib.util import find_spec

import pytest

from tests.conftest import REPOSITORY

# The packages, and config.py, from the ground up: each may import those named with it. Scripts may import all.
ROOMS = {
    "utils": set(),
    "data": {"utils"},
    "config": set(),
    "models": {"data", "utils"},
    "evaluation": {"data", "utils"},
    "pipeline": {"data", "config", "models", "evaluation", "utils"},
}
TOP = {
    *("seg_train", "seg_predict", "resize", "training", "cls_predict", "vote", "config"),
    *("evaluate", "predict", "paper_tables", "report", "app"),
}
OPTIONAL = {
    "torch",
    "timm",
    "isic_challenge_scoring",
    "gradio",
    "selenium",
    "onnxruntime",
    "nbclient",
    "nbformat",
}  # packages that requirements.txt does not install
FILES = sorted([*REPOSITORY.glob("*.py"), *REPOSITORY.glob("[!.]*/*.py")])


def imports(path):
    """What a file imports, wherever in it: module or module.name, how it calls that, and what goes by this name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            for name in node.names:
                yield f"{node.module}.{name.name}", name.asname or name.name, f"{node.module}.{name.name}"
        elif isinstance(node, ast.Import):
            for name in node.names:
                top = name.name.partition(".")[0]
                yield name.name, name.asname or top, name.name if name.asname else top


@cache
def defined(module):
    """Names that a module of ours holds, a package's modules among them; None if there is no such module."""
    place = REPOSITORY.joinpath(*module.split("."))
    file = place.with_suffix(".py") if place.with_suffix(".py").exists() else place / "__init__.py"
    if not place.is_dir() and not file.exists():
        return None
    code = file.read_text(encoding="utf-8") if file.exists() else ""
    symbols = symtable.symtable(code, str(file), "exec").get_symbols()
    return {path.stem for path in place.glob("*.py")} | {
        symbol.get_name() for symbol in symbols if symbol.is_assigned() or symbol.is_imported()
    }


@cache
def installed(module):
    """Whether a module is there to be imported, ours or not, or need not be."""
    return module in OPTIONAL or find_spec(module) is not None


def exists(what):
    """Whether a module of ours, or a name in one, is there."""
    module, _, name = what.rpartition(".")
    return defined(what) is not None or name in (defined(module) or ())


def stale(path):
    """What a file imports, or takes from a module of ours by its name, and that is not there."""
    modules = {}
    for what, called, bound in imports(path):
        top = what.partition(".")[0]
        if not (installed(top) if defined(top) is None else exists(what)):
            yield what
        elif defined(bound) is not None:
            modules[called] = bound
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            what = f"{modules[node.value.id]}.{node.attr}"
            if not exists(what):
                yield what


@pytest.mark.parametrize("room", ROOMS)
def test_no_import_runs_upwards(room):
    files = [REPOSITORY / "config.py"] if room == "config" else sorted((REPOSITORY / room).glob("*.py"))
    assert files
    own = {path.name.removesuffix(".py") for path in REPOSITORY.iterdir()}
    for path in files:
        known = {what.partition(".")[0] for what, _, _ in imports(path)}
        assert own.intersection(known) <= {room} | ROOMS[room], path


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_nothing_is_imported_that_is_not_there(path):
    assert not list(stale(path))


def test_what_is_not_there_is_found(tmp_path):
    path = tmp_path / "script.py"
    there = ["import pipeline.fitting", "import resize as r", "from data import images", "r.main, images.UPRIGHT"]
    path.write_text("\n".join(there))
    assert not list(stale(path))
    imports = ["import models.prediction", "from stage import augmentation", "from pipeline.fitting import prefetched"]
    path.write_text("\n".join([*there, *imports, "def later():", "    return r.mask, images.read"]))
    gone = ["models.prediction", "stage.augmentation", "pipeline.fitting.prefetched", "resize.mask", "data.images.read"]
    assert list(stale(path)) == gone


def test_the_top_level_holds_stages_settings_and_tools():
    assert {path.stem for path in REPOSITORY.glob("*.py")} == TOP


def test_beside_the_rooms_there_are_tests_benchmarks_and_the_pictures_script():
    folders = {path.parent.name for path in FILES if path.parent != REPOSITORY}
    assert folders == {"tests", "benchmarks", "docs", *ROOMS} - {"config"}
    assert [path.name for path in FILES if path.parent.name == "docs"] == ["pictures.py"]
