"""Load the networks of earlier stages."""

import json
import zipfile
from pathlib import Path

import keras
import numpy as np

import models  # noqa: F401  registers the layers that network files name
from models.compact import UNREADABLE, load
from models.fused_batch_norm import fuse_batch_normalization
from models.test_time import over_flips_and_turns
from pipeline.devices import print_device
from pipeline.inputs import require_file
from utils.errors import InputError, refuse_locked


def read_classes(network, script):
    """Read the names of a classifier's classes, a tuple, from classes.json beside its file.

    Args:
        network: the file of the classifier.
        script: the script that makes both.

    Raises:
        InputError: if classes.json is missing or damaged.
    """
    file = Path(network).with_name("classes.json")
    try:
        classes = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        classes = None
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise InputError(
            f"{file} is missing or damaged: write the classes of {network} there as a list, or run "
            f"`python {script} --overwrite`"
        )
    return tuple(classes)


def load_network(path, script, name, classes=None, quiet=False):
    """Load a network of an earlier stage.

    Args:
        path: its file.
        script: the script that makes it.
        name: what it must be called: "unet", "vote" or a backbone's name.
        classes: names of the classes that a classifier or a vote must have; None for any.
        quiet: do not print backend, device and precision.

    Raises:
        InputError: if it is missing, damaged or another network, or holds weights that are NaN or infinite, naming the
            script that makes it; if it is locked, or was saved by a version of Keras that this one cannot read.
    """
    require_file(path, script)
    remedy = f"run `python {script} --overwrite`, or put the right file there"
    open(path, "rb").close()  # raises PermissionError, where Keras would report a missing file
    try:
        network = load(path)
        outputs = network.output_shape[-1]
    except UNREADABLE as error:
        refuse_locked(path, error)
        saved_by = keras_version_of(path)
        if saved_by not in (None, keras.__version__):
            raise InputError(
                f"{path} was saved by Keras {saved_by}, and Keras {keras.__version__} cannot read it: "
                f"run `pip install keras=={saved_by}`"
            ) from None
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path} is damaged ({reason}): {remedy}") from None
    if network.name != name:
        raise InputError(f"{path} holds the network {network.name}, and not {name}: {remedy}")
    if name not in ("unet", "vote"):
        known = read_classes(path, script)
        if classes is not None and tuple(classes) != known:
            raise InputError(
                f"{path} was trained on the classes {', '.join(known)}, not on {', '.join(classes)}: {remedy}"
            )
        classes = known
    if name != "unet" and classes is not None and outputs != len(classes):
        put = "" if name == "vote" else "put its own classes.json beside it, or "
        raise InputError(f"{path} has {outputs} outputs and not the classes {', '.join(classes)}: {put}{remedy}")
    if not all(np.isfinite(weight).all() for weight in network.get_weights()):
        raise InputError(f"{path} holds weights that are not finite: train it again with `python {script} --overwrite`")
    if not quiet:
        print_device(network)
    return fuse_batch_normalization(network)


def keras_version_of(path):
    """The version of Keras that saved a network, from its metadata.json; None if that cannot be read."""
    try:
        with zipfile.ZipFile(path) as file:
            return json.loads(file.read("metadata.json"))["keras_version"]
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return None


def load_predictor(config, path, script, name, classes=None, quiet=False):
    """`load_network`, with test-time augmentation if the settings ask for it; see `Config.test_time_augmentation`."""
    network = load_network(path, script, name, classes, quiet)
    return over_flips_and_turns(network) if config.test_time_augmentation else network
