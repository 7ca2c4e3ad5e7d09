"""What training.py, and of memory seg_train.py, make of the settings of the recipe."""

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest

import data.images
import seg_train
import training
from config import PRESETS, Config
from data.classes import ISIC_2017 as CLASSES
from data.images import write_image
from models import classifier
from models.cross_entropy import PriorCorrected
from pipeline.fitting import warmup_and_cosine
from pipeline.settings import affects
from utils.errors import InputError

SIZE = 75
CONFIG = replace(PRESETS["sample"], image_size=SIZE, batch_size=4, backbone_name="resnet50", sampling_power=0.5)


@pytest.fixture
def parts(tmp_path):
    """Crops and labels of 8 training, 4 validation and 6 further images."""
    rng, crops, labels = np.random.default_rng(0), {}, {}
    for split, classes in {
        "training": [2] * 5 + [0, 0, 1],
        "validation": [0, 1, 2, 2],
        "extra": [2, 2, 2, 2, 0, 1],
    }.items():
        crops[split] = [tmp_path / split / f"{k}.png" for k in range(len(classes))]
        for path in crops[split]:
            write_image(path, rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8))
        labels[split] = np.eye(3, dtype=np.float32)[classes]
    return crops, labels


def test_sampling_draws_a_class_by_its_frequency_to_the_power(parts):
    _, labels = parts
    training_alone = {split: labels[split] for split in ("training", "validation")}
    assert training.sampling_weights(replace(CONFIG, sampling_power=0.0), training_alone) is None
    for power in (0.5, 1.0):
        weights = training.sampling_weights(replace(CONFIG, sampling_power=power), training_alone)
        expected = np.array([2 / 8, 1 / 8, 5 / 8]) ** (1 - power)
        np.testing.assert_allclose(weights @ labels["training"] / 8, expected / expected.sum(), rtol=1e-6)
    ratio = training.prior_ratio(replace(CONFIG, sampling_power=1.0), training_alone)
    np.testing.assert_allclose(ratio, (1 / 3) / np.array([2 / 8, 1 / 8, 5 / 8]), rtol=1e-6)


def test_each_fold_has_the_prior_of_its_own_images(parts, tmp_path, monkeypatch):
    crops, labels = parts
    rows = [0, 1, 2, 5, 6]  # of a fold without the only keratosis and some of the nevi
    labels, crops = labels | {"training": labels["training"][rows]}, crops | {"training": crops["training"][:5]}
    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Dense(3, activation="softmax")(keras.layers.GlobalAveragePooling2D()(inputs))
    network, head = (PriorCorrected(inputs, x, name=name) for name in ("resnet50", "head"))

    class Stopped(Exception):
        pass

    def begin():
        raise Stopped

    monkeypatch.setattr(training, "Manifest", lambda *_, **__: SimpleNamespace(up_to_date=lambda: False, begin=begin))
    config = replace(CONFIG, folds=2, fold=1, extra_data_dir=tmp_path, extra_per_epoch=4, run_dir=tmp_path)
    monkeypatch.setattr(training, "label_files", lambda config, split: [])
    with pytest.raises(Stopped):
        training.train(config, crops, labels, [], SimpleNamespace(untrained=lambda: (network, head)))
    expected = training.prior_ratio(config, labels)
    assert np.abs(expected - 1).max() > 0.05, "nothing to correct for"
    for model in (network, head):
        np.testing.assert_allclose(np.array(model.prior_ratio), expected, rtol=1e-6)


def test_an_area_that_the_validation_labels_do_not_define_is_not_watched(capsys):
    config = replace(CONFIG, monitor="auc")
    for classes in ([2, 2], [0, 0]):
        with pytest.raises(InputError, match="monitor = auc, but the validation labels define no AUC"):
            training.check_labels(config, CLASSES, {"training": np.eye(3), "validation": np.eye(3)[classes]})
        training.check_labels(
            replace(config, monitor="loss"), CLASSES, {"training": np.eye(3), "validation": np.eye(3)[classes]}
        )
    training.check_labels(config, CLASSES, {"training": np.eye(3), "validation": np.eye(3)[[0, 2]]})
    said = " ".join(capsys.readouterr().out.split())
    assert "no image of seborrheic_keratosis: the best epoch is chosen without such images" in said


def test_a_class_without_a_training_image_is_refused():
    with pytest.raises(InputError, match="has no training image of nevus: add some"):
        training.check_labels(CONFIG, CLASSES, {"training": np.eye(3)[:2], "validation": np.eye(3)})


