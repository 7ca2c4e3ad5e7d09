"""Stage 2 of 6: segment the lesion in every image of the splits.

    python seg_predict.py --preset fine_tuned

    python seg_predict.py --preset fine_tuned --data-dir data/mine --run-dir runs/mine --unet models/trained

Reads   <run-dir>/unet/unet.keras, or with --unet that network, which is copied there
        images of the splits in <data-dir>, see data/dataset.py, and their masks, if any, only to measure the overlap

Writes  <run-dir>/masks/<split>/<id>_segmentation.png    one-bit PNG, 0 or 255, as large as the image
        <run-dir>/masks/<split>/config.json              the settings they were made with
        <run-dir>/results/segmentation_<split>.csv       the challenge's metrics of each image with ground truth
        <run-dir>/results/segmentation.json              their means over each split
"""

from pipeline import command_line

if __name__ == "__main__":
    config = command_line.start(__doc__)

import shlex
import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial

import pandas as pd

from data.images import read_mask, write_image
from evaluation.bootstrap import mean_intervals
from evaluation.metrics import mask_metrics, mean_mask_metrics
from pipeline import checks, inputs
from pipeline.data_sets import data_set
from pipeline.inference import segment
from pipeline.manifest import Manifest
from pipeline.networks import load_predictor
from pipeline.paths import RunFolder
from pipeline.settings import is_given, write_settings
from utils.errors import InputError
from utils.files import atomic_write, write_json, write_table
from utils.progress import progress


def main(config):
    run = RunFolder(config.run_dir)
    if config.unet is not None:
        copy_unet(config)
    network_file = inputs.require_file(run.unet.network, "seg_train.py")
    images, truths = {}, {}
    splits = [*config.splits, *([] if config.extra_mask_dir else inputs.extra_split(config))]
    for split in splits:
        images[split], sizes = inputs.images(config, split)
        if split != "extra" and data_set(config).has_masks(split):
            truths[split] = inputs.masks(config, split, sizes)
    checks.check_splits(config)

    load = cache(partial(load_predictor, config, network_file, "seg_train.py", "unet"))
    overlap = {}
    for split in splits:
        masks = write_masks(config, split, images[split], network_file, load)
        if split in truths:
            agreements = overlaps(config, split, masks, truths[split])
            means = mean_mask_metrics(agreements)
            groups = data_set(config).groups_of(split, truths[split])
            intervals = mean_intervals(agreements, seed=config.seed, groups=groups)
            overlap[split] = {"images": len(agreements), **means, "intervals": intervals}
            print(
                f"{split}: Jaccard {means['jaccard']:.3f}, thresholded at 0.65 {means['threshold_jaccard']:.3f}, "
                f"Dice {means['dice']:.3f} (mean over {len(agreements)} images)"
            )
    with checks.lock_shared(run, run.segmentation):
        others = inputs.read_json(run.segmentation, "seg_predict.py") if run.segmentation.exists() else {}
        write_json(run.segmentation, {split: others[split] for split in others if split not in splits} | overlap)


def copy_unet(config):
    """Copy the U-Net of `Config.unet` into the run folder, with its history and settings where they lie beside it.

    Nothing is copied if that of the run folder was trained there, and the command line does not name `--unet`.

    Raises:
        InputError: if there is no such file, or the run folder holds a U-Net of its own.
    """
    source, own = config.unet, RunFolder(config.run_dir).unet
    if inputs.origin_of_unet(config) == "trained" and not is_given("unet"):
        return  # trained here after the copy that config.json names
    if source.is_dir():
        source = RunFolder(source).unet.network
    if not source.is_file() and inputs.origin_of_unet(config) == "copied" and not is_given("unet"):
        return  # copied before; config.json of the run folder names where from
    if not source.is_file():
        raise InputError(f"{source} is missing: --unet takes a file of a U-Net, or a run folder with one")
    files = {own.settings: source.with_name(own.settings.name), own.history: source.with_name(own.history.name)}
    files = {copy: file for copy, file in files.items() if file.is_file()} | {own.network: source}
    if source.resolve() == own.network.resolve():
        return
    # `checkpoints` protects a U-Net that was trained in this run folder.
    manifest = Manifest(
        config,
        "unet",
        "copied",
        f"seg_predict.py --unet {shlex.quote(str(config.unet))}",
        {"U-Net": files.values()},
        files,
        checkpoints=own.checkpoints,
        obsolete=[own.settings, own.history],
    )
    if not manifest.up_to_date():
        manifest.begin()
        for copy, file in files.items():
            with atomic_write(copy) as part:
                shutil.copyfile(file, part)
        manifest.finish()
        print(f"copied {source} to {own.network}")


def write_masks(config, split, images, network_file, load):
    """Segment the images of a split whose masks are not there yet, or all, if something changed.

    Args:
        images: dictionary from image id to path.
        network_file: file of the U-Net.
        load: function that loads it.

    Returns:
        Dictionary from image id to the file of its mask.
    """
    run = RunFolder(config.run_dir)
    files = {image_id: run.mask(split, image_id) for image_id in images}
    made_from = {"U-Net": [network_file], "images": images.values()}
    outputs = [*files.values(), run.masks_settings(split)]
    manifest = Manifest(config, f"masks_{split}", "masks", "seg_predict.py", made_from, outputs, one_by_one=True)
    if manifest.up_to_date():
        return files
    network = load()
    manifest.begin()
    write_settings(config, run.masks_settings(split))
    missing = {images[image_id]: file for image_id, file in files.items() if not file.exists()}

    masks = segment(
        network,
        list(missing),
        lambda path, mask: write_image(missing[path], mask),
        config.unet_batch_size,
        config.workers,
        config.mask_sigma,
        config.mask_threshold,
    )
    for _ in progress(masks, split, len(missing)):
        pass
    manifest.finish()
    source = data_set(config, split).folder
    print(f"read {len(missing)} {split} images from {source}, wrote their masks to {run.masks(split)}")
    return files


def overlaps(config, split, masks, truths):
    """Figures of each mask of a split, measured anew only if a mask or its ground truth changed.

    Args:
        masks, truths: dictionaries from image id to the file of the predicted mask and of the true one; only images
            that have both are measured.

    Returns:
        List of dictionaries, see `evaluation.metrics.mask_metrics`, in the order of `truths`.
    """
    file = RunFolder(config.run_dir).segmentation_table(split)
    pairs = [(masks[image_id], truth) for image_id, truth in truths.items()]
    made_from = {"masks": masks.values(), "ground truth": truths}
    manifest = Manifest(config, f"segmentation_{split}", "overlap", "seg_predict.py", made_from, [file])
    if not manifest.up_to_date():
        with ThreadPoolExecutor(config.workers) as pool:
            measured = pool.map(lambda pair: mask_metrics(*map(read_mask, pair)), pairs)
            figures = list(progress(measured, f"{split} overlap", len(pairs)))
        manifest.begin()
        write_table(file, pd.DataFrame({"image_id": list(truths)}).join(pd.DataFrame(figures)))
        manifest.finish()
    return pd.read_csv(file, encoding_errors="surrogateescape").drop(columns="image_id").to_dict("records")


if __name__ == "__main__":
    command_line.run(main, config)
