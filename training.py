"""Stage 4 of 6: train one classifier on the crops; run it once for each backbone.

    python training.py --preset isic2017_256 --backbone-name xception
    python training.py --preset isic2017_256 --backbone-name xception --folds 5    # and its five fold networks

Reads   <run-dir>/crops/{training,validation}/<id>.png
        <data-dir>/ISIC-2017_{Training,Validation}_Part3_GroundTruth.csv
        <data-dir>/ISIC-2017_Training_Data/*.jpg    their pixels only with --folds: identical images share a fold

Writes  <run-dir>/backbones/<backbone>/model.keras    the network with the weights of its best validation loss
        <run-dir>/backbones/<backbone>/history.csv    losses and accuracies, a row an epoch
        <run-dir>/backbones/<backbone>/config.json    the settings it was trained with
        <run-dir>/folds.csv                           with --folds: image_id,fold of the training images
        <run-dir>/backbones/<backbone>/fold_<k>/      the same files of a network trained without fold k, and
                                                      held_out.csv, the image_id of what it has not seen
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import stage
from made import Made

# Settings on which a trained network depends; which images a fold leaves shows in its crops.
SETTINGS = [
    *("backbone_name", "image_size", "weights", "se_", "head_", "batch_norm_momentum", "learning_rate", "batch_size"),
    *("epochs", "early_stopping_patience", "class_weights", "augment_", "seed", "mixed_precision"),
]


def main(config):
    from data.isic2017 import CLASSES

    images, labels, crops = {}, {}, {}
    for split in ("training", "validation"):
        images[split], _ = stage.images(config, split)
        labels[split] = stage.labels(config, split, images[split], required=True)
        crops[split] = stage.crop_paths(config, split, images[split])
        stage.check_crops(crops[split], config.image_size, config.workers)
        counts = ", ".join(f"{int(n)} {name}" for name, n in zip(CLASSES, labels[split].sum(axis=0), strict=True))
        print(f"read {len(images[split])} {split} crops ({counts}) from {config.run_dir}/crops/{split}")
    fold_of = stage.folds(config, images["training"], labels["training"])
    networks = untrained_networks(config)
    for fold in [config.fold] if config.fold else range(config.folds + 1):  # nothing is in fold 0
        kept = [row for row, image_id in enumerate(images["training"]) if fold_of.get(image_id) != fold]
        held_out = [image_id for image_id in images["training"] if fold_of.get(image_id) == fold]
        kept_crops = [crops["training"][row] for row in kept]
        train(
            replace(config, fold=fold),
            {**crops, "training": kept_crops},
            {**labels, "training": labels["training"][kept]},
            held_out,
            networks,
        )


def train(config, crops, labels, held_out, networks):
    """Train the network of one fold, or of all images (fold 0), unless it is up to date.

    Args:
        config: the settings, with the fold.
        crops, labels: dictionaries from "training" and "validation" to paths and one-hot labels.
        held_out: ids of the training images that are not among them.
        networks: iterator of compiled networks to train.
    """
    from data.isic2017 import label_table

    folder = stage.backbone_folder(config, config.fold)
    checkpoints = folder / "checkpoints"
    files = {f"{split} crops": crops[split] for split in crops}
    files |= {f"{split} labels": [label_table(config.data_dir, split)] for split in labels}
    files["weight files"] = Path(config.weights).glob("*.h5")
    outputs = [folder / "config.json", folder / "history.csv", folder / "model.keras"]
    outputs += [folder / "held_out.csv"] if config.fold else []
    name = f"{config.backbone_name}_fold_{config.fold}" if config.fold else config.backbone_name
    made = Made(config, name, SETTINGS, files, outputs, checkpoints)
    if made.up_to_date():
        return

    import pandas as pd

    from data.files import whole_file
    from evaluation.metrics import summary
    from models.fitting import fit, save_network

    network = next(networks)
    batches = make_batches(config, crops, labels)
    without = f", without the {len(held_out)} images of fold {config.fold}" if config.fold else ""
    print(f"training {config.backbone_name} of {network.count_params():,} parameters", end=" ")
    print(f"on {len(crops['training'])} crops of {config.image_size} pixels{without}")
    made.begin()
    history = fit(
        network,
        batches["training"],
        batches["validation"],
        config.epochs,
        checkpoints,
        patience=config.early_stopping_patience,
        class_weight=class_weights(labels["training"]) if config.class_weights == "balanced" else None,
    )
    stage.save_settings(config, folder / "config.json")
    with whole_file(folder / "history.csv") as part:
        history.to_csv(part, index=False)
    if config.fold:
        with whole_file(folder / "held_out.csv") as part:
            pd.DataFrame({"image_id": held_out}).to_csv(part, index=False)
    save_network(network, folder / "model.keras")
    print(f"wrote {folder}/model.keras, history.csv and config.json")
    probabilities = network.predict(batches["validation"], verbose=0)
    print(f"validation: {summary(labels['validation'], probabilities)}")
    made.finish()


def make_batches(config, crops, labels):
    """Batches of both splits, those of the training split augmented and in random order."""
    from data.augment import random_warp
    from data.batches import Batches, Lazy
    from data.images import read_image

    augment = partial(
        random_warp, flips=config.augment_flips, rotation=config.augment_rotation, shift=config.augment_shift
    )
    return {
        split: Batches(
            Lazy(read_image, crops[split]),
            labels[split],
            batch_size=config.batch_size,
            augment=augment if split == "training" else None,
            shuffle=split == "training",
            seed=config.seed,
            workers=config.workers,
        )
        for split in crops
    }


def untrained_networks(config):
    """Yield the compiled classifier, untrained, as often as one is wanted.

    It is the same one every time, with all its variables set back. TensorFlow never frees a training step: its registry
    of gradients holds the optimizer's sum over devices, and by it the graph, the weights and Adam's moments.
    """
    import keras
    import numpy as np

    keras.utils.set_random_seed(config.seed)
    stage.set_precision(config)
    network = make_network(config)
    if config.fold or not config.folds:  # one network is all: spare the memory of a copy
        yield network
        return
    network.optimizer.build(network.trainable_variables)
    variables = [*network.variables, *network.optimizer.variables]
    start = [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]
    while True:
        yield network
        for variable, value in zip(variables, start, strict=True):
            variable.assign(value)


def make_network(config):
    """The compiled classifier."""
    import keras

    from data.isic2017 import CLASSES
    from models.backbones import classifier

    network = classifier(
        config.backbone_name,
        config.image_size,
        len(CLASSES),
        config.weights,
        config.se_position,
        config.se_ratio,
        config.head_units,
        config.head_l1,
        config.head_dropout,
        config.batch_norm_momentum,
    )
    network.compile(
        optimizer=keras.optimizers.Adam(config.learning_rate), loss="categorical_crossentropy", metrics=["accuracy"]
    )
    return network


def class_weights(labels):
    """Dictionary from class index to a weight by the inverse of its frequency, 1 if all are equally frequent."""
    counts = labels.sum(axis=0).clip(min=1)
    return dict(enumerate(counts.sum() / (len(counts) * counts)))


if __name__ == "__main__":
    stage.run(main, __doc__)
