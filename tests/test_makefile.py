"""What the targets of the Makefile, and of the run on a GPU, run."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import paper_tables
from config import PRESETS, Config
from pipeline.settings import affects, as_json, parse_args
from tests.conftest import REPOSITORY


@pytest.fixture
def make(tmp_path):
    """Function that runs `make` with a Python that only tells what it is asked to run."""
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    tell = 'import json, os, sys; print(json.dumps(sys.argv[1:])); sys.exit(sys.argv[1] == os.environ.get("FAILS"))'
    python.write_text(f'#!/bin/sh\n[ "$1" = -c ] || set -- -c \'{tell}\' "$@"\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    for name in ("installed", "sample"):
        (tmp_path / name).touch()

    def run(target, **variables):
        command = ["make", target, f"VENV={tmp_path}", f"SAMPLE={tmp_path / 'sample'}"]
        command += [f"{name}={value}" for name, value in variables.items()]
        said = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True).stdout
        found = []
        for words in (json.loads(line) for line in said.splitlines() if line.startswith("[")):
            start = next((k for k, word in enumerate(words) if word in ("--preset", "--run-dir")), len(words))
            end = words.index("--output") if "--output" in words else None  # an option of predict.py alone
            found.append((" ".join(words[:start]), parse_args("", options=words[start:end])))
        return found

    return run


@pytest.mark.parametrize(("target", "preset", "side_by_side"), [("run", "isic2017", "1"), ("demo", "sample", "0")])
def test_a_run_is_of_the_preset(make, target, preset, side_by_side):
    ((script, config),) = make(target, TRAINED="nowhere")
    assert script == f"-m pipeline.all_stages --side-by-side {side_by_side}"
    assert config == PRESETS[preset]


def test_the_demo_first_diagnoses_the_example_images_where_networks_come_along(make, tmp_path):
    (tmp_path / "trained").mkdir()
    (tmp_path / "trained" / "config.json").write_text("{}")
    (tmp_path / "examples").mkdir()
    (script, config), (run, _), (page, _) = make("demo", TRAINED=tmp_path / "trained", EXAMPLES=tmp_path / "examples")
    assert (script, config.run_dir) == (f"predict.py {tmp_path / 'examples'}", tmp_path / "trained")
    assert run.startswith("-m pipeline.all_stages")
    assert page == "-m evaluation.diagnoses runs/examples"


def test_a_run_takes_data_folders_and_options(make):
    options = "--workers 5 --folds 3 --backbones xception resnet50"
    ((_, config),) = make("run", PRESET="fine_tuned", DATA="../some data", RUN="runs/a run", OPTIONS=options)
    assert (config.data_dir, config.run_dir) == (Path("../some data"), Path("runs/a run"))
    assert (config.preset, config.workers, config.folds) == ("fine_tuned", 5, 3)
    assert config.backbones == ("xception", "resnet50")


def test_a_report_alone(make, tmp_path):
    ((script, config),) = make("report", RUN=tmp_path)
    assert (script, config.run_dir) == ("report.py", tmp_path)


def test_a_report_is_of_the_run_that_is_named(make):
    ((script, config),) = make("report", PRESET="fine_tuned")
    assert (script, config.run_dir) == ("report.py", PRESETS["fine_tuned"].run_dir)
    ((_, config),) = make("report", RUN="runs/a run", DATA="../some data", OPTIONS="--decide-by mean")
    assert (config.run_dir, config.data_dir, config.decide_by) == (Path("runs/a run"), Path("../some data"), "mean")


@pytest.fixture(scope="module")
def on_a_gpu():
    """What benchmarks/gpu.mk runs, in its order: script, settings, environment."""
    command = ["make", "-n", "-f", "benchmarks/gpu.mk", "RUN=runs/nowhere", "PYTHON=python"]
    said = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    found = []
    for environment, script, options in re.findall(r"EPOCHSECONDS; (\S*) ?python (\S+) (.*?) >>", said):
        settings = paper_tables.Settings if script == "paper_tables.py" else Config
        found.append((script, parse_args("", settings, shlex.split(options)), environment))
    return found


def test_on_a_gpu_every_network_is_trained_once(on_a_gpu):
    trained = [
        (config.run_dir.name.removeprefix("nowhere"), config.backbone_name, config.fold)
        for script, config, _ in on_a_gpu
        if script == "training.py"
    ]
    alone = [(folder, "inception_v3", None) for folder in ("masks_none", "masks_ground_truth", "_seed_1", "_seed_2")]
    folds = [("", "inception_v3", fold) for fold in range(1, 6)]
    extra = [("_extra", name, None) for name in ("inception_v3", "xception")]
    assert sorted(trained, key=str) == sorted(
        [*(("", name, None) for name in Config().backbones), *alone, *folds, *extra], key=str
    )
    with_extra = {(c.run_dir.name, c.backbone_name) for s, c, _ in on_a_gpu if s == "training.py" and c.extra_data_dir}
    others = {("nowhere", name) for name in ("resnet50", "densenet169", "inception_resnet_v2")}
    assert with_extra == others | {("nowhere_extra", name) for name in ("inception_v3", "xception")}
    assert all((script == "vote.py") == (environment == "JAX_PLATFORMS=cpu") for script, _, environment in on_a_gpu)


def test_on_a_gpu_what_is_compared_differs_in_one_setting_alone(on_a_gpu):
    def counted(config):
        values = as_json(config).items()
        return {k: v for k, v in values if k != "backbone_name" and (affects(k, "classifier") or affects(k, "crops"))}

    found = {
        config.run_dir.name.removeprefix("nowhere"): counted(config)
        for script, config, _ in on_a_gpu
        if script == "training.py" and config.backbone_name == "inception_v3" and config.fold is None
    }
    differing = {folder: {k for k, v in of.items() if v != found[""][k]} for folder, of in found.items()}
    expected = {"": set(), "masks_none": {"masks"}, "masks_ground_truth": {"masks"}, "_extra": set()}
    assert differing == expected | {"_seed_1": {"seed"}, "_seed_2": {"seed"}}
    folds = [counted(config) for script, config, _ in on_a_gpu if script == "training.py" and config.fold is not None]
    assert folds == [found[""]] * 5
    tables = {config.table: counted(config) for script, config, _ in on_a_gpu if script == "paper_tables.py"}
    assert tables == dict.fromkeys(("segmentation", "squeeze_excitation"), found[""])
