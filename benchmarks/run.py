"""How fast the stages are, as ratios to baselines measured beside them on the same files.

    python benchmarks/run.py --full-size ../shared/isic2017-fullres --small ../shared/isic2017
    python benchmarks/run.py --full-size ... --small ... --only memory linear

Prints one Markdown table. `--full-size` needs validation images with masks at their original size, `--small` the
training split of the 256x256 copy; both are only read. About 25 minutes on two cores; the parts that run in processes
of their own are in parts.py.
"""

import json
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
from typing import Literal, get_args

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
REPOSITORY = Path(__file__).parent.parent
sys.path.insert(0, str(REPOSITORY))

import cv2  # noqa: E402
import keras  # noqa: E402
import numpy as np  # noqa: E402
import tyro  # noqa: E402

import resize as resize_stage  # noqa: E402
import seg_predict as seg_predict_stage  # noqa: E402
import seg_train as seg_train_stage  # noqa: E402
from benchmarks.parts import EPOCHS, METHODS, NETWORKS, PREDICTED, PREDICTIONS, RESAMPLES, STEPS  # noqa: E402
from config import PRESETS  # noqa: E402
from data.batches import Batches, LazyImages  # noqa: E402
from data.images import read_mask, read_square, read_square_mask, write_image  # noqa: E402
from data.isic2017 import image_folder, image_paths, label_table, mask_folder, mask_paths  # noqa: E402
from data.lesion import lesion_box, lesion_mask, read_crop  # noqa: E402
from models import bce_dice, unet  # noqa: E402
from pipeline.fitting import augmentation, save_network  # noqa: E402

COPIES = 10  # links to each full-size file, so that the stages' fixed costs do not count
STAGES = ("seg_train", "seg_predict", "resize", "training", "cls_predict", "vote")
# As if somebody had chosen an allocator, with the value that glibc has anyway: our choice is left out, and no more.
AS_IT_IS = {"MALLOC_PERTURB_": "0"}
Part = Literal["resize", "seg_predict", "copies", "networks", "memory", "linear", "help", "published_crop"]


@dataclass(frozen=True)
class Arguments:
    full_size: Path
    """Data set with validation images and masks at their original size."""
    small: Path
    """Data set with 2000 training images of 256x256 pixels."""
    repetitions: int = 2
    """Times that every measurement is repeated, ours and the baseline's in turn."""
    only: tuple[Part, ...] = get_args(Part)
    """Parts of the table to measure."""


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


def measure_copies(data, work, repetitions):
    """What an epoch of seg_train.py costs with and without its copies."""
    preset = PRESETS["isic2017_256"]
    images = image_paths(data, "validation")
    masks = list(mask_paths(data, "validation", images).values())
    images = list(images.values())
    network = unet(preset.unet_image_size, preset.unet_blocks, preset.unet_filters, preset.unet_batch_norm)
    network.compile(keras.optimizers.Adam(preset.unet_learning_rate), bce_dice)
    for side in (preset.unet_image_size, PRESETS["isic2017"].unet_image_size):
        config = replace(preset, run_dir=work / f"copies_{side}", unet_image_size=side)
        start = time.perf_counter()
        ours = quietly(seg_train_stage.make_batches, config, "training", images, masks)
        once = time.perf_counter() - start
        baseline = Batches(
            LazyImages(partial(read_square, size=side), images),
            LazyImages(partial(read_square_mask, size=side), masks),
            batch_size=config.unet_batch_size,
            augment=augmentation(config),
            shuffle=True,
            workers=config.workers,
        )

        def read(batches, workers=config.workers):
            with ThreadPoolExecutor(workers) as pool:
                list(pool.map(batches.__getitem__, range(len(batches))))

        times = in_turn(repetitions, partial(read, ours), partial(read, baseline))
        note = (
            f"{len(images)} images of 0.8 to 12 megapixels with masks, augmented; baseline: from the full-size files; "
            f"making the copies takes {once:.3g} s, once"
        )
        row(f"`seg_train.py`, reading an epoch at {side} pixels, from copies", *times, "", note=note)
        if side == preset.unet_image_size:
            network.fit(ours, epochs=1, verbose=0)
            times = in_turn(
                repetitions, partial(network.fit, ours, verbose=0), partial(network.fit, baseline, verbose=0)
            )
            row(f"`seg_train.py`, a whole epoch at {side} pixels, from copies", *times, "", note="the same images")


