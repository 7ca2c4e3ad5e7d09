"""Measure how much the gates of the squeeze-and-excitation blocks depend on the image.

    python benchmarks/gates.py models/trained runs/fine_tuned/crops/validation

It prints a line for each block of each classifier of a run folder: the shares of the gates that are below 0.01 and
above 0.99 for every crop, and the median and the maximum of their standard deviations over the crops. A block whose
gates are the same for every image pays no attention; it only scales the channels.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tyro
from tyro.conf import Positional

sys.path.insert(0, str(Path(__file__).parent.parent))
from data.images import read_image
from data.lesion import without_border
from models import SqueezeExcitation
from models.compact import load


@dataclass(frozen=True)
class Arguments:
    run: Positional[Path]
    """Run folder with trained classifiers."""
    crops: Positional[Path]
    """Folder of crops."""
    count: int = 50
    """Number of crops; they are taken evenly from the folder."""


def main(arguments):
    paths = sorted(arguments.crops.glob("*.png"))
    paths = [paths[k] for k in np.linspace(0, len(paths) - 1, min(len(paths), arguments.count)).astype(int)]
    if not paths:
        sys.exit(f"{arguments.crops} holds no crops: name the crops of a split")
    files = sorted(arguments.run.glob("backbones/*/model.keras"))
    if not files:
        sys.exit(f"{arguments.run} holds no backbones/*/model.keras: name a run folder")
    for file in files:
        network = load(file)
        side = network.input_shape[1]
        blocks = [layer for layer in network.layers if isinstance(layer, SqueezeExcitation)]
        if not blocks:
            print(f"{network.name}: no blocks")
            continue
        inputs_of_blocks = keras.Model(network.input, [[block.input] for block in blocks])
        crops = np.stack([without_border(read_image(path), side) for path in paths]).astype(np.float32)
        found = inputs_of_blocks.predict(crops, batch_size=10, verbose=0)
        for block, (maps,) in zip(blocks, found, strict=True):
            gates = keras.ops.convert_to_numpy(block.gates(maps))
            off, on, spread = (gates < 0.01).all(axis=0), (gates > 0.99).all(axis=0), gates.std(axis=0)
            shares = f"always below 0.01 {off.mean():.3f}, always above 0.99 {on.mean():.3f}"
            deviation = f"deviation over crops: median {np.median(spread):.4f}, max {spread.max():.3f}"
            print(f"{network.name} {block.name}: {gates.shape[1]} gates, {shares}, {deviation}")


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
