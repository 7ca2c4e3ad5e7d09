"""All stages on a data set with `dataset.csv`: four classes, no masks, groups, an image without a label."""

import json
import re
import shutil
from dataclasses import replace

import pandas as pd
import pytest

import paper_tables
import training
from config import PRESETS
from data.classes import ISIC_2017
from data.official import SPLITS, OfficialFolders
from pipeline import inputs, pack
from pipeline.data_sets import data_set
from pipeline.finished_run import load_run
from pipeline.paths import RunFolder
from pipeline.settings import read_settings
from tests.conftest import BUDGET
from tests.test_stages import fails
from utils.errors import InputError

CLASSES = ("common_nevus", "keratosis", "melanoma", "other_nevus")


@pytest.fixture(scope="module")
def listed(tiny_sample, tmp_path_factory):
    """The tiny sample as such a data set, its nevi as two classes."""
    folder, rows = tmp_path_factory.mktemp("listed"), []
    for split in SPLITS:
        source = OfficialFolders(tiny_sample)
        paths = source.images(split)
        for k, (path, row) in enumerate(zip(paths.values(), source.labels(split, paths), strict=True)):
            name = ISIC_2017[row.argmax()]
            label = {"melanoma": "Melanoma", "seborrheic_keratosis": "keratosis"}.get(name)
            label = label or ("common nevus", "other nevus")[k % 2]
            rows.append(f"{path};{label if k else ''};{split};{split}{k // 2};{('f', 'm')[k % 2]};{30 + k}")
    (folder / "dataset.csv").write_text("\n".join(["image;label;split;group;sex;age", *rows]))
    return folder


@pytest.fixture(scope="module")
def run_of_listed(stage, finished, listed, tmp_path_factory):
    """Run folder after the stages, and what they printed."""
    folder, printed = tmp_path_factory.mktemp("run") / "listed", {}
    backbone = ("--backbone-name", "xception")
    for script, *options in [
        ("seg_predict.py", "--unet", finished),
        ("resize.py",),
        *(("training.py", *backbone), ("cls_predict.py", *backbone), ("vote.py",), ("report.py",)),
    ]:
        tiny = script == "training.py"
        result = stage(script, folder, *options, "--backbones", "xception", data_dir=listed, tiny=tiny)
        assert result.returncode == 0, result.stderr
        printed[script] = result.stdout
    return folder, printed


def test_the_classes_of_the_data_set_are_those_of_network_tables_and_figures(run_of_listed):
    folder, printed = run_of_listed
    assert "left out 1 training images without a label" in printed["training.py"]
    assert json.loads((folder / "backbones/xception/classes.json").read_text()) == list(CLASSES)
    for name in ("xception", "mean", "vote", "vote_on_validation"):
        table = pd.read_csv(folder / "predictions" / f"{name}_test.csv")
        assert list(table) == ["image_id", *CLASSES]
        assert len(table) == 8
    metrics = json.loads((folder / "results/metrics.json").read_text())
    assert metrics["test"]["classes"] == list(CLASSES)
    assert metrics["test"]["images"] == 7  # one has no label
    assert set(metrics["test"]["subgroups"]) == {"sex", "age"}
    assert sum(of["images"] for of in metrics["test"]["subgroups"]["sex"].values()) == 7
    page = (folder / "results/report.html").read_text()
    assert all(name.replace("_", " ") in page for name in CLASSES)
    assert "Which accuracy is 0.909?" not in page
    assert "By sex" in page
    config = replace(read_settings(folder / "vote/config.json"), run_dir=folder, backbones=("xception",))
    table = paper_tables.side_by_side(config, {"run": RunFolder(folder)})
    assert "## test (7 images)" in table