def in_own_process(part, *arguments, **environment):
    """What a part of parts.py prints, and the peak resident memory of its process in MiB."""
    memory, output = peak_memory(["benchmarks/parts.py", part, *arguments], **environment)
    return json.loads(output.splitlines()[-1]), memory


def measure_networks(small, work, repetitions):
    images = dict(list(image_paths(small, "training").items())[:PREDICTED])
    for name, (side, batch_size) in NETWORKS.items():
        folder = work / f"squares_{side}"
        for image_id, mask in mask_paths(small, "training", images).items():
            write_image(folder / "images" / f"{image_id}.png", read_square(images[image_id], side))
            write_image(folder / "masks" / f"{image_id}.png", read_square_mask(mask, side), one_bit=False)
        for environment in ({}, {"TF_ENABLE_ONEDNN_OPTS": "0"}) if name in ("unet", "xception") else ({},):
            found = {"ours": [], "plain": []}
            for _ in range(repetitions):
                for part, runs in found.items():
                    runs.append(in_own_process(part, name, folder, **environment))
            without = ", without oneDNN" if environment else ""
            peaks = " and ".join(f"{median(memory for _, memory in runs):.4g}" for runs in found.values())
            alone = median(speed for result, _ in found["ours"] for speed in result["network alone"])
            notes = {
                "training": f"{side} pixels, {batch_size} a step, {STEPS} steps an epoch, epochs 2 to {EPOCHS} of "
                f"{repetitions} processes a side; read, warped and validated; baseline: `model.fit` on arrays; peaks "
                f"of memory {peaks} MiB",
                "prediction": f"{PREDICTED} images, repetitions 2 to {PREDICTIONS} of {repetitions} processes a side; "
                f"baseline: `model.predict` on arrays; ours with all images in memory, the network alone: {alone:.4g}",
            }
            for what, bar in (("training", "1.6 or more"), ("prediction", "1.2 or more")):
                speeds = [[speed for result, _ in runs for speed in result[what]] for runs in found.values()]
                row(f"{what}, {name}{without}", *speeds, bar, "images/s", notes[what])


def peak_memory(command, **environment):
    """Run a command; its peak resident memory in MiB, and what it printed."""
    program = (
        "import resource, subprocess, sys;"
        "done = subprocess.run(sys.argv[1:], check=True, stdout=subprocess.PIPE, text=True);"
        "print(done.stdout, end='');"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)"
    )
    command = [sys.executable, "-c", program, sys.executable, *map(str, command)]
    environment = {**os.environ, **environment}
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(done.stderr)
    output, _, memory = done.stdout.rstrip("\n").rpartition("\n")
    return float(memory), output


def linked_copy(small, folder, splits):
    """Data set of links to the training images, masks and labels of the small one.

    Args:
        splits: dictionary from split to its number of images; where there are fewer files, they are linked again.
    """
    images = image_paths(small, "training")
    masks = mask_paths(small, "training", images)
    header, *rows = label_table(small, "training").read_text().splitlines()
    diagnoses = {row.split(",", 1)[0]: row.split(",", 1)[1] for row in rows}
    ids = list(images)
    for split, count in splits.items():
        table = [header]
        for number in range(count):
            name, image_id = f"ISIC_{number:07d}", ids[number % len(ids)]
            link(images[image_id], image_folder(folder, split) / f"{name}.jpg")
            link(masks[image_id], mask_folder(folder, split) / f"{name}_segmentation.png")
            table.append(f"{name},{diagnoses[image_id]}")
        label_table(folder, split).write_text("\n".join(table) + "\n")
    return folder


