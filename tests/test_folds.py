"""Folds of the training images, and the predictions by networks that have not seen the image."""

import json
import shutil
from dataclasses import replace

import keras
import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

import models  # noqa: F401  registers the layers that the files of networks name
import pipeline.fitting
import training
from config import PRESETS
from data.classes import ISIC_2017 as CLASSES
from data.duplicates import grey_copies
from data.folds import assign_folds, read_folds, write_folds
from data.images import read_image, resize, write_image
from data.official import OfficialFolders
from pipeline.finished_run import load_run
from pipeline.settings import read_settings
from pipeline.vote_results import all_outputs, outputs
from tests.conftest import BACKBONES, IMAGE_SIZE
from tests.test_manifest import edited_manifest
from tests.test_stages import fails
from utils.errors import InputError


@pytest.fixture(scope="module")
def folded(stage, finished, tmp_path_factory):
    """A finished run folder after the folds of one backbone; read only."""
    folder = shutil.copytree(finished, tmp_path_factory.mktemp("folded") / "run")
    for script in ("training.py", "cls_predict.py", "vote.py"):
        result = stage(script, folder, "--folds", 2, "--backbones", "resnet50", tiny=script == "training.py")
        assert result.returncode == 0, result.stderr
        print(result.stdout)
    return folder


@pytest.fixture
def folded_copy(folded, tmp_path):
    """A copy of it to change."""
    return shutil.copytree(folded, tmp_path / "run")


@pytest.fixture(scope="module")
def twins(tiny_sample, tmp_path_factory):
    """Grey copies of 16 training images, and of 4 of them with the same pixels, compressed anew, turned and larger.

    And the classes of all.
    """
    paths = OfficialFolders(tiny_sample).images("training")
    classes = OfficialFolders(tiny_sample).labels("training", paths).argmax(axis=1)
    paths = list(paths.values())
    images = [read_image(path) for path in paths[:4]]
    folder = tmp_path_factory.mktemp("twins")
    files = [folder / name for name in ("0.png", "1.jpg", "2.png", "3.png")]
    images[2] = np.rot90(images[2]).copy()
    images[3] = resize(images[3], *np.multiply(images[3].shape[:2], 2))
    for file, image in zip(files, images, strict=True):
        write_image(file, image)
    return np.stack(grey_copies([*paths, *files], workers=2)), np.concatenate([classes, classes[:4]])


# ---- the folds -------------------------------------------------------------------------------------------------------


def test_ids_that_look_like_numbers_or_gaps_stay_as_they_are(tmp_path):
    write_folds(tmp_path / "folds.csv", ["0001", "NA", "1e3"], [1, 2, 1])
    assert read_folds(tmp_path / "folds.csv") == {"0001": 1, "NA": 2, "1e3": 1}


@pytest.mark.parametrize("folds", [2, 3])
def test_folds_share_the_classes_alike(twins, folds):
    copies, classes = twins[0][:16], twins[1][:16]
    assigned = assign_folds(copies, classes, folds, seed=0)
    assert sorted(set(assigned)) == list(range(1, folds + 1))
    counts = np.array([np.bincount(classes[assigned == fold], minlength=3) for fold in range(1, folds + 1)])
    assert (np.ptp(counts, axis=0) <= 1).all(), counts


def test_images_of_one_lesion_share_a_fold(twins):
    copies, classes = twins[0][:16], twins[1][:16]
    lesions, together = [None] * 16, ([0, 5, 11], [2, 9])
    for rows, lesion in zip(together, ("a", "b"), strict=True):
        for row in rows:
            lesions[row] = lesion
    apart = 0
    for seed in range(5):
        assigned = assign_folds(copies, classes, 3, seed, lesions)
        assert all(len(set(assigned[rows])) == 1 for rows in together)
        assert set(assigned) == {1, 2, 3}
        assigned = assign_folds(copies, classes, 3, seed)
        apart += sum(len(set(assigned[rows])) > 1 for rows in together)
    assert apart, "they share a fold anyway"


@pytest.mark.parametrize("seed", range(5))
def test_pictures_that_are_all_but_the_same_share_a_fold(twins, seed):
    assigned = assign_folds(*twins, 2, seed)
    np.testing.assert_array_equal(assigned[:4], assigned[16:])


