"""Give the batch normalisations of a weight file their statistics back.

    python benchmarks/unfold_batch_norm.py --backbone resnet50 --weights weights \\
        --images data/isic2017/ISIC-2017_Training_Data --to runs/weights

Some published weights hold a kernel and a bias for each convolution alone: the statistics of the batch normalisation
behind it are folded into these. In Keras's file, its moving mean is then 0 and its moving variance 1. Such a network
predicts as it should. But training normalises with the statistics of each batch, so every channel is shifted and
scaled, and what the network had learnt is lost in the first steps.

This script measures mean and variance of every such channel on images, writes them as moving statistics, and changes
beta and gamma to fit. (A normalisation without gamma keeps the variance 1.) The network then predicts the same, and
trains as if nothing had been folded.
"""

import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import h5py
import keras
import numpy as np
import tyro

sys.path.insert(0, str(Path(__file__).parent.parent))
from data.images import read_square
from models.backbones import BACKBONES, WEIGHT_FILE

SIDE = 192  # pixels
BATCH = 50


@dataclass(frozen=True)
class Arguments:
    images: Path
    """Folder of images to measure the statistics on. Their labels are not used."""
    weights: Path
    """Folder of the weight file, which has Keras's name and no top of the network."""
    to: Path
    """Folder for the new file, which keeps its name."""
    backbone: Literal["inception_v3", "resnet50"] = "inception_v3"
    """The network."""
    count: int = 400
    """Number of images."""


def main(arguments):
    backbone, name = BACKBONES[arguments.backbone], WEIGHT_FILE.format(arguments.backbone)
    network = backbone.build(include_top=False, weights=None, input_shape=(SIDE, SIDE, 3))
    network.load_weights(arguments.weights / name)
    normalisations = [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]
    folded = [not np.any(layer.moving_mean) for layer in normalisations]
    if not any(folded):
        sys.exit(f"{arguments.weights / name} has all its means: nothing is folded, use it as it is")
    paths = sorted(arguments.images.glob("ISIC_*.jpg"))[: arguments.count]
    if not paths:
        sys.exit(f"{arguments.images} holds no ISIC_*.jpg: name the folder of the training images")
    inputs = [layer.input for layer, is_folded in zip(normalisations, folded, strict=True) if is_folded]
    inputs_of_normalisations = keras.Model(network.input, inputs)
    sums, squares, positions = [0.0] * len(inputs), [0.0] * len(inputs), [0] * len(inputs)
    for start in range(0, len(paths), BATCH):
        images = np.stack([read_square(path, SIDE) for path in paths[start : start + BATCH]]).astype(np.float32)
        images = backbone.preprocess(images)
        for k, values in enumerate(inputs_of_normalisations.predict_on_batch(images)):
            values = values.reshape(-1, values.shape[-1]).astype(np.float64)
            sums[k] += values.sum(axis=0)
            squares[k] += (values**2).sum(axis=0)
            positions[k] += len(values)
    features = network.predict_on_batch(images)

    arguments.to.mkdir(parents=True, exist_ok=True)
    target = arguments.to / name
    shutil.copyfile(arguments.weights / name, target)
    measured = iter(zip(sums, squares, positions, strict=True))
    with h5py.File(target, "r+") as file:
        groups = [file[layer] for layer in file.attrs["layer_names"]]
        stored = [[group[weight] for weight in group.attrs["weight_names"]] for group in groups]
        stored = [{re.split("[/:]", w.name.removesuffix(":0"))[-1]: w for w in weights} for weights in stored]
        stored = [weights for weights in stored if "moving_mean" in weights]
        for weights, layer, is_folded in zip(stored, normalisations, folded, strict=True):
            if is_folded:
                total, total_of_squares, count = next(measured)
                mean, before = total / count, weights["moving_variance"][()] + layer.epsilon
                gamma = weights["gamma"][()] if "gamma" in weights else 1.0
                weights["moving_mean"][...] = mean
                weights["beta"][...] += gamma * mean / np.sqrt(before)
                if "gamma" in weights:
                    weights["moving_variance"][...] = total_of_squares / count - mean**2
                    weights["gamma"][...] *= np.sqrt((weights["moving_variance"][()] + layer.epsilon) / before)

    network.load_weights(target)
    difference = np.abs(network.predict_on_batch(images) - features).max() / features.std()
    if difference > 1e-2:  # rounding in float32 gives about 1e-4
        target.unlink()
        sys.exit(f"{name} holds its layers in an unknown order: its features changed by {difference:.1e}")
    print(f"wrote {target}, whose features differ from those of {name} by {difference:.0e} of their spread")


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