def test_further_images_are_drawn_as_many_an_epoch_as_asked_for(parts):
    crops, labels = parts
    config = replace(CONFIG, extra_per_epoch=4)
    batches = training.make_batches(config, crops, labels)["training"]
    assert sum(len(batches[k][0]) for k in range(len(batches))) == 8 + 4
    counts = np.zeros(14)
    for batches.epoch in range(40):
        counts += np.bincount(batches.order(), minlength=14)
    assert counts[8:].sum() / 40 == pytest.approx(4, abs=1)
    weights = training.sampling_weights(config, labels)
    everything = np.concatenate([labels["training"], labels["extra"]])
    drawn, true = weights @ everything / 12, labels["training"].mean(axis=0)
    np.testing.assert_allclose(training.prior_ratio(config, labels), drawn / true, rtol=1e-6)


def test_further_masks_are_drawn_as_many_an_epoch_as_asked_for(parts, tmp_path):
    crops, _ = parts
    config = replace(CONFIG, run_dir=tmp_path, unet_image_size=16, unet_extra_per_epoch=3)
    named = {split: {path.stem: path for path in paths} for split, paths in crops.items()}
    further = named["extra"], named["extra"]
    batches = seg_train.make_batches(config, "training", named["training"], named["training"], further)
    assert sum(len(batches[k][1]) for k in range(len(batches))) == 8 + 3
    counts = np.zeros(14)
    for batches.epoch in range(40):
        counts += np.bincount(batches.order(), minlength=14)
    assert set(counts[:8]) == {40}  # of the training split each once
    assert counts[8:].sum() == 40 * 3
    assert counts[8:].min() > 0


@pytest.mark.parametrize(
    ("settings", "splits", "counting"),
    [
        ({}, (), {"unet_blocks", "unet_batch_norm", "unet_lr_factor"}),
        ({"unet_batch_norm": True}, (), {"unet_blocks", "unet_batch_norm", "unet_lr_factor", "batch_norm_momentum"}),
        ({"unet_lr_schedule": "cosine"}, (), {"unet_blocks", "unet_batch_norm"}),
        ({"unet_encoder": "xception"}, ("extra",), {"unet_lr_factor", "weights"} | {"unet_extra_per_epoch"}),
    ],
)
def test_only_settings_that_have_a_say_count_for_the_unet(settings, splits, counting):
    unused = seg_train.unused_settings(replace(Config(), **settings), splits)
    assert all(affects(name, "unet") for name in unused)
    having_a_say = {"unet_blocks", "unet_batch_norm", "unet_lr_factor", "unet_extra_per_epoch", "weights"}
    if "unet_encoder" not in settings:
        having_a_say.add("batch_norm_momentum")
    assert having_a_say - set(unused) == counting


@pytest.mark.parametrize(
    ("settings", "splits", "unused"),
    [
        (Config(), (), {"extra_per_epoch", "extra_labels", "warmup_epochs", "frozen_learning_rate"}),
        (PRESETS["fine_tuned"], (), {"extra_per_epoch", "extra_labels"}),
        (replace(PRESETS["fine_tuned"], se_position="none"), ("extra",), {"se_ratio", "se_lr_factor"}),
    ],
)
def test_only_settings_that_have_a_say_count_for_a_classifier(settings, splits, unused):
    assert set(training.unused_settings(settings, splits)) == unused
    assert all(affects(name, "classifier") for name in unused)


@pytest.mark.parametrize("in_memory", [False, True])
def test_images_are_decoded_in_every_epoch_unless_they_are_kept_in_memory(parts, tmp_path, monkeypatch, in_memory):
    crops, _ = parts
    config = replace(CONFIG, in_memory=in_memory, sampling_power=0.0, run_dir=tmp_path, unet_image_size=16)
    of_two = ({split: of[split] for split in ("training", "validation")} for of in parts)
    named = {path.stem: path for path in crops["training"]}
    of_unet = seg_train.make_batches(config, "training", named, named)
    decoded = Counter()
    decode = data.images.decode
    monkeypatch.setattr("data.images.decode", lambda path, *options: decoded.update([path]) or decode(path, *options))
    for batches in (*training.make_batches(config, *of_two).values(), of_unet):
        for batches.epoch in range(2):
            for k in range(len(batches)):
                batches[k]
    assert len(decoded) == 8 + 4 + 2 * 8
    assert set(decoded.values()) == {1 if in_memory else 2}