def test_folds_depend_on_the_seed_alone(twins):
    first, again, other = (assign_folds(*twins, 2, seed).tolist() for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_more_folds_than_images_are_refused(twins):
    with pytest.raises(InputError, match="folds = 3 is too many for 2 different training images"):
        assign_folds(twins[0][[0, 1, 16, 17]], twins[1][:4], 3, seed=0)


# ---- the trainings ---------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny_training(finished, tiny_sample, tmp_path, monkeypatch):
    """Function that runs training.py with three folds and a network of one layer: (run folder, ids of each fit)."""
    networks, seen = [], []
    fit = pipeline.fitting.fit

    def build_classifier(config):
        crops = keras.Input((IMAGE_SIZE, IMAGE_SIZE, 3))
        x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(crops))
        x = keras.layers.Dropout(0.5)(x)
        networks.append(keras.Model(crops, keras.layers.Dense(3, activation="softmax")(x)))
        return networks[-1]

    def watched_fit(network, batches, *args, **options):
        seen.append([path.stem for path in batches.images.items])
        return fit(network, batches, *args, **options)

    monkeypatch.setattr(training, "build_classifier", build_classifier)
    monkeypatch.setattr(training, "fit", watched_fit)

    def run(fold, **settings):
        networks.clear(), seen.clear()
        run_dir = tmp_path / f"run_{fold}"
        shutil.copytree(finished / "crops", run_dir / "crops")
        paths = {"data_dir": tiny_sample, "run_dir": run_dir}
        training.main(
            replace(PRESETS["sample"], **paths, image_size=IMAGE_SIZE, epochs=3, folds=3, fold=fold, **settings)
        )
        assert len(networks) == 1, "a network was built for each fold, and is never freed"
        return run_dir, list(seen)

    return run


def test_no_network_is_fitted_on_what_it_holds_out_and_each_starts_from_scratch(tiny_training, tiny_sample):
    run_dir, seen = tiny_training(fold=None)
    everything = list(OfficialFolders(tiny_sample).images("training"))
    folds = pd.read_csv(run_dir / "folds.csv")
    assert list(folds["image_id"]) == everything
    assert seen[0] == everything
    held_out = []
    for fold in (1, 2, 3):
        ids = list(pd.read_csv(run_dir / "backbones/resnet50" / f"fold_{fold}" / "held_out.csv")["image_id"])
        assert ids == list(folds["image_id"][folds["fold"] == fold])
        assert sorted(ids + seen[fold]) == everything
        held_out += ids
    assert sorted(held_out) == everything
    in_turn, alone = (
        keras.saving.load_model(folder / "backbones/resnet50/fold_3/model.keras")
        for folder in (run_dir, tiny_training(fold=3)[0])
    )
    for ours, theirs in zip(in_turn.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_messages_name_the_network_of_a_fold_and_settings_without_effect_change_nothing(tiny_training, capsys):
    run_dir, _ = tiny_training(fold=1)
    record = json.loads((run_dir / "manifests/resnet50_fold_1.jsonl").read_text().splitlines()[0])
    assert record["file"] == "backbones/resnet50/fold_1/model.keras"
    config = replace(read_settings(run_dir / "config.json"), run_dir=run_dir, fold=1)
    capsys.readouterr()
    training.main(replace(config, warmup_epochs=1.0, extra_per_epoch=7, frozen_learning_rate=0.5))
    assert "resnet50_fold_1: nothing changed" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"fold_1/model.keras was made with label_smoothing = 0.0, not 0.1: run"):
        training.main(replace(config, label_smoothing=0.1))


def test_fold_0_is_the_network_of_all_images_alone(tiny_training, tiny_sample):
    run_dir, seen = tiny_training(fold=0)
    assert seen == [list(OfficialFolders(tiny_sample).images("training"))]
    assert (run_dir / "backbones/resnet50/model.keras").exists()
    assert not list(run_dir.glob("backbones/resnet50/fold_*"))


def test_only_a_backbones_own_weight_file_counts(tiny_training, tiny_sample, tmp_path, capsys):
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5").write_text("ours")
    run_dir, _ = tiny_training(fold=1, weights=str(weights))
    (weights / "xception_weights_tf_dim_ordering_tf_kernels_notop.h5").write_text("another's")
    capsys.readouterr()
    config = replace(PRESETS["sample"], data_dir=tiny_sample, run_dir=run_dir, image_size=IMAGE_SIZE)
    config = replace(config, epochs=3, folds=3, fold=1, weights=str(weights))
    training.main(config)
    assert "resnet50_fold_1: nothing changed" in capsys.readouterr().out
    (weights / "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5").write_text("new")
    with pytest.raises(InputError, match="made with other weight files"):
        training.main(config)
    shutil.rmtree(weights)  # as on another machine
    training.main(config)
    assert "resnet50_fold_1: nothing changed" in capsys.readouterr().out


