"""Stage 5 of 6: predict the diagnosis of every crop with one classifier; run it once for each backbone.

    python cls_predict.py --preset fine_tuned --backbone-name xception
    python cls_predict.py --preset fine_tuned --backbone-name xception --folds 5    # and with its fold networks

Reads   <run-dir>/backbones/<backbone>/model.keras, classes.json
        <run-dir>/crops/<split>/<id>.png
        labels in <data-dir>, if any, to print figures
        <run-dir>/folds.csv, backbones/<backbone>/fold_<k>/{model.keras,held_out.csv}    with --folds

Writes  <run-dir>/predictions/<backbone>_<split>.csv          image_id and one column per class
        <run-dir>/predictions/<backbone>_training_oof.csv     with --folds: the training images, each predicted by a
                                                              network that has not seen it (out of fold)
        <run-dir>/predictions/<backbone>_folds_<split>.csv    with --folds: the other splits, by the mean of the fold
                                                              networks
        <run-dir>/predictions/<backbone>_config.json          the settings they were made with
"""

from pipeline import command_line

if __name__ == "__main__":
    config = command_line.start(__doc__)

from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from data.images import read_image
from data.lesion import without_border
from data.official import SPLITS
from data.probabilities import read_probabilities, write_probabilities
from data.tables import read_table
from evaluation.metrics import summary
from evaluation.tables import OUT_OF_FOLD
from pipeline import checks, inputs
from pipeline.data_sets import data_set
from pipeline.inference import infer
from pipeline.manifest import Manifest
from pipeline.networks import load_predictor
from pipeline.paths import RunFolder
from pipeline.settings import write_settings
from utils.errors import InputError
from utils.progress import progress, wrapped


@dataclass(frozen=True)
class Table:
    """A table of predictions, and what it is made from."""

    file: Path
    crops: dict[str, Path]
    """From image id to crop."""
    labels: Any
    """One-hot array (images, classes), or None."""
    description: str
    """Words before its figures in the printed line."""
    fold_of: dict[str, int] = field(default_factory=dict)
    """From image id to the fold whose network alone predicts it; where it is empty, the mean of all networks does."""


def main(config):
    name, options = config.backbone_name, f"--backbone-name {config.backbone_name}"
    run = RunFolder(config.run_dir)
    network_file = inputs.require_file(run.backbone(name).network, f"training.py {options}")
    images = {split: inputs.images(config, split)[0] for split in config.splits}
    labels = {split: inputs.labels(config, split, images[split]) for split in config.splits}
    crops = {split: crops_by_id(config, split, images[split]) for split in config.splits}
    trained_by = f"training.py {options}{' --fold 0' if config.folds else ''}"  # not those of the folds too
    load = cache(partial(load_predictor, config, script=trained_by, name=name, classes=data_set(config).classes))
    for split in config.splits:
        file = run.predictions(name, split)
        made_from = {"network": [network_file], "crops": crops[split].values()}
        record, remedy = f"predictions_{name}_{split}", f"cls_predict.py {options}"
        manifest = Manifest(config, record, "predictions", remedy, made_from, [file])
        table = Table(file, crops[split], labels[split], f"on {split}")
        done = f"read {len(crops[split])} {split} crops, wrote {file}"
        make_tables(config, manifest, {0: network_file}, [table], load, done)
    if config.folds:
        predict_with_folds(config, labels, crops)


def predict_with_folds(config, labels, crops):
    """Predict with the fold networks: each training image with the one that it was held out from, the images of every
    other split with the mean of all of them.

    Args:
        config: the settings.
        labels, crops: dictionaries from split to one-hot labels (or None), and to the crops by image id.

    Raises:
        InputError: if such a network is missing, or was trained on other folds.
    """
    name, options = config.backbone_name, f"--backbone-name {config.backbone_name} --folds {config.folds}"
    images = inputs.images(config, "training")[0]
    known = inputs.labels(config, "training", images, required=True)
    held_out_crops = crops_by_id(config, "training", images)
    fold_of = inputs.folds(config, [image_id for image_id, label in zip(images, known, strict=True) if label.any()])
    networks = fold_networks(config, fold_of, f"training.py {options}")
    run = RunFolder(config.run_dir)
    table = Table(run.predictions(name, "training_oof"), held_out_crops, known, "out of fold", fold_of)
    tables = {"training": table}
    for split in (split for split in config.splits if split != "training"):
        file, description = run.predictions(name, f"folds_{split}"), f"by the mean of its folds on {split}"
        tables[split] = Table(file, crops[split], labels[split], description)
    made_from = {"networks": networks.values()}
    made_from |= {f"{split} crops": table.crops.values() for split, table in tables.items()}
    made_from |= {"folds": [run.folds]}
    files = [table.file for table in tables.values()]
    # Tables of splits that this call does not make may be by former networks.
    obsolete = [run.predictions(name, f"folds_{split}") for split in SPLITS]
    manifest = Manifest(
        config,
        f"predictions_{name}_folds",
        "predictions",
        f"cls_predict.py {options}",
        made_from,
        files,
        obsolete=obsolete,
    )
    load = partial(load_predictor, config, script=f"training.py {options}", name=name, classes=data_set(config).classes)
    read, wrote = ", ".join(tables), ", ".join(file.stem for file in files)
    done = f"read {config.folds} networks and the crops of {read}, wrote {wrote}"
    make_tables(config, manifest, networks, list(tables.values()), load, done)
    if config.masks == "predicted":
        print(wrapped(OUT_OF_FOLD))


