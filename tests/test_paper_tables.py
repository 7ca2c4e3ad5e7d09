"""The paper's tables, on the tests' tiny run."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

import paper_tables
from config import PRESETS
from data.classes import ISIC_2017 as CLASSES
from data.draw_sample import MARK
from data.official import OfficialFolders
from paper_tables import ABLATIONS, LITERATURE
from pipeline.settings import parse_args
from tests.conftest import BUDGET
from tests.test_manifest import edited_manifest
from tests.test_stages import fails
from utils.errors import InputError


@pytest.fixture
def run_copy(finished, tmp_path):
    """A finished run folder to add to."""
    return shutil.copytree(finished, tmp_path / "run")


def rows(folder, name):
    """Cells of the first table of a file, by the first cell of each row."""
    text = (folder / "results" / f"table_{name}.md").read_text().split("| method")[1]
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {line[0]: line[1:] for line in lines if not line[0].startswith("---")}


@pytest.fixture
def make_table(run_script, tiny_sample, monkeypatch):
    """Function that makes a table in this process, with tiny networks."""

    def run(script, run_dir, *options):
        result = run_script(script, "--run-dir", run_dir, *options, tiny=True)
        assert result.returncode == 0, result.stderr
        print(result.stdout)

    def make(name, run_dir, *options):
        words = [name, *BUDGET, "--data-dir", tiny_sample, "--run-dir", run_dir, *options]
        with monkeypatch.context() as patch:
            patch.setattr(paper_tables, "run", run)
            paper_tables.main(parse_args("", paper_tables.Settings, list(map(str, words))))

    return make


@pytest.mark.parametrize("name", ABLATIONS)
def test_ablations_train_their_variants_and_compare_them(make_table, run_copy, tiny_sample, name, capsys):
    options = ["--backbones", "resnet50", "--splits", "training", "validation"]
    model = run_copy / "backbones/resnet50/model.keras"
    before = model.stat().st_mtime_ns
    make_table(name, run_copy, *options)
    assert model.stat().st_mtime_ns == before, "the run itself was made again"
    table = rows(run_copy, name)
    variants = list(ABLATIONS[name].items())
    assert list(table) == [f"{network}, {variant}" for network in ("resnet50", "mean") for variant, _ in variants]
    images = OfficialFolders(tiny_sample).images("validation")
    labels = OfficialFolders(tiny_sample).labels("validation", images)
    for variant, (setting, value) in variants[1:]:
        folder = run_copy / "ablations" / f"{setting}_{value}"
        made_with = json.loads((folder / "backbones/resnet50/config.json").read_text())
        assert made_with[setting] == value
        scores = pd.read_csv(folder / "predictions/resnet50_validation.csv")[list(CLASSES)].to_numpy()
        area = roc_auc_score(labels[:, 0], scores[:, 0])
        shown = table[f"resnet50, {variant}"][2].split(" [")[0]
        assert float(shown) == pytest.approx(area, abs=6e-4)
    if name == "squeeze_excitation":
        capsys.readouterr()
        make_table(name, run_copy, *options)
        said = capsys.readouterr().out
        for made in ("resnet50", "predictions_resnet50_validation"):
            assert said.count(f"{made}: nothing changed since it was made") == 1, "the run itself needs no stage"


def test_a_variant_is_made_with_the_settings_of_its_folder_whatever_that_is_called(monkeypatch):
    commands = []

    def run(command):
        commands.append(list(map(str, command)))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(sys, "argv", ["paper_tables.py", "segmentation", "--run-dir", "segmentation"])
    paper_tables.run("training.py", Path("segmentation/ablations/masks_none"), "--backbone-name", "xception")
    assert commands[0][1].endswith("training.py")
    assert commands[0][2:] == ["--run-dir", "segmentation/ablations/masks_none", "--backbone-name", "xception"]


def test_tasks_and_literature_are_those_of_the_metrics(stage, run_copy):
    for name in ("tasks", "literature"):
        assert stage("paper_tables.py", run_copy, first=name).returncode == 0
    assert list(rows(run_copy, "literature")) == list(LITERATURE)
    note = "tested on 8 drawn pictures, the published systems on the 600 test images of ISIC 2017"
    assert note in (run_copy / "results/table_literature.md").read_text()
    assert "test (8 images): melanoma against the rest" in (run_copy / "results/table_tasks.md").read_text()


def test_a_run_on_the_official_test_images_stands_beside_the_published_ones(run_copy):
    measured = json.loads((run_copy / "results/metrics.json").read_text())["test"] | {"images": 600}
    text = paper_tables.literature(measured)
    area = np.mean([measured["methods"]["mean"][f"{task}.auc"] for task in CLASSES[:2]])
    assert re.search(rf"\| ours: mean \| .* \| {area:.3f} \[[^|]*\|\n", text)
    assert "ours:" not in paper_tables.literature(measured | {"images": 599})
    assert "ours:" not in paper_tables.literature(measured | {"classes": ["a", "b", "c"]})


@pytest.mark.parametrize("marked", [True, False])
def test_any_sample_counts_as_drawn_by_its_mark(tmp_path, marked):
    if marked:
        (tmp_path / MARK).touch()
    config = replace(PRESETS["isic2017"], data_dir=tmp_path, run_dir=tmp_path / "run")
    assert paper_tables.is_drawn(config) == marked


def test_the_published_rows_need_no_run(stage, finished, tmp_path):
    (tmp_path / "demo").symlink_to(finished)
    result = stage("paper_tables.py", tmp_path / "run", first="literature")
    assert result.returncode == 0, result.stderr
    assert "first of the challenge" in result.stdout
    assert f"finished runs are {tmp_path / 'demo'}" in result.stdout


def test_an_edited_table_of_predictions_is_not_compared(stage, run_copy):
    path = run_copy / "predictions" / "resnet50_test.csv"
    path.write_text(path.read_text().replace("0.", "0.0", 1))
    for name in ("tasks", "squeeze_excitation"):
        assert fails(stage("paper_tables.py", run_copy, first=name), path, "was changed after", "cls_predict.py")
    assert not (run_copy / "results" / "table_tasks.md").exists()


def test_what_cannot_be_compared_is_said(stage, run_script, run_copy, tmp_path):
    for result, sentence in [
        (run_script("paper_tables.py", "novelty"), "invalid choice"),
        (stage("paper_tables.py", run_copy, "--masks", "none", first="segmentation"), "masks = none"),
        (
            stage("paper_tables.py", run_copy, "--extra-data-dir", tmp_path, first="segmentation"),
            "name those of the further images with --extra-mask-dir",
        ),
        (stage("paper_tables.py", run_copy, "--epochs", 2, first="squeeze_excitation"), "epochs = 2, but"),
        (
            stage("paper_tables.py", run_copy, "--test-time-augmentation", first="squeeze_excitation"),
            "test_time_augmentation = True, but predictions",
        ),
        (
            stage("paper_tables.py", tmp_path, first="squeeze_excitation"),
            "run `python resize.py --preset sample",
        ),
        (stage("paper_tables.py", tmp_path, first="tasks"), "run `python vote.py --preset sample"),
    ]:
        assert result.returncode == 2
        assert sentence in result.stderr
        assert "Traceback" not in result.stderr
    assert (run_copy / "backbones/resnet50/model.keras").exists()


def test_a_unet_may_have_been_trained_with_settings_of_its_own(run_copy, tiny_sample):
    words = ["squeeze_excitation", *BUDGET, "--data-dir", tiny_sample, "--run-dir", run_copy, "--backbones", "resnet50"]
    config = parse_args("", paper_tables.Settings, list(map(str, words)))

    def trained_with_less_rotation(name):
        with edited_manifest(run_copy, name) as record:
            record["settings"]["augment_rotation"] = 7.0

    with pytest.raises(InputError, match=r"--splits training: only training has labels"):
        paper_tables.ablation(replace(config, splits=("training",)), "squeeze_excitation")
    trained_with_less_rotation("unet")
    paper_tables.check_run(config)
    with pytest.raises(InputError, match=r"resnet50/model.keras was trained without further images: leave out --extra"):
        paper_tables.check_run(replace(config, extra_data_dir=run_copy))
    with edited_manifest(run_copy, "resnet50") as record:
        record["inputs"]["extra crops"] = "0"
    with pytest.raises(
        InputError, match=r"resnet50/model.keras was trained with further images: give --extra-data-dir"
    ):
        paper_tables.check_run(config)
    trained_with_less_rotation("resnet50")
    with pytest.raises(InputError, match=r"augment_rotation = 180.0, but resnet50 .* was made with 7.0"):
        paper_tables.check_run(config)
