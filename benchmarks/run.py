"""How fast the stages are, as ratios to baselines measured beside them on the same files.

    python benchmarks/run.py --full-size ../shared/isic2017-fullres --small ../shared/isic2017

Prints one Markdown table. `--full-size` needs validation images with masks at their original size, `--small` the
training split of the 256x256 copy; both are only read. More than ten minutes on two cores.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
REPOSITORY = Path(__file__).parent.parent
sys.path.insert(0, str(REPOSITORY))

import cv2  # noqa: E402
import keras  # noqa: E402
import numpy as np  # noqa: E402
import tyro  # noqa: E402

import resize as resize_stage  # noqa: E402
import seg_predict as seg_predict_stage  # noqa: E402
from config import PRESETS  # noqa: E402
from data.augment import random_warp  # noqa: E402
from data.batches import Batches, Lazy  # noqa: E402
from data.images import read_image, read_mask, read_square, write_image  # noqa: E402
from data.isic2017 import image_folder, image_paths, label_table, mask_folder, mask_paths  # noqa: E402
from data.lesion import lesion_box, lesion_mask, read_crop  # noqa: E402
from models import classifier, unet  # noqa: E402
from models.fitting import save_network  # noqa: E402
from models.prediction import predict  # noqa: E402

COPIES = 10  # links to each full-size file, so that the stages' fixed costs do not count
CROP_SIZE = 96
TRAINING_CROPS = 192
PREDICTED_CROPS = 768


@dataclass(frozen=True)
class Arguments:
    full_size: Path
    """Data set with validation images and masks at their original size."""
    small: Path
    """Data set with 2000 training images of 256x256 pixels."""
    repetitions: int = 3
    """Times that every measurement is repeated, ours and the baseline's in turn."""


def in_turn(repetitions, ours, baseline):
    """Seconds of two functions, called in turn: two lists."""
    times = ([], [])
    for _ in range(repetitions):
        for function, list_ in zip((ours, baseline), times, strict=True):
            start = time.perf_counter()
            function()
            list_.append(time.perf_counter() - start)
    return times


def row(what, ours, baseline, bar, unit="s", note=""):
    """Print a row of the table: medians of both, and median and range of their ratios."""
    ratios = [a / b for a, b in zip(ours, baseline, strict=True)]
    print(
        f"| {what} | {median(ours):.4g} {unit} | {median(baseline):.4g} {unit} | {median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f}) | {bar} | {note} |",
        flush=True,
    )