# ---- through the stages ----------------------------------------------------------------------------------------------


def test_folds_leave_the_network_of_all_images_alone(folded, finished):
    for name in ("model.keras", "history.csv"):
        kept, made = (folder / "backbones" / "resnet50" / name for folder in (folded, finished))
        assert kept.stat().st_mtime_ns == made.stat().st_mtime_ns


def test_out_of_fold_predictions_are_those_of_the_network_that_held_the_image_out(folded, tiny_sample):
    table = pd.read_csv(folded / "predictions" / "resnet50_training_oof.csv", index_col="image_id")
    assert list(table.index) == list(OfficialFolders(tiny_sample).images("training"))
    fold_of = pd.read_csv(folded / "folds.csv", index_col="image_id")["fold"]
    for fold in (1, 2):
        network = keras.saving.load_model(folded / "backbones/resnet50" / f"fold_{fold}" / "model.keras")
        ids = fold_of.index[fold_of == fold]
        crops = np.stack([read_image(folded / "crops/training" / f"{image_id}.png") for image_id in ids])
        np.testing.assert_allclose(table.loc[ids], network.predict(crops, verbose=0), rtol=1e-3, atol=1e-5)


def test_other_splits_are_predicted_by_the_mean_of_the_fold_networks(folded, tiny_sample):
    crops = [folded / "crops/test" / f"{image_id}.png" for image_id in OfficialFolders(tiny_sample).images("test")]
    networks = [keras.saving.load_model(folded / f"backbones/resnet50/fold_{fold}/model.keras") for fold in (1, 2)]
    images = np.stack([read_image(crop) for crop in crops])
    expected = np.mean([network.predict(images, verbose=0) for network in networks], axis=0)
    table = pd.read_csv(folded / "predictions" / "resnet50_folds_test.csv", index_col="image_id")
    np.testing.assert_allclose(table, expected, rtol=1e-3, atol=1e-5)


def test_the_vote_measures_its_alternatives(folded, tiny_sample):
    metrics = json.loads((folded / "results" / "metrics.json").read_text())
    tables = (folded / "results" / "metrics.md").read_text()
    fitted = ["vote", "vote_on_validation", "stacking", "temperature", "vote_oof"]
    for split in ("training", "validation", "test"):
        of_folds = [["resnet50_folds"], ["mean_folds"]] if split != "training" else [[], []]
        names = ["resnet50", "best single (resnet50)", *of_folds[0], "mean", *fitted, *of_folds[1], "prior"]
        assert all(f"| {name} |" in tables for name in names)
        assert list(metrics[split]["methods"]) == names
        for name in [*fitted, *of_folds[1]]:
            table = pd.read_csv(folded / "predictions" / f"{name}_{split}.csv")
            assert list(table["image_id"]) == list(OfficialFolders(tiny_sample).images(split))
        assert metrics[split]["fitted_on"]["vote_oof"] == metrics[split]["fitted_on"]["stacking"] == "training_oof"


def test_the_stacking_is_kept(folded):
    stacking = json.loads((folded / "vote" / "stacking.json").read_text())
    assert stacking["backbones"] == ["resnet50"]
    table = pd.read_csv(folded / "predictions" / "resnet50_test.csv")[list(CLASSES)].to_numpy()
    weights = np.array(stacking["weights"])[..., 0]  # (classes, classes) of the one voter
    expected = softmax(np.log(table) @ weights.T + stacking["biases"], axis=1)
    written = pd.read_csv(folded / "predictions" / "stacking_test.csv")[list(CLASSES)].to_numpy()
    np.testing.assert_allclose(written, expected, rtol=1e-6)