def test_groups_that_changed_need_new_folds(listed, tmp_path):
    data = shutil.copytree(listed, tmp_path / "data")
    config = replace(PRESETS["sample"], data_dir=data, run_dir=tmp_path / "run", folds=2)

    def fold_of():
        images = inputs.images(config, "training")[0]
        return training.make_folds(config, *training.labelled(config, "training", images))

    assert fold_of() == fold_of()
    text = (data / "dataset.csv").read_text()
    (data / "dataset.csv").write_text(re.sub(r"training;training\d+", "training;one", text))
    remedy = "--backbone-name resnet50 --folds 2 --overwrite"
    with pytest.raises(InputError, match=rf"folds.csv has images of group one in several folds.*{remedy}"):
        fold_of()


def test_the_run_has_the_unet_that_was_trained_elsewhere(run_of_listed, finished):
    folder, printed = run_of_listed
    assert (folder / "unet/unet.keras").read_bytes() == (finished / "unet/unet.keras").read_bytes()
    assert "copied" in printed["seg_predict.py"]


def test_a_finished_run_has_the_classes_of_its_networks(run_of_listed, listed):
    run = load_run(run_of_listed[0], data_dir=listed / "gone")
    assert run.classes == CLASSES
    image = pd.read_csv(listed / "dataset.csv", sep=";")["image"].iloc[-1]
    (diagnosis,) = run.diagnose([image])
    assert len(diagnosis.probabilities["vote"]) == 4


def test_the_picture_of_a_diagnosis_has_the_classes_of_the_networks(run_of_listed, listed):
    run = load_run(run_of_listed[0], data_dir=listed / "gone")
    figure = run.diagnose(pd.read_csv(listed / "dataset.csv", sep=";")["image"].iloc[-1]).plot()
    (legend,) = (axis.get_legend() for axis in figure.axes if axis.get_legend())
    assert [text.get_text() for text in legend.get_texts()] == [name.replace("_", " ") for name in CLASSES]


def test_a_packed_run_has_the_classes_of_its_networks(run_of_listed, tmp_path):
    pack.main(pack.Settings(run_of_listed[0], tmp_path / "packed"))
    for name in ("xception", "mean", "vote"):
        table = pd.read_csv(tmp_path / "packed/predictions" / f"{name}_validation.csv")
        assert list(table) == ["image_id", *CLASSES]
        assert len(table) == 8
    metrics = json.loads((tmp_path / "packed/results/metrics.json").read_text())["validation"]
    assert metrics["classes"] == list(CLASSES)
    assert metrics["images"] == 7  # one has no label


def test_nothing_is_made_again(run_of_listed, stage, listed):
    for script, *options in (("training.py", "--backbone-name", "xception"), ("vote.py",), ("report.py",)):
        result = stage(script, run_of_listed[0], *options, "--backbones", "xception", data_dir=listed)
        assert result.returncode == 0, result.stderr
        assert "nothing changed since it was made" in result.stdout


def test_a_training_split_without_masks_and_networks_of_other_classes_are_refused(
    run_script, stage, listed, finished, tiny_sample, run_of_listed, tmp_path
):
    result = stage("seg_train.py", tmp_path, data_dir=listed)
    assert fails(result, "names no mask of the training split", "--unet FILE", "--masks none")
    options = [*BUDGET, "--run-dir", run_of_listed[0], "--data-dir", tiny_sample, "--overwrite"]
    result = run_script("cls_predict.py", *options, "--backbone-name", "xception")
    assert fails(result, "was trained on the classes common_nevus, keratosis, melanoma, other_nevus, not on melanoma")


def test_training_keeps_the_groups_of_the_data_set_in_one_fold(listed, tmp_path):
    config = replace(PRESETS["sample"], data_dir=listed, run_dir=tmp_path, folds=2)
    images, labels = training.labelled(config, "training", inputs.images(config, "training")[0])
    fold_of = training.make_folds(config, images, labels)
    groups = data_set(config).groups("training")
    folds = pd.DataFrame({"fold": fold_of, "group": {image_id: groups[image_id] for image_id in fold_of}})
    assert (folds.groupby("group")["fold"].nunique() == 1).all()
    assert folds["group"].duplicated().sum() == 7  # pairs, but for the image without a label
