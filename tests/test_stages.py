"""The six real scripts, run one after another on a tiny sample, and what they say to bad input."""

import csv
import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor

import cv2
import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score

from data.classes import ISIC_2017 as CLASSES
from data.images import read_image, resize
from data.official import OfficialFolders, label_table
from models.test_time import over_flips_and_turns
from tests.conftest import BACKBONES, IMAGE_SIZE

VOTES = ("mean", "vote", "vote_on_validation")


@pytest.fixture
def run_copy(finished, tmp_path):
    """A finished run folder to change; without the networks that a later stage does not need."""
    return shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("model.keras"))


@pytest.fixture
def data_copy(tiny_sample, tmp_path):
    """A data set to spoil."""
    return shutil.copytree(tiny_sample, tmp_path / "data")


def truncate(path):
    """Cut a file off."""
    path.write_bytes(path.read_bytes()[:1500])


def fails(result, *parts):
    """Whether a script ended on one sentence that holds all the parts, with exit code 2."""
    message = result.stderr.strip().splitlines()[-1] if result.stderr.strip() else ""
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert all(str(part) in message for part in parts), message
    return True


@pytest.mark.parametrize("split", ["training", "validation", "test"])
def test_masks_and_crops_keep_the_contract(finished, tiny_sample, split):
    for image_id, path in OfficialFolders(tiny_sample).images(split).items():
        mask = cv2.imread(str(finished / "masks" / split / f"{image_id}_segmentation.png"), cv2.IMREAD_UNCHANGED)
        assert mask.dtype == np.uint8
        assert mask.shape == cv2.imread(str(path)).shape[:2]
        assert set(np.unique(mask)) <= {0, 255}
        crop = cv2.imread(str(finished / "crops" / split / f"{image_id}.png"), cv2.IMREAD_UNCHANGED)
        assert crop.shape == (IMAGE_SIZE, IMAGE_SIZE, 3)


@pytest.mark.parametrize("split", ["training", "validation", "test"])
@pytest.mark.parametrize("name", [*BACKBONES, *VOTES])
def test_predictions_keep_the_contract(finished, tiny_sample, name, split):
    table = pd.read_csv(finished / "predictions" / f"{name}_{split}.csv")
    assert list(table.columns) == ["image_id", *CLASSES]
    assert list(table["image_id"]) == sorted(OfficialFolders(tiny_sample).images(split))
    probabilities = table[list(CLASSES)].to_numpy()
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    if name in BACKBONES:  # otherwise comparisons of two tables could not fail
        assert probabilities.std(axis=0).max() > 0.002


def test_every_stage_keeps_its_settings_and_history(finished):
    for folder, epochs in [("unet", 3), ("vote", 3), *((f"backbones/{name}", 1) for name in BACKBONES)]:
        assert json.loads((finished / folder / "config.json").read_text())["image_size"] == IMAGE_SIZE
        history = pd.read_csv(finished / folder / "history.csv")
        assert list(history["epoch"]) == list(range(1, epochs + 1))
        assert history[["loss", "val_loss"]].notna().all(axis=None)
    assert json.loads((finished / "backbones/xception/config.json").read_text())["backbone_name"] == "xception"
    assert not list(finished.rglob(".*")), "unfinished files were left behind"
    assert json.loads((finished / "config.json").read_text())["image_size"] == IMAGE_SIZE


def test_metrics_are_those_of_the_tables(finished, tiny_sample):
    metrics = json.loads((finished / "results" / "metrics.json").read_text())
    assert list(metrics) == ["training", "validation", "test"]
    for split, measured in metrics.items():
        methods = measured["methods"]
        best = {"resnet50": "best single (resnet50)", "xception": "best single (xception)"}
        assert list(methods) == list(measured["intervals"])
        assert [name for name in methods if name not in best.values()] == [*BACKBONES, *VOTES, "prior"]
        areas = {name: metrics["validation"]["methods"][name]["mean.auc"] for name in BACKBONES}
        chosen = max(areas, key=areas.get)  # on the validation split, for every split
        assert methods[best[chosen]] == methods[chosen]
        labels = OfficialFolders(tiny_sample).labels(split, OfficialFolders(tiny_sample).images(split))
        for name in [*BACKBONES, *VOTES]:
            table = pd.read_csv(finished / "predictions" / f"{name}_{split}.csv")[list(CLASSES)].to_numpy()
            assert methods[name]["accuracy"] == accuracy_score(labels.argmax(1), table.argmax(1))
            assert methods[name]["melanoma.auc"] == pytest.approx(roc_auc_score(labels[:, 0], table[:, 0]), abs=1e-6)
    tables = (finished / "results" / "metrics.md").read_text()
    assert f"{metrics['test']['methods']['vote']['accuracy']:.3f}" in tables