def test_every_backbone_and_fold_draws_an_order_of_its_own(parts):
    crops, labels = parts
    orders = set()
    for name, fold in [("resnet50", 0), ("xception", 0), ("resnet50", 1), ("resnet50", 0)]:
        config = replace(CONFIG, backbone_name=name, fold=fold, sampling_power=0.0)
        orders.add(tuple(training.make_batches(config, crops, labels)["training"].order()))
    assert len(orders) == 3


def test_a_frozen_backbone_stays_as_it_is_while_the_head_learns(parts):
    _, labels = parts
    plain = classifier("resnet50", 32, weights="none")
    network = PriorCorrected(plain.input, plain.output)
    training.set_backbone_trainable(network, False)
    training.compile_network(network, CONFIG, frozen=True)
    network.run_eagerly = True  # a graph would take longer to build
    before = {variable.path: np.array(variable) for variable in network.variables}
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    for _ in range(2):
        network.train_on_batch(images, labels["validation"])
    changed = {path for path, variable in ((v.path, v) for v in network.variables) if (before[path] != variable).any()}
    assert {path.split("/")[0] for path in changed} == {"hidden", "diagnosis"}
    training.set_backbone_trainable(network, True)
    assert all(layer.trainable for layer in network.layers)


def test_phases_follow_each_other_and_a_second_fold_starts_from_scratch(parts, tmp_path, monkeypatch):
    def tiny(config):
        crops = keras.Input((SIZE, SIZE, 3))
        x = keras.layers.Conv2D(4, 5, strides=5, name="conv")(keras.layers.Rescaling(1 / 255)(crops))
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.Dense(8, activation="relu", name="hidden")(keras.layers.GlobalAveragePooling2D()(x))
        return keras.Model(crops, keras.layers.Dense(3, activation="softmax", name="diagnosis")(x))

    monkeypatch.setattr(training, "build_classifier", tiny)
    crops, labels = parts
    phases = {"frozen_epochs": 2, "epochs": 3, "lr_schedule": "cosine", "warmup_epochs": 1.0}
    config = replace(CONFIG, folds=2, **phases, ema_momentum=0.5, extra_per_epoch=4)
    reused_classifier = training.ReusedClassifier(config)
    weights, histories = [], []
    for repetition in range(2):
        network, head = reused_classifier.untrained()
        batches = training.make_batches(config, crops, labels)
        start = np.array(network.get_layer("conv").kernel)
        logs = None if repetition else tmp_path / "logs"
        histories.append(training.fit_in_phases(config, network, head, batches, tmp_path / str(repetition), None, logs))
        weights.append(network.get_weights())
        assert (start != np.array(network.get_layer("conv").kernel)).any()
    assert list(histories[0]["epoch"]) == [1, 2, 3, 4, 5]
    assert histories[0]["learning_rate"].isna().tolist() == [True] * 2 + [False] * 3
    assert {"val_auc", "val_cross_entropy"} <= set(histories[0])
    # An accuracy or an area jumps where one image's rounding does.
    losses = ["loss", "val_loss", "cross_entropy", "val_cross_entropy"]
    pd.testing.assert_frame_equal(*(history[losses] for history in histories), rtol=1e-4)
    for folder in ("logs/head/train", "logs/head/validation", "logs/train", "logs/validation"):
        assert len(list((tmp_path / folder).iterdir())) == 1
    for first, second in zip(*weights, strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-6)


def test_a_backbone_whose_training_spoils_it_is_told(capsys):
    histories = [pd.DataFrame({"val_cross_entropy": values}) for values in ([1.0, 0.9], [16.0, 20.0])]
    training.warn_of_lost_weights(replace(CONFIG, monitor="cross_entropy"), histories[::-1])
    training.warn_of_lost_weights(replace(CONFIG, monitor="cross_entropy"), histories[1:])
    assert capsys.readouterr().out == ""
    training.warn_of_lost_weights(replace(CONFIG, monitor="cross_entropy"), histories)
    assert "val_cross_entropy was 0.900 with a frozen backbone, and 16.000" in " ".join(capsys.readouterr().out.split())


def test_learning_rate_rises_and_then_falls_to_nearly_nothing():
    at = warmup_and_cosine(1e-3, epochs=12, warmup=2).schedule
    rates = [at(epoch, None) for epoch in range(12)]
    assert rates[:2] == pytest.approx([0.25e-3, 0.75e-3])
    assert max(rates) == rates[2] < 1e-3
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[-1] < 1e-5
    assert rates[2] + rates[11] == pytest.approx(1e-3)  # the cosine is odd about its middle
