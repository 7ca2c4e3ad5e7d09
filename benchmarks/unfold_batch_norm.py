"""Give the batch normalisations of a weight file of inception_v3 their means back.

    python benchmarks/unfold_batch_norm.py --file weights/inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5 \
        --images data/isic2017/ISIC-2017_Training_Data --to runs/weights

Some published weights hold a kernel and a bias for each convolution alone: the statistics of the batch normalisation
behind it are folded into these. In Keras's file, its moving mean is then 0, its moving variance 1, and its beta is the
true beta less the mean. Such a network predicts as it should. But training normalises with the means of each batch, so
every channel is shifted, and most of what the network had learnt is lost in the first steps.

This script measures the mean of every channel on images, writes it as the moving mean, and adds it to beta. The network
then predicts the same, and trains as if nothing had been folded.
"""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import h5py
import keras
import numpy as np
import tyro

sys.path.insert(0, str(Path(__file__).parent.parent))
from data.images import read_square

SIDE = 192  # pixels
BATCH = 50


@dataclass(frozen=True)
class Arguments:
    file: Path
    """The weight file, without the top of the network."""
    images: Path
    """Folder of images to measure the means on. Their labels are not used."""
    to: Path
    """Folder for the new file, which keeps its name."""
    count: int = 400
    """Number of images."""


def main(arguments):
    network = keras.applications.InceptionV3(include_top=False, weights=None, input_shape=(SIDE, SIDE, 3))
    network.load_weights(arguments.file)
    normalisations = [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]
    if any(np.any(layer.moving_mean) for layer in normalisations):
        sys.exit(f"{arguments.file} has means other than 0: nothing is folded, use it as it is")
    paths = sorted(arguments.images.glob("ISIC_*.jpg"))[: arguments.count]
    if not paths:
        sys.exit(f"{arguments.images} holds no ISIC_*.jpg: name the folder of the training images")
    inputs_of_normalisations = keras.Model(network.input, [layer.input for layer in normalisations])
    sums = [0.0] * len(normalisations)
    for start in range(0, len(paths), BATCH):
        images = np.stack([read_square(path, SIDE) for path in paths[start : start + BATCH]]) / 127.5 - 1.0
        for k, values in enumerate(inputs_of_normalisations.predict_on_batch(images)):
            sums[k] += values.mean(axis=(1, 2)).sum(axis=0)
    features = network.predict_on_batch(images)

    arguments.to.mkdir(parents=True, exist_ok=True)
    target = arguments.to / arguments.file.name
    shutil.copyfile(arguments.file, target)
    with h5py.File(target, "r+") as file:
        layers = [file[name] for name in file.attrs["layer_names"]]
        groups = [layer for layer in layers if layer.name.startswith("/batch_normalization")]
        for group, layer, total in zip(groups, normalisations, sums, strict=True):
            weights = [group[name] for name in group.attrs["weight_names"]]
            stored = {weight.name.rpartition("/")[2]: weight for weight in weights}
            mean = total / len(paths)
            stored["moving_mean"][...] = mean
            stored["beta"][...] += mean / np.sqrt(stored["moving_variance"][()] + layer.epsilon)

    network.load_weights(target)
    difference = np.abs(network.predict_on_batch(images) - features).max() / features.std()
    if difference > 1e-2:  # rounding in float32 gives about 1e-4
        target.unlink()
        sys.exit(f"{arguments.file} holds its layers in an unknown order: its features changed by {difference:.1e}")
    print(f"wrote {target}, whose features differ from those of {arguments.file} by {difference:.0e} of their spread")


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