def test_predictions_with_test_time_augmentation_are_those_of_the_augmented_network(stage, finished, tmp_path):
    run_dir = shutil.copytree(finished, tmp_path / "run")
    for script in ("cls_predict.py", "seg_predict.py"):  # in this order, as new masks make the crops stale
        result = stage(script, run_dir, "--splits", "test", "--test-time-augmentation")
        assert "test_time_augmentation changed, making it again" in result.stdout, result.stderr
    table = pd.read_csv(run_dir / "predictions" / "resnet50_test.csv", index_col="image_id")
    network = over_flips_and_turns(keras.saving.load_model(run_dir / "backbones/resnet50/model.keras"))
    crops = np.stack([read_image(run_dir / "crops/test" / f"{image_id}.png") for image_id in table.index])
    np.testing.assert_allclose(
        table[list(CLASSES)], keras.ops.convert_to_numpy(network(crops, training=False)), atol=1e-3
    )


def test_overlap_is_that_of_the_masks(finished, tiny_sample):
    overlap = json.loads((finished / "results" / "segmentation.json").read_text())["test"]
    jaccards = []
    for image_id, path in (
        OfficialFolders(tiny_sample).masks("test", OfficialFolders(tiny_sample).images("test")).items()
    ):
        truth = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 0
        mask = cv2.imread(str(finished / "masks/test" / f"{image_id}_segmentation.png"), cv2.IMREAD_GRAYSCALE) > 0
        jaccards.append((mask & truth).sum() / (mask | truth).sum())
    assert overlap["jaccard"] == pytest.approx(np.mean(jaccards))
    assert overlap["threshold_jaccard"] == pytest.approx(np.mean([j * (j >= 0.65) for j in jaccards]))
    table = pd.read_csv(finished / "results" / "segmentation_test.csv")
    assert list(table["image_id"]) == list(OfficialFolders(tiny_sample).images("test"))
    np.testing.assert_allclose(table["jaccard"], jaccards)


def test_pictures_are_drawn(finished):
    assert not (finished / "results" / "roc_training.png").exists(), "it would be in-sample"
    for name in ("training_curves", "crops_training", "crops_test", "roc_validation", "roc_test"):
        picture = cv2.imread(str(finished / "results" / f"{name}.png"))
        assert picture is not None, name
        assert picture.std() > 10, name


def test_mean_and_vote_follow_the_ids_not_the_rows(stage, finished, run_copy, data_copy):
    for path in [*(run_copy / "predictions").glob("resnet50_*.csv"), *data_copy.glob("*Part3*.csv")]:
        pd.read_csv(path).sample(frac=1, random_state=1).to_csv(path, index=False)
    assert fails(stage("vote.py", run_copy, data_dir=data_copy), "resnet50_", "was changed after", "cls_predict")
    for path in (run_copy / "manifests").glob("predictions_resnet50_*.jsonl"):
        path.unlink()  # tables put there by hand have no record
    assert stage("vote.py", run_copy, data_dir=data_copy).returncode == 0
    for name in VOTES:
        before, after = (pd.read_csv(folder / "predictions" / f"{name}_test.csv") for folder in (finished, run_copy))
        pd.testing.assert_frame_equal(before, after, atol=1e-3)
    before, after = (json.loads((f / "results/metrics.json").read_text()) for f in (finished, run_copy))
    assert before["test"]["methods"]["mean"] == after["test"]["methods"]["mean"]