def link(source, target):
    """Make a name for a file, in a folder that is made if need be."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(Path(source).resolve())


def linked_data(full_size, folder):
    """Data set whose validation split (with masks) and test split (without) are links to the full-size files."""
    images = image_paths(full_size, "validation")
    masks = mask_paths(full_size, "validation", images)
    for copy in range(COPIES):
        for number, image_id in enumerate(images):
            name = f"ISIC_{1000 * copy + number:07d}"
            for split in ("validation", "test"):
                link(images[image_id], image_folder(folder, split) / f"{name}.jpg")
            link(masks[image_id], mask_folder(folder, "validation") / f"{name}_segmentation.png")
    return folder


def quietly(function, *arguments):
    """Call a function without what it prints."""
    stdout = sys.stdout
    with open(os.devnull, "w") as sys.stdout:
        try:
            return function(*arguments)
        finally:
            sys.stdout = stdout


def measure_resize(data, work, repetitions):
    config = replace(PRESETS["isic2017"], data_dir=data, run_dir=work / "crops_run", splits=("validation",))
    images = image_paths(data, "validation")
    masks = {image_id: config.run_dir / f"masks/validation/{image_id}_segmentation.png" for image_id in images}
    for image_id, path in mask_paths(data, "validation", images).items():
        write_image(masks[image_id], read_mask(path))

    def ours():
        for name in ("crops", "made"):
            shutil.rmtree(config.run_dir / name, ignore_errors=True)
        quietly(resize_stage.main, config)

    def baseline():
        for image_id, path in images.items():
            image, mask = cv2.imread(str(path)), cv2.imread(str(masks[image_id]), cv2.IMREAD_GRAYSCALE)
            top, bottom, left, right = lesion_box(mask, config.crop_margin_px)
            crop = cv2.resize(image[top:bottom, left:right], (224, 224), interpolation=cv2.INTER_AREA)
            cv2.imwrite(str(work / "baseline.png"), crop)

    def decode_alone():
        def decode(image_id):
            cv2.imread(str(images[image_id]), cv2.IMREAD_REDUCED_COLOR_8)
            cv2.imread(str(masks[image_id]), cv2.IMREAD_GRAYSCALE)

        with ThreadPoolExecutor(config.workers) as pool:
            list(pool.map(decode, images))

    ours()
    times = in_turn(repetitions, ours, baseline)
    floor = median(in_turn(repetitions, decode_alone, lambda: None)[0])
    note = (
        f"{len(images)} images of 0.8 to 12 megapixels and one-bit masks, two threads, example picture included; "
        f"baseline: one thread, imread, slice, resize, imwrite; two threads that do nothing but decode the masks and "
        f"an eighth of the images take {floor:.3g} s"
    )
    row("`resize.py`, full size", *times, "0.35", note=note)


def measure_seg_predict(data, work, repetitions):
    preset = PRESETS["isic2017_256"]
    config = replace(preset, data_dir=data, run_dir=work / "masks_run", splits=("test",))
    network = unet(preset.unet_image_size, preset.unet_blocks, preset.unet_filters, preset.unet_batch_norm)
    network_file = config.run_dir / "unet" / "unet.keras"
    save_network(network, network_file)
    paths = list(image_paths(data, "test").values())
    batches = [paths[i : i + preset.unet_batch_size] for i in range(0, len(paths), preset.unet_batch_size)]
    side = preset.unet_image_size

    def ours():
        for name in ("masks", "made"):
            shutil.rmtree(config.run_dir / name, ignore_errors=True)
        quietly(seg_predict_stage.main, config)

    def baseline():
        network = keras.saving.load_model(network_file, compile=False)
        for batch in batches:
            images = [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in batch]
            inputs = [cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) for image in images]
            probabilities = network.predict_on_batch(np.stack(inputs))[..., 0]
            for image, probability in zip(images, probabilities, strict=True):
                mask = lesion_mask(probability, *image.shape[:2], preset.mask_sigma, preset.mask_threshold)
                cv2.imwrite(str(work / "baseline.png"), mask)

    def network_alone():
        network = keras.saving.load_model(network_file, compile=False)
        for batch in batches:
            network.predict_on_batch(np.zeros((len(batch), side, side, 3), np.uint8))

    ours()
    times = in_turn(repetitions, ours, baseline)
    floor = median(in_turn(repetitions, network_alone, lambda: None)[0])
    note = f"{len(paths)} images, U-Net at {side} pixels, loading it included; the network alone takes {floor:.3g} s"
    row("`seg_predict.py`, full size", *times, "0.7", note=note)


class EpochClock(keras.callbacks.Callback):
    """Images a second of every epoch's training steps, the first epoch (tracing) left out."""

    def __init__(self, images):
        super().__init__()
        self.images, self.speeds = images, []

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        if epoch:
            self.speeds.append(self.images / (time.perf_counter() - self.start))


def measure_classifier(name, crops, repetitions):
    arrays = np.stack([read_image(path) for path in crops])
    labels = np.eye(3, dtype=np.float32)[np.arange(TRAINING_CROPS) % 3]
    network = classifier(name, CROP_SIZE, weights="none")
    network.compile(keras.optimizers.Adam(1e-4), "categorical_crossentropy")
    network.optimizer.build(network.trainable_variables)
    augmented = Batches(
        Lazy(read_image, crops[:TRAINING_CROPS]), labels, batch_size=32, augment=random_warp, shuffle=True, workers=2
    )
    in_memory = (arrays[:TRAINING_CROPS].astype(np.float32), labels)
    speeds = ([], [])
    for _ in range(repetitions):
        for list_, data in zip(speeds, ((augmented,), in_memory), strict=True):
            clock = EpochClock(TRAINING_CROPS)
            network.fit(*data, batch_size=None if len(data) == 1 else 32, epochs=3, callbacks=[clock], verbose=0)
            list_ += clock.speeds
    note = (
        f"{TRAINING_CROPS} crops of {CROP_SIZE} pixels, read and warped on the fly; baseline: arrays, no augmentation"
    )
    row(f"`training.py`, {name}", *speeds, "0.95 or more", "images/s", note)

    def ours():
        return np.stack(list(predict(network, read_image, crops, batch_size=32, workers=2)))

    baseline = partial(network.predict, arrays, batch_size=32, verbose=0)
    np.testing.assert_allclose(ours(), baseline(), atol=1e-5)
    times = in_turn(repetitions, ours, baseline)
    speeds = [[len(crops) / seconds for seconds in list_] for list_ in times]
    note = f"{len(crops)} crops, read on the fly; baseline: `model.predict` on arrays"
    row(f"`cls_predict.py`, {name}", *speeds, "0.95 or more", "images/s", note)


