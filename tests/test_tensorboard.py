"""The history of a training, written for TensorBoard too."""

from collections import defaultdict

import keras
import numpy as np
import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

import seg_train
import training
from config import PRESETS
from data.batches import Batches
from pipeline import logs
from pipeline.fitting import fit
from pipeline.logs import tensorboard_folder
from pipeline.settings import parse_args
from utils.errors import InputError


def logged(folder):
    """Data frame of what the event files of a folder hold: a row an epoch, from 1, columns as in history.csv."""
    columns = defaultdict(dict)
    for part, prefix in (("train", ""), ("validation", "val_")):
        events = EventAccumulator(str(folder / part)).Reload()
        for tag in events.Tags()["tensors"]:
            if tag.startswith("epoch_"):  # the others go by the steps of the optimizer
                for event in events.Tensors(tag):
                    column = columns[prefix + tag.removeprefix("epoch_")]
                    assert event.step + 1 not in column, "an epoch was logged twice"
                    column[event.step + 1] = float(make_ndarray(event.tensor_proto))
    return pd.DataFrame(columns).rename_axis("epoch").reset_index()


def train(epochs, folder, logs):
    """History of a softmax regression whose learning rate falls after every epoch but the first."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(keras.layers.Flatten()(inputs)))
    model.compile(keras.optimizers.SGD(1e-4), "categorical_crossentropy", metrics=["accuracy"])
    images = np.random.default_rng(0).integers(0, 256, (7, 4, 4, 3), dtype=np.uint8)
    batches = [Batches(images, np.eye(2, dtype=np.float32)[[0, 1, 0, 1, 1, 0, 0]], batch_size=3) for _ in range(2)]
    plateau = keras.callbacks.ReduceLROnPlateau(factor=0.5, patience=1, min_delta=1e9)
    return fit(model, *batches, epochs, folder, callbacks=[plateau], logs=logs)


def test_logs_hold_the_history_also_of_a_training_that_goes_on_and_change_nothing(tmp_path):
    train(2, tmp_path / "checkpoints", tmp_path / "logs")
    history = train(4, tmp_path / "checkpoints", tmp_path / "logs")
    pd.testing.assert_frame_equal(logged(tmp_path / "logs")[list(history)], history, rtol=1e-5)
    assert {"loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"} <= set(history)
    assert history["learning_rate"].nunique() > 1
    pd.testing.assert_frame_equal(train(4, tmp_path / "without", None), history, rtol=1e-5)


def test_logs_stay_for_a_training_that_goes_on_and_go_for_one_that_begins_anew(tmp_path):
    config = parse_args("", options=["--tensorboard", "--run-dir", str(tmp_path)])
    folder = tmp_path / "tensorboard" / "unet"
    (folder / "train").mkdir(parents=True)
    (tmp_path / "checkpoints").mkdir()
    assert tensorboard_folder(config, "unet", tmp_path / "checkpoints") == folder
    assert folder.exists()
    assert tensorboard_folder(PRESETS["sample"], "unet", tmp_path / "checkpoints") is None
    assert tensorboard_folder(config, "unet", tmp_path / "none") == folder
    assert not folder.exists()


def test_a_link_does_not_lead_outside(tmp_path):
    (tmp_path / "elsewhere" / "unet").mkdir(parents=True)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tensorboard").symlink_to(tmp_path / "elsewhere")
    config = parse_args("", options=["--run-dir", str(tmp_path / "run"), "--tensorboard"])
    tensorboard_folder(config, "unet", tmp_path / "none")
    assert (tmp_path / "elsewhere" / "unet").exists()
    with pytest.raises(InputError, match="tensorboard is a link, and logs would be written where it leads"):
        seg_train.main(config)


def test_a_stage_logs_when_asked_to_and_is_up_to_date_without(stage, tmp_path):
    result = stage("seg_train.py", tmp_path, "--unet-epochs", 2, "--tensorboard")
    assert result.returncode == 0, result.stderr
    history = pd.read_csv(tmp_path / "unet/history.csv")
    pd.testing.assert_frame_equal(logged(tmp_path / "tensorboard/unet")[list(history)], history, rtol=1e-5)
    assert "nothing changed" in stage("seg_train.py", tmp_path, "--unet-epochs", 2, "--no-tensorboard").stdout


@pytest.mark.parametrize("main", [seg_train.main, training.main])
def test_without_the_package_nothing_is_begun(main, tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "find_spec", lambda name: None if name == "tensorboard" else name)
    config = parse_args("", options=["--tensorboard", "--run-dir", str(tmp_path / "run")])
    with pytest.raises(InputError, match="--tensorboard needs tensorboard: run `pip install tensorboard`"):
        main(config)
    assert not (tmp_path / "run").exists()