def test_the_vote_needs_tables_only(stage, finished, run_copy, data_copy):
    for folder in data_copy.glob("*_Data"):
        shutil.rmtree(folder)
    for lost in ("metrics.json", "roc_test.png"):
        (run_copy / "results" / lost).unlink()
    result = stage("vote.py", run_copy, data_dir=data_copy)
    assert result.returncode == 0, result.stderr
    assert "vote: 2 files are missing or changed" in result.stdout
    assert (run_copy / "results" / "roc_test.png").exists()
    assert re.search(r"^computing with \w+ [\d.]+ on \w+, float32$", result.stdout, re.M)
    before, after = (json.loads((f / "results/metrics.json").read_text()) for f in (finished, run_copy))
    assert before["test"]["methods"]["mean"] == after["test"]["methods"]["mean"]


def test_the_vote_is_the_first_of_its_seeds_and_their_spread_is_told(finished):
    for measured in json.loads((finished / "results" / "metrics.json").read_text()).values():
        for name, figures in measured["seeds"].items():
            assert figures["seeds"] == 2
            mean, deviation = figures["mean.auc"]
            # Of two values, the standard deviation of the sample is the distance of either from their mean, times the
            # square root of 2.
            distance = abs(measured["methods"][name]["mean.auc"] - mean)
            assert distance * 2**0.5 == pytest.approx(deviation, abs=1e-6)
    assert "votes from 2 seeds" in (finished / "results" / "metrics.md").read_text()


@pytest.mark.parametrize("masks", ["ground_truth", "none"])
def test_ablations_crop_by_other_masks(stage, tiny_sample, tmp_path, masks):
    result = stage("resize.py", tmp_path, "--masks", masks, "--splits", "test", "--crop-margin-px", 0)
    assert result.returncode == 0, result.stderr
    image_id, path = next(iter(OfficialFolders(tiny_sample).images("test").items()))
    image = read_image(path)
    if masks == "ground_truth":
        truth = cv2.imread(str(OfficialFolders(tiny_sample).masks("test", [image_id])[image_id]), cv2.IMREAD_GRAYSCALE)
        left, top, width, height = cv2.boundingRect(truth)
        image = image[top : top + height, left : left + width]
    crop = read_image(tmp_path / "crops/test" / f"{image_id}.png")
    np.testing.assert_array_equal(crop, resize(image, IMAGE_SIZE, IMAGE_SIZE))


def test_the_same_seed_trains_the_same_network(stage, finished, tmp_path):
    """In its first epoch: rounding, which differs from process to process, grows from step to step."""
    assert stage("seg_train.py", tmp_path, "--unet-epochs", 1).returncode == 0
    first, second = (pd.read_csv(folder / "unet" / "history.csv") for folder in (finished, tmp_path))
    assert second["loss"][0] == pytest.approx(first["loss"][0], rel=0.01)


@pytest.mark.parametrize(
    ("script", "maker"),
    [
        ("seg_predict.py", "seg_train.py"),
        ("resize.py", "seg_predict.py"),
        ("training.py", "resize.py"),
        ("cls_predict.py", "training.py"),
        ("vote.py", "cls_predict.py"),
    ],
)
def test_a_stage_names_the_script_that_makes_its_input(stage, tmp_path, script, maker):
    assert fails(stage(script, tmp_path), tmp_path, maker)


@pytest.mark.parametrize("script", ["seg_train.py", "resize.py"])
def test_a_missing_data_set_is_named(stage, tmp_path, script):
    assert fails(stage(script, tmp_path, data_dir=tmp_path / "nowhere"), tmp_path / "nowhere", "data.download")


@pytest.mark.parametrize("script", ["seg_train.py", "seg_predict.py", "resize.py"])
def test_a_truncated_image_stops_a_stage_before_it_writes(stage, run_copy, data_copy, script):
    path = list(OfficialFolders(data_copy).images("validation").values())[3]
    truncate(path)

    def files():
        kept_out = (".lock", "decoded.json")
        return {file: file.stat().st_mtime_ns for file in run_copy.rglob("*") if file.name not in kept_out}

    before = files()
    assert fails(stage(script, run_copy, data_dir=data_copy), path.name, "replace")
    assert before == files()