def peak_memory(command):
    """Run a command; its peak resident memory in MiB."""
    program = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)"
    )
    command = [sys.executable, "-c", program, sys.executable, *map(str, command)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return float(done.stdout)


def measure_memory(small, work):
    images = image_paths(small, "training")
    masks = mask_paths(small, "training", images)
    table = label_table(small, "training").read_text().splitlines()
    peaks = {}
    for count in (200, 2000):
        data = work / f"data_{count}"
        for split, ids in (("training", list(images)[:count]), ("validation", list(images)[:20])):
            for image_id in ids:
                link(images[image_id], image_folder(data, split) / f"{image_id}.jpg")
                link(masks[image_id], mask_folder(data, split) / f"{image_id}_segmentation.png")
            rows = [line for line in table if line.split(",")[0] in ids]
            label_table(data, split).write_text("\n".join([table[0], *rows]) + "\n")
        options = ["--preset", "isic2017_256", "--data-dir", data, "--run-dir", work / f"run_{count}"]
        options += ["--unet-image-size", 64, "--unet-filters", 8, "--unet-epochs", 1, "--image-size", 64]
        options += ["--weights", "none", "--epochs", 1, "--backbones", "resnet50", "--splits", "training", "validation"]
        for script in ("seg_train", "seg_predict", "resize", "training", "cls_predict", "vote"):
            peaks[script, count] = peak_memory([f"{script}.py", *options])
    for script in ("seg_train", "seg_predict", "resize", "training", "cls_predict", "vote"):
        peak = [[peaks[script, count]] for count in (2000, 200)]
        row(f"peak memory of `{script}.py`", *peak, "1.10", "MiB", "2000 images against 200")


def measure_help(repetitions):
    quiet = {"cwd": REPOSITORY, "stdout": subprocess.DEVNULL, "check": True}
    empty = partial(subprocess.run, [sys.executable, "-c", "import tyro"], **quiet)
    for script in ("seg_train", "seg_predict", "resize", "training", "cls_predict", "vote"):
        ours, baseline = in_turn(
            repetitions, partial(subprocess.run, [sys.executable, f"{script}.py", "--help"], **quiet), empty
        )
        row(f"`{script}.py --help`", ours, baseline, "0.3 s more", note=f"{median(ours) - median(baseline):.2f} s more")


def measure_published_crop(full_size):
    """The crop as the published code is described to make it: Python loops over the mask's pixels."""
    images = image_paths(full_size, "validation")
    masks = mask_paths(full_size, "validation", images)
    chosen = list(images)[:6]
    work = Path(tempfile.mkdtemp())

    def ours():
        for image_id in chosen:
            box = lesion_box(read_mask(masks[image_id]), 55)
            write_image(work / "crop.png", read_crop(images[image_id], box, 224))

    def published():
        for image_id in chosen:
            image, mask = cv2.imread(str(images[image_id])), cv2.imread(str(masks[image_id]), cv2.IMREAD_GRAYSCALE)
            rows, columns = mask.shape
            top, bottom, left, right = rows, 0, columns, 0
            for y in range(rows):
                for x in range(columns):
                    if mask[y, x] > 127:
                        top, bottom, left, right = min(top, y), max(bottom, y), min(left, x), max(right, x)
            crop = image[max(0, top - 55) : bottom + 55, max(0, left - 55) : right + 55]
            cv2.imwrite(str(work / "crop.png"), cv2.resize(crop, (224, 224)))

    times = in_turn(1, ours, published)
    note = f"one thread, 6 full-size images: {times[1][0] / times[0][0]:.0f} times as fast"
    row("crop, against nested loops", *times, "", note=note)
    shutil.rmtree(work)


def main():
    arguments = tyro.cli(Arguments, description=__doc__)
    os.chdir(REPOSITORY)
    print("| what | ours | baseline | ratio (range) | to reach | |\n| --- | ---: | ---: | ---: | ---: | --- |")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        data = linked_data(arguments.full_size, work / "data")
        measure_resize(data, work, arguments.repetitions)
        measure_seg_predict(data, work, arguments.repetitions)
        crops = []
        for image_id, path in list(image_paths(arguments.small, "training").items())[:PREDICTED_CROPS]:
            crops.append(work / "crops" / f"{image_id}.png")
            write_image(crops[-1], read_square(path, CROP_SIZE))
        for name in ("inception_v3", "resnet50"):
            measure_classifier(name, crops, arguments.repetitions)
        measure_memory(arguments.small.resolve(), work)
    measure_help(arguments.repetitions)
    measure_published_crop(arguments.full_size)


if __name__ == "__main__":
    main()