def fold_networks(config, fold_of, script):
    """Find the networks of the folds.

    Args:
        config: the settings.
        fold_of: dictionary from the id of each training image to its fold.
        script: what trains them.

    Returns:
        Dictionary from fold to file.

    Raises:
        InputError: if one is missing, or was trained on other folds.
    """
    networks = {}
    for fold in range(1, config.folds + 1):
        trained = RunFolder(config.run_dir).backbone(config.backbone_name, fold)
        networks[fold] = inputs.require_file(trained.network, script)
        unseen = read_table(inputs.require_file(trained.held_out, script), ["image_id"])
        if list(unseen.index) != [image_id for image_id in fold_of if fold_of[image_id] == fold]:
            raise InputError(
                f"{trained.folder} was trained on other folds than those of folds.csv: "
                f"run `python {script} --fold {fold} --overwrite`"
            )
    return networks


def crops_by_id(config, split, image_ids):
    """Dictionary from image id to the path of its crop; see `pipeline.inputs.crop_paths`."""
    return dict(zip(image_ids, inputs.crop_paths(config, split, image_ids), strict=True))


def make_tables(config, manifest, networks, tables, load, done):
    """Make tables of predictions unless they are up to date, and print their figures.

    Args:
        config: the settings.
        manifest: the `Manifest` of the tables.
        networks: dictionary from fold to the file of its network; 0 is the one of all training images.
        tables: list of `Table`.
        load: function that loads such a file.
        done: the line to print once they are made.
    """
    classes = data_set(config).classes
    if not manifest.up_to_date():
        sums = [dict.fromkeys(table.crops, 0.0) for table in tables]
        for fold, file in networks.items():
            network = load(file)
            for table in tables:
                checks.check_crops(table.crops.values(), network.input_shape[1], config)
            for table, sums_of in zip(tables, sums, strict=True):
                for image_id, probabilities in probabilities_of(config, network, table, fold):
                    sums_of[image_id] = sums_of[image_id] + probabilities
        manifest.begin()  # not before: what stands is not given up for a network or a crop that is damaged
        for table, sums_of in zip(tables, sums, strict=True):
            # It divides the probabilities of each image by their sum.
            write_probabilities(table.file, table.crops, list(sums_of.values()), classes)
        if 0 in networks:
            write_settings(config, RunFolder(config.run_dir).predictions_settings(config.backbone_name))
        manifest.finish()
        print(wrapped(done))
    for table in tables:
        if table.labels is not None and table.labels.any():
            known, probabilities = table.labels.any(axis=1), read_probabilities(table.file, table.crops, classes)
            figures = summary(table.labels[known], probabilities[known], classes)
            print(wrapped(f"{config.backbone_name} {table.description}: {figures}"))


def probabilities_of(config, network, table, fold):
    """Pairs of the id of each image that a fold's network is to predict and its probabilities (classes,), float64."""
    crop_of = {i: crop for i, crop in table.crops.items() if table.fold_of.get(i, fold) == fold}
    crops, size = list(crop_of.values()), network.input_shape[1]
    outputs = infer(
        network, lambda path: without_border(read_image(path), size), crops, config.batch_size, config.workers
    )
    outputs = progress(outputs, config.backbone_name, len(crops))
    return zip(crop_of, (probabilities.astype(np.float64) for probabilities in outputs), strict=True)


if __name__ == "__main__":
    command_line.run(main, config)