def measure_memory(small, work):
    peaks = {}
    for count, how in ((200, {}), (2000, {}), (2000, AS_IT_IS)):
        data = work / f"data_{count}"
        if not data.exists():
            linked_copy(small, data, {"training": count, "validation": 20})
        run_dir = work / f"run_{count}_{'as_it_is' if how else 'ours'}"
        options = ["--preset", "isic2017_256", "--data-dir", data, "--run-dir", run_dir]
        options += ["--unet-image-size", 64, "--unet-filters", 8, "--unet-epochs", 1, "--image-size", 64]
        options += ["--weights", "none", "--epochs", 1, "--backbones", "resnet50", "--splits", "training", "validation"]
        for script in STAGES:
            peaks[script, count, bool(how)], _ = peak_memory([f"{script}.py", *options], **how)
    for script in STAGES:
        ours, fewer, before = ([peaks[script, *key]] for key in ((2000, False), (200, False), (2000, True)))
        row(f"peak memory of `{script}.py`, 2000 images against 200", ours, fewer, "1.10", "MiB")
        row(f"peak memory of `{script}.py`, against glibc as it is", ours, before, "1.25", "MiB", "2000 images")


def measure_linear(small, work):
    """What an image costs, and the peak memory, with ten times as many."""
    counts, found = (100_000, 10_000), {}

    def note_down(what, count, seconds, memory):
        found.setdefault(what, []).append((seconds / count, memory))

    for count in counts:
        resampled = f"figures of {METHODS} methods with intervals, {RESAMPLES} resamples"
        note_down(resampled, count, *in_own_process("bootstrap", count))
        note_down("an epoch of `Batches`, images for nothing", count, *in_own_process("batches", count))
        data, run_dir = linked_copy(small, work / f"data_{count}", {"training": count}), work / f"run_{count}"
        preset = PRESETS["isic2017_256"]
        save_network(unet(32, 2, 4), run_dir / "unet" / "unet.keras")
        options = ["--preset", preset.preset, "--data-dir", data, "--run-dir", run_dir, "--splits", "training"]
        for what in ("`seg_predict.py`, U-Net of 32 pixels", "`seg_predict.py`, nothing changed"):
            start = time.perf_counter()
            memory, _ = peak_memory(["seg_predict.py", *options])
            note_down(what, count, time.perf_counter() - start, memory)
        own = in_own_process("own_images", image_folder(data, "training"), work / f"own_{count}")
        note_down("`predict.py` but for networks and pictures", count, *own)
        for folder in (data, run_dir, work / f"own_{count}"):
            shutil.rmtree(folder)
    for what, (many, few) in found.items():
        times = [[1e3 * seconds] for seconds, _ in (many, few)]
        memory = f"peak memory {many[1]:.4g} MiB against {few[1]:.4g}"
        row(f"{what}: an image of {counts[0]:,}, against one of {counts[1]:,}", *times, "1.2", "ms", memory)


def measure_help(repetitions):
    quiet = {"cwd": REPOSITORY, "stdout": subprocess.DEVNULL, "check": True}
    empty = partial(subprocess.run, [sys.executable, "-c", "import tyro"], **quiet)
    for script in STAGES:
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
    full_size, small, repetitions = arguments.full_size.resolve(), arguments.small.resolve(), arguments.repetitions
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        data = linked_data(full_size, work / "data")
        measures = {
            "resize": partial(measure_resize, data, work, repetitions),
            "seg_predict": partial(measure_seg_predict, data, work, repetitions),
            "copies": partial(measure_copies, data, work, repetitions),
            "networks": partial(measure_networks, small, work, repetitions),
            "memory": partial(measure_memory, small, work),
            "linear": partial(measure_linear, small, work),
            "help": partial(measure_help, repetitions),
            "published_crop": partial(measure_published_crop, full_size),
        }
        for part in arguments.only:
            measures[part]()


if __name__ == "__main__":
    main()