def test_a_mask_of_another_size_stops_seg_train(stage, tmp_path, data_copy):
    path = next(iter(OfficialFolders(data_copy).masks("training", ["ISIC_0000003"]).values()))
    cv2.imwrite(str(path), np.zeros((50, 50), np.uint8))
    assert fails(stage("seg_train.py", tmp_path, data_dir=data_copy), path.name, "50x50")


def test_bad_labels_stop_training_and_lose_nothing(stage, finished, data_copy):
    path = label_table(data_copy, "training")
    table = pd.read_csv(path)
    table.loc[2, ["melanoma", "seborrheic_keratosis"]] = 1.0
    table.to_csv(path, index=False)
    network = finished / "backbones" / "resnet50" / "model.keras"
    before = network.stat().st_mtime_ns
    assert fails(stage("training.py", finished, data_dir=data_copy), path.name)
    assert network.stat().st_mtime_ns == before


def test_a_prediction_table_that_lacks_rows_stops_the_vote(stage, run_copy):
    path = run_copy / "predictions" / "xception_test.csv"
    pd.read_csv(path).iloc[1:].to_csv(path, index=False)
    assert fails(stage("vote.py", run_copy), path.name, "cls_predict.py")


def test_predicted_masks_of_another_size_stop_resize(stage, run_copy):
    path = next((run_copy / "masks" / "test").glob("*.png"))
    cv2.imwrite(str(path), np.zeros((50, 50), np.uint8))
    assert fails(stage("resize.py", run_copy), path.name, "50x50", "seg_predict.py")


def test_crops_of_another_size_stop_training(stage, finished):
    assert fails(stage("training.py", finished, "--image-size", 80), "72x72", "--image-size")


def test_no_connection_for_the_imagenet_weights_is_explained(stage, finished, tmp_path):
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    nowhere |= {"KERAS_HOME": str(tmp_path), "NO_PROXY": "", "no_proxy": ""}
    result = stage("training.py", finished, "--weights", "imagenet", "--overwrite", **nowhere)
    file = "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
    sentence = "the ImageNet weights of resnet50 could not be downloaded"
    assert fails(result, sentence, f"--weights FOLDER with {file} in it, or --weights none")
    assert re.search(r"https://\S+/(\S+\.h5)", result.stderr)[1] == file  # the file Keras asked for
    assert (finished / "backbones/resnet50/model.keras").exists(), "the network that stood there was lost"


def test_a_crop_that_turns_out_bad_in_a_worker_is_named(stage, finished, run_copy, tmp_path):
    shutil.copytree(finished / "backbones", run_copy / "backbones", dirs_exist_ok=True)
    path = next((run_copy / "crops" / "validation").glob("*.png"))
    content = bytearray(path.read_bytes())
    content[60:-60] = bytes(len(content) - 120)  # header and end stay whole
    path.write_bytes(content)
    result = stage("cls_predict.py", run_copy, "--splits", "validation")
    assert fails(result, path.name, "was changed after it was made", "resize.py")
    records = (run_copy / "manifests").rename(tmp_path / "records")  # files put there by hand have none
    assert fails(stage("cls_predict.py", run_copy, "--splits", "validation"), path.name, "cannot be decoded")
    shutil.rmtree(run_copy / "manifests")
    records.rename(run_copy / "manifests")
    assert "1 files are missing or changed" in stage("resize.py", run_copy).stdout
    assert stage("cls_predict.py", run_copy, "--splits", "validation").returncode == 0


def test_a_damaged_network_is_named(stage, run_copy):
    path = run_copy / "unet" / "unet.keras"
    path.write_bytes(path.read_bytes()[:1000])
    assert fails(stage("seg_predict.py", run_copy), path, "seg_train.py")


@pytest.mark.parametrize(
    ("place", "wrong", "script"),
    [
        ("backbones/resnet50/model.keras", "backbones/xception/model.keras", "cls_predict.py"),
        ("unet/unet.keras", "backbones/xception/model.keras", "seg_predict.py"),
    ],
)
def test_a_network_in_the_wrong_folder_is_refused(stage, finished, tmp_path, place, wrong, script):
    for folder in ("masks", "crops"):
        shutil.copytree(finished / folder, tmp_path / folder)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    (tmp_path / place).parent.mkdir(parents=True)
    shutil.copy(finished / wrong, tmp_path / place)
    assert fails(stage(script, tmp_path), place, "and not", wrong.split("/")[-2])
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}