def test_the_temperature_is_kept(folded):
    temperature = json.loads((folded / "vote" / "temperature.json").read_text())["temperature"]
    mean = pd.read_csv(folded / "predictions" / "mean_test.csv")[list(CLASSES)].to_numpy()
    written = pd.read_csv(folded / "predictions" / "temperature_test.csv")[list(CLASSES)].to_numpy()
    np.testing.assert_allclose(written, softmax(np.log(mean) / temperature, axis=1), rtol=1e-5, atol=1e-6)


def test_what_is_made_with_folds_is_not_made_again(stage, folded):
    times = {path: path.stat().st_mtime_ns for path in folded.rglob("*") if path.suffix in (".csv", ".json", ".keras")}
    result = stage("training.py", folded, "--folds", 2)
    for name in ("folds", "resnet50", "resnet50_fold_1", "resnet50_fold_2"):
        assert f"{name}: nothing changed" in result.stdout
    assert "predictions_resnet50_folds: nothing changed" in stage("cls_predict.py", folded, "--folds", 2).stdout
    assert times == {path: path.stat().st_mtime_ns for path in times}


@pytest.mark.parametrize("folds", [3, 7])
def test_a_vote_with_other_folds_than_the_predictions_is_refused(stage, folded, folds):
    result = stage("vote.py", folded, "--folds", folds, "--backbones", "resnet50")
    assert fails(result, f"folds = {folds}", "folds of", "was made with 2", "training.py")


def test_what_a_vote_without_folds_removes_is_all_that_folds_add(folded):
    config = replace(read_settings(folded / "config.json"), run_dir=folded, folds=0)
    removed = all_outputs(config) - set(outputs(config))
    names = ("vote_oof*", "stacking*", "temperature*", "mean_folds*")
    assert {path for name in names for path in folded.rglob(name)} <= removed
    assert folded / "vote" / "vote_oof.keras" in removed


def test_networks_of_other_folds_predict_nothing(stage, folded_copy):
    before = (folded_copy / "folds.csv").read_bytes()
    result = stage("cls_predict.py", folded_copy, "--folds", 2, "--seed", 1)
    assert fails(result, "seed = 1, but folds of", "was made with 0", "training.py --backbone-name resnet50 --folds 2")
    assert (folded_copy / "folds.csv").read_bytes() == before, "a reader never writes"
    result = stage("training.py", folded_copy, "--folds", 2, "--seed", 1)
    assert "folds: seed changed, making it again" in result.stdout
    result = stage("cls_predict.py", folded_copy, "--folds", 2, "--seed", 1)
    assert fails(result, "fold_1", "training.py --backbone-name resnet50 --folds 2")


def test_tables_of_former_fold_networks_do_not_stay(stage, folded_copy):
    of_former, of_new = (
        folded_copy / "predictions" / f"resnet50_folds_{split}.csv" for split in ("validation", "test")
    )
    assert of_former.exists()
    with open(of_new, "a") as file:
        file.write("\n")  # so it is made again
    result = stage("cls_predict.py", folded_copy, "--folds", 2, "--splits", "test")
    assert result.returncode == 0, result.stderr
    assert of_new.exists()
    assert not of_former.exists()


def test_networks_with_and_without_further_images_are_not_mixed(stage, folded_copy):
    with edited_manifest(folded_copy, "resnet50_fold_1") as record:
        record["inputs"]["extra crops"] = "0"
    result = stage("cls_predict.py", folded_copy, "--folds", 2)
    assert fails(result, "resnet50_fold_1", "with --extra-data-dir", "--overwrite")


def test_a_temperature_that_was_edited_is_refused(folded_copy):
    file = folded_copy / "vote" / "temperature.json"
    load_run(folded_copy, decide_by="temperature", folds=2)
    file.write_text("{}")
    with pytest.raises(InputError, match=r"temperature\.json was changed after it was made: run `python vote\.py"):
        load_run(folded_copy, decide_by="temperature", folds=2)


def test_a_missing_fold_network_is_named(stage, folded_copy):
    (folded_copy / "backbones" / "resnet50" / "fold_2" / "model.keras").unlink()
    result = stage("cls_predict.py", folded_copy, "--folds", 2)
    assert fails(result, "fold_2/model.keras", "training.py --backbone-name resnet50 --folds 2")


def test_missing_out_of_fold_predictions_are_named(stage, finished):
    result = stage("vote.py", finished, "--folds", 2)
    assert fails(result, f"{BACKBONES[0]}_training_oof.csv", f"cls_predict.py --folds 2 --backbone-name {BACKBONES[0]}")
