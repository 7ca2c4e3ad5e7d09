"""Networks that cannot be used, and what is said of them."""

import fcntl
import json
import shutil
import zipfile

import keras
import numpy as np
import pytest

from models.backbones import classifier
from models.unet import unet
from models.vote import vote_network
from pipeline.inference import infer
from pipeline.networks import load_network
from utils.errors import InputError
from utils.files import write_json


@pytest.fixture
def network(tmp_path):
    """File of a small U-Net."""
    path = tmp_path / "unet.keras"
    unet(16, 2, 2).save(path)
    return path


def rewritten(path, version, change):
    """Write a network's file again as if saved by another version of Keras, with its config.json changed."""
    copy = path.with_name("copy.keras")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(copy, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "metadata.json":
                content = json.dumps(json.loads(content) | {"keras_version": version}).encode()
            new.writestr(name, change(content) if name == "config.json" else content)
    shutil.move(copy, path)


def unknown_argument(content):
    return content.replace(b'"filters": ', b'"of_a_later_keras": null, "filters": ')


def test_a_network_of_a_newer_keras_is_called_that_and_is_not_to_be_thrown_away(network):
    rewritten(network, "99.1.0", unknown_argument)
    with pytest.raises(InputError) as error:
        load_network(network, "seg_train.py", "unet")
    assert str(error.value) == (
        f"{network} was saved by Keras 99.1.0, and Keras {keras.__version__} cannot read it: "
        f"run `pip install keras==99.1.0`"
    )


def test_a_newer_file_that_can_be_read_is_read(network):
    rewritten(network, "99.1.0", lambda content: content)
    assert load_network(network, "seg_train.py", "unet").name == "unet"


def test_a_damaged_network_of_this_keras_is_called_that(network):
    rewritten(network, keras.__version__, unknown_argument)
    with pytest.raises(InputError, match=r"unet.keras is damaged \(.*\): run `python seg_train.py --overwrite`"):
        load_network(network, "seg_train.py", "unet")
    network.write_bytes(network.read_bytes()[:500])
    with pytest.raises(InputError, match=r"unet.keras is damaged"):
        load_network(network, "seg_train.py", "unet")


def test_a_locked_file_is_no_damaged_one(network, monkeypatch):
    def locked(*args, **options):
        raise BlockingIOError(11, "Unable to synchronously open file (unable to lock file, errno = 11)")

    monkeypatch.setattr(keras.saving, "load_model", locked)
    with pytest.raises(InputError, match=r"unet.keras is locked .*HDF5_USE_FILE_LOCKING=FALSE") as error:
        load_network(network, "seg_train.py", "unet")
    assert "--overwrite" not in str(error.value)


def test_a_locked_weight_file_is_no_wrong_one(tmp_path):
    path = tmp_path / "xception_weights_tf_dim_ordering_tf_kernels_notop.h5"
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(path)
    with open(path, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(InputError, match=rf"{path} is locked .*HDF5_USE_FILE_LOCKING=FALSE"):
            classifier("xception", 71, weights=str(tmp_path))


def test_outputs_that_are_not_the_classes_beside_the_network_are_refused(tmp_path):
    crops = keras.Input((8, 8, 3))
    outputs = keras.layers.Dense(2, activation="softmax")(keras.layers.Flatten()(crops))
    path = tmp_path / "model.keras"
    keras.Model(crops, outputs, name="xception").save(path)
    write_json(tmp_path / "classes.json", ["a"])
    with pytest.raises(InputError, match=r"model.keras has 2 outputs and not the classes a: put its own cl"):
        load_network(path, "training.py", "xception")
    write_json(tmp_path / "classes.json", ["a", "b"])
    assert load_network(path, "training.py", "xception", ("a", "b")).name == "xception"
    with pytest.raises(InputError, match="was trained on the classes a, b, not on b, a"):
        load_network(path, "training.py", "xception", ("b", "a"))


def test_a_vote_over_other_classes_is_refused(tmp_path):
    vote_network(2, 3, 4).save(tmp_path / "vote.keras")
    with pytest.raises(InputError, match=r"has 3 outputs and not the classes a, b: run `python vote.py --overwrite`"):
        load_network(tmp_path / "vote.keras", "vote.py", "vote", ("a", "b"))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_no_number_is_refused_before_any_work(tmp_path, value):
    network = vote_network(2, 3, 4)
    weights = network.get_weights()
    weights[0].flat[0] = value
    network.set_weights(weights)
    network.save(tmp_path / "vote.keras")
    with pytest.raises(
        InputError, match=r"vote.keras holds weights that are not finite: train it again with `python v"
    ):
        load_network(tmp_path / "vote.keras", "vote.py", "vote")


def test_outputs_that_are_no_numbers_are_refused_before_they_are_used():
    inputs = keras.Input((2, 2, 3))
    network = keras.Model(inputs, keras.ops.log(keras.layers.Flatten()(inputs) - 5.0), name="odd")
    images = {"good": np.full((2, 2, 3), 9, np.float32), "bad": np.zeros((2, 2, 3), np.float32)}
    found = infer(network, images.get, ["good", "good", "bad"], 2, 1)
    assert np.isfinite([next(found), next(found)]).all()
    with pytest.raises(InputError, match="outputs of the network odd are not finite: train it again"):
        next(found)