def test_two_networks_are_trained_side_by_side_in_one_run_folder(stage, finished, tmp_path):
    for folder in ("masks", "crops", "manifests"):
        shutil.copytree(finished / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.lock", "[!cmu]*.jsonl"))
    networks = list(zip(BACKBONES, (1, 2), strict=True))

    def train(network):
        name, fold = network
        return stage("training.py", tmp_path, "--backbone-name", name, "--folds", 2, "--fold", fold)

    with ThreadPoolExecutor() as pool:
        for result in pool.map(train, networks):
            assert result.returncode == 0, result.stderr
    for name, fold in networks:
        assert (tmp_path / "backbones" / name / f"fold_{fold}" / "model.keras").exists()
        head = (tmp_path / "manifests" / f"{name}_fold_{fold}.jsonl").read_text().splitlines()[0]
        assert json.loads(head)["finished"]


def test_a_backend_that_is_not_there_loses_nothing(stage, finished):
    backend = "nonsense"
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    assert fails(stage("vote.py", finished, "--seed", 5, KERAS_BACKEND=backend), backend, "KERAS_BACKEND", "install")
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*")}


def test_a_vote_whose_networks_cannot_be_fitted_keeps_the_old_one(stage, run_copy, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in run_copy.rglob("*") if path.suffix != ".lock"}
    (tmp_path / "keras").mkdir()
    (tmp_path / "keras" / "__init__.py").write_text("raise ImportError('broken')")
    result = stage("vote.py", run_copy, "--seed", 5, PYTHONPATH=str(tmp_path))
    assert "broken" in result.stderr
    after = {path: path.stat().st_mtime_ns for path in run_copy.rglob("*") if path.suffix != ".lock"}
    assert {path: after.get(path) for path in before} == before


@pytest.mark.parametrize(
    ("file", "script"),
    [("results/segmentation.json", "seg_predict.py"), ("bad_files.csv", "resize.py"), ("config.json", "resize.py")],
)
def test_a_damaged_file_of_the_run_folder_is_named(stage, run_copy, file, script):
    (run_copy / file).write_text("{")
    assert fails(stage(script, run_copy), file, "remove it")


def test_bad_files_can_be_left_out_and_every_later_stage_carries_on(stage, finished, data_copy, tmp_path):
    spoilt = {
        split: next(iter(OfficialFolders(data_copy).images(split))) for split in ("training", "validation", "test")
    }
    for split, image_id in spoilt.items():
        truncate(OfficialFolders(data_copy).images(split)[image_id])
    small = OfficialFolders(data_copy).masks("training", ["ISIC_0000005"])["ISIC_0000005"]
    cv2.imwrite(str(small), np.zeros((50, 50), np.uint8))
    run_dir = tmp_path / "run"
    for folder in ("unet", "backbones/resnet50"):  # networks to go on with
        shutil.copytree(finished / folder, run_dir / folder)

    result = stage("seg_predict.py", run_dir, "--skip-bad-images", data_dir=data_copy)
    assert result.returncode == 0, result.stderr
    with open(run_dir / "bad_files.csv", newline="") as file:
        listed = {(row["what"], row["image_id"]) for row in csv.DictReader(file)}
    expected = {(f"{split} image", image_id) for split, image_id in spoilt.items()}
    assert listed == expected | {("training mask", "ISIC_0000005")}

    # From here on the list does, without the option.
    for script in ("resize.py", "cls_predict.py", "vote.py"):
        result = stage(script, run_dir, "--backbones", "resnet50", data_dir=data_copy)
        assert result.returncode == 0, result.stderr
    for split, image_id in spoilt.items():
        ids = set(pd.read_csv(run_dir / "predictions" / f"vote_{split}.csv")["image_id"])
        assert ids == set(OfficialFolders(data_copy).images(split)) - {image_id}
    for script, read in [("training.py", "read 15 training crops"), ("seg_train.py", "read 14 training images")]:
        result = stage(script, run_dir, "--weights", tmp_path / "none", "--unet-epochs", 1, data_dir=data_copy)
        assert read in result.stdout
