"""Load the networks of earlier stages."""

import json
import zipfile
from pathlib import Path

import keras
import numpy as np

import models  # noqa: F401  registers the layers that network files name
from data.classes import ISIC_2017
from models.compact import UNREADABLE, load
from models.fused_batch_norm import fuse_batch_normalization
from models.test_time import over_flips_and_turns
from pipeline.devices import print_device
from pipeline.inputs import require_file
from utils.errors import InputError, refuse_locked
from utils.files import atomic_write


def write_classes(path, classes):
    """Write the names of a classifier's classes, as JSON."""
    with atomic_write(path) as part:
        part.write_text(json.dumps(list(classes)) + "\n")


def read_classes(network):
    """Read the names of a classifier's classes from classes.json beside it.

    Args:
        network: file of the network. A network of an older version has the classes of ISIC 2017 and no classes.json.

    Returns:
        Tuple of names.

    Raises:
        InputError: if the file is damaged, or if it is missing although the settings beside the network are of a
            version that writes it.
    """
    file = Path(network).with_name("classes.json")
    if not file.exists() and writes_classes(Path(network).with_name("config.json")):
        raise InputError(
            f"{file} is missing: write the classes of {network} there as a list, or train the network again"
        )
    try:
        classes = json.loads(file.read_text(encoding="utf-8")) if file.exists() else ISIC_2017
    except ValueError:
        classes = None
    if not isinstance(classes, list | tuple) or not all(isinstance(name, str) for name in classes):
        raise InputError(f"{file} is damaged: write the classes there as a list, or train the network again")
    return tuple(classes)


def writes_classes(settings_file):
    """Whether a file of settings is of a version that also writes classes.json: both came with `extra_labels`."""
    try:
        return "extra_labels" in json.loads(settings_file.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):  # missing or damaged
        return False


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
        shapes = [tensors[0].shape[1:] for tensors in (network.inputs, network.outputs)]
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
    if name == "unet":
        expected = [(None, None, 3), (None, None, 1)]
    elif name == "vote":
        count = None if classes is None else len(classes)
        expected = [(count, None), (count,)]
    else:
        known = read_classes(path)
        if classes is not None and tuple(classes) != known:
            raise InputError(
                f"{path} was trained on the classes {', '.join(known)}, not on {', '.join(classes)}: {remedy}"
            )
        if len(shapes[1]) == 1 and shapes[1] != (len(known),):
            raise InputError(
                f"{path} has {shapes[1][0]} outputs and not the classes {', '.join(known)}: put its own classes.json "
                f"beside it, or train it again with `python {script} --overwrite`"
            )
        expected = [(None, None, 3), (len(known),)]
    fits = all(
        len(shape) == len(wanted) and all(w in (None, side) for side, w in zip(shape, wanted, strict=True))
        for shape, wanted in zip(shapes, expected, strict=True)
    )
    if network.name != name or not fits:
        shown = " -> ".join(map(str, shapes))
        raise InputError(f"{path} holds the network {network.name}, {shown}, and not {name}: {remedy}")
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
