"""What a run costs as it grows, from what an image costs each network here.

    python benchmarks/costs.py --preset isic2017
    python benchmarks/costs.py --preset fine_tuned --mixed-precision bfloat16

Measures each network of the preset in a process of its own, on arrays of noise: seconds an image in training and in
prediction, peak memory, and the size of its file. Prints them as one Markdown table, and what follows for some runs as
another. About 11 minutes on two cores for `isic2017`.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import get_args

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
REPOSITORY = Path(__file__).parent.parent
sys.path.insert(0, str(REPOSITORY))

from config import BackboneName, Config  # noqa: E402
from pipeline import command_line  # noqa: E402
from pipeline.allocator import keep_freed_memory  # noqa: E402

STEPS = 3  # measured, after one in which the step is traced
SEGMENTED = 2000, 150  # images with masks, for training and validation; ISIC 2019 has none of its own
# Images for training, validation and test; folds.
RUNS = {
    "ISIC 2017": (2000, 150, 600, 0),
    "ISIC 2017, 5 folds": (2000, 150, 600, 5),
    "ISIC 2019": (22_000, 3331, 0, 0),
    "ISIC 2019, 5 folds": (22_000, 3331, 0, 5),
}
OWN_IMAGES = 1_000_000


@dataclass(frozen=True)
class Settings(Config):
    """The settings of all stages, and which network this process is to measure."""

    network: str = ""
    """Network to measure; without it, all of them, each in a process of its own."""


def measure(config):
    """Seconds an image in training and prediction, peak memory in MiB, and size in MB of one network."""
    keep_freed_memory()
    import numpy as np

    import seg_train
    import training
    from pipeline.devices import set_devices_and_precision
    from pipeline.fitting import save_network

    set_devices_and_precision(config)
    random = np.random.default_rng(0)
    if config.network == "unet":
        side, batch_size = config.unet_image_size, config.unet_batch_size
        network = seg_train.make_network(config)
        targets = random.random((batch_size, side, side, 1), np.float32).round()
    else:
        side, batch_size = config.image_size, config.batch_size
        network = training.make_network(config)
        training.compile_network(network, config)
        targets = np.eye(3, dtype=np.float32)[random.integers(3, size=batch_size)]
    network.optimizer.build(network.trainable_variables)
    images = random.integers(256, size=(batch_size, side, side, 3), dtype=np.uint8)

    def seconds(step, *arrays):
        times = []
        for _ in range(1 + STEPS):
            start = time.perf_counter()
            step(*arrays)
            times.append(time.perf_counter() - start)
        return median(times[1:]) / batch_size

    found = {"training": seconds(network.train_on_batch, images, targets)}
    found["prediction"] = seconds(network.predict_on_batch, images)
    found["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with tempfile.TemporaryDirectory() as folder:
        save_network(network, Path(folder) / "model.keras")
        found["size"] = (Path(folder) / "model.keras").stat().st_size / 1e6
    return found


def picture():
    """Seconds that predict.py takes to draw and write the picture of one image."""
    import numpy as np

    from data.lesion import ImageView
    from evaluation.plots import draw_probabilities

    image, mask = np.zeros((480, 640, 3), np.uint8), np.zeros((480, 640), np.uint8)
    mask[100:300, 200:400] = 255
    view = ImageView(image, 1.0, mask, (100, 300, 200, 400), image[:224, :224])
    probabilities = dict.fromkeys(map(str, range(7)), np.full(3, 1 / 3))
    with tempfile.TemporaryDirectory() as folder:
        times = []
        for _ in range(1 + STEPS):
            start = time.perf_counter()
            draw_probabilities("image", view, probabilities, footnote="").savefig(f"{folder}/p.png")
            times.append(time.perf_counter() - start)
    return median(times[1:])


def main(config):
    if config.network:
        print(json.dumps(measure(config)))
        return
    found = {}
    for name in ("unet", *get_args(BackboneName)):
        command = [sys.executable, *sys.argv, "--network", name, "--weights", "none"]
        command += [] if name == "unet" else ["--backbone-name", name]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        found[name] = json.loads(done.stdout.splitlines()[-1])
    print("| network | training | prediction | peak memory | file |\n| --- | ---: | ---: | ---: | ---: |")
    for name, costs in found.items():
        print(
            f"| {name} | {1e3 * costs['training']:.3g} ms an image | {1e3 * costs['prediction']:.3g} ms "
            f"| {costs['memory'] / 1024:.1f} GiB | {costs['size']:.0f} MB |"
        )
    tell_runs(config, *found.values())


def tell_runs(config, unet, *backbones):
    """Print what runs cost, from what `measure` found of each network."""
    views = 8 if config.test_time_augmentation else 1
    epochs = config.epochs + config.frozen_epochs

    def hours(network, images, watched, epochs):
        return epochs * (images * network["training"] + watched * network["prediction"]) / 3600

    print("\n| run | U-Net | backbones | predictions | networks' files |\n| --- | ---: | ---: | ---: | ---: |")
    segmenting = hours(unet, *SEGMENTED, config.unet_epochs)
    for name, (images, watched, unlabelled, folds) in RUNS.items():
        times = 1 + max(0, folds - 1)  # that the training split is gone through: each fold leaves its part out
        training = times * sum(hours(network, images, watched, epochs) for network in backbones)
        asked = (images + watched + unlabelled) * views / 3600
        predicting = asked * (unet["prediction"] + (1 + folds) * sum(network["prediction"] for network in backbones))
        size = (unet["size"] + (1 + folds) * sum(network["size"] for network in backbones)) / 1e3
        print(f"| {name} | {segmenting:.1f} h | {training:.0f} h | {predicting:.1f} h | {size:.1f} GB |")
    networks, days = views * sum(network["prediction"] for network in (unet, *backbones)), OWN_IMAGES / 86_400
    print(f"\n{OWN_IMAGES:,} images through predict.py: networks {networks * days:.1f} days, ", end="")
    print(f"pictures {picture() * days:.1f} days")


if __name__ == "__main__":
    command_line.run(main, command_line.start(__doc__, Settings))
