"""Stage 4 of 6: train one classifier on the crops; run it once for each backbone.

    python training.py --preset isic2017_256 --backbone-name xception

Reads   <run-dir>/crops/{training,validation}/<id>.png
        <data-dir>/ISIC-2017_{Training,Validation}_Part3_GroundTruth.csv

Writes  <run-dir>/backbones/<backbone>/model.keras    the network with the weights of its best validation loss
        <run-dir>/backbones/<backbone>/history.csv    losses and accuracies, a row an epoch
        <run-dir>/backbones/<backbone>/config.json    the settings it was trained with
"""

from functools import partial
from pathlib import Path

import stage
from made import Made

# Settings on which a trained network depends.
SETTINGS = [
    *("backbone_name", "image_size", "weights", "se_", "head_", "batch_norm_momentum", "learning_rate", "batch_size"),
    *("epochs", "early_stopping_patience", "class_weights", "augment_", "seed", "mixed_precision"),
]


def main(config):
    from data.isic2017 import CLASSES, label_table

    labels, crops = {}, {}
    for split in ("training", "validation"):
        images, _ = stage.images(config, split)
        labels[split] = stage.labels(config, split, images, required=True)
        crops[split] = stage.crop_paths(config, split, images)
        stage.check_crops(crops[split], config.image_size, config.workers)
        counts = ", ".join(f"{int(n)} {name}" for name, n in zip(CLASSES, labels[split].sum(axis=0), strict=True))
        print(f"read {len(images)} {split} crops ({counts}) from {config.run_dir}/crops/{split}")
    folder = config.run_dir / "backbones" / config.backbone_name
    checkpoints = folder / "checkpoints"
    files = {f"{split} crops": crops[split] for split in crops}
    files |= {f"{split} labels": [label_table(config.data_dir, split)] for split in labels}
    files["weight files"] = Path(config.weights).glob("*.h5")
    outputs = [folder / "config.json", folder / "history.csv", folder / "model.keras"]
    made = Made(config, config.backbone_name, SETTINGS, files, outputs, checkpoints)
    if made.up_to_date():
        return

    import keras

    from data.augment import random_warp
    from data.batches import Batches, Lazy
    from data.files import whole_file
    from data.images import read_image
    from evaluation.metrics import summary
    from models.backbones import classifier
    from models.fitting import fit, save_network

    keras.utils.set_random_seed(config.seed)
    stage.set_precision(config)
    augment = partial(
        random_warp, flips=config.augment_flips, rotation=config.augment_rotation, shift=config.augment_shift
    )
    batches = {
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
    print(f"training {config.backbone_name} of {network.count_params():,} parameters at {config.image_size} pixels")
    class_weight = None
    if config.class_weights == "balanced":
        counts = labels["training"].sum(axis=0).clip(min=1)
        class_weight = dict(enumerate(counts.sum() / (len(counts) * counts)))
    made.begin()
    history = fit(
        network,
        batches["training"],
        batches["validation"],
        config.epochs,
        checkpoints,
        patience=config.early_stopping_patience,
        class_weight=class_weight,
    )

    stage.save_settings(config, folder / "config.json")
    with whole_file(folder / "history.csv") as part:
        history.to_csv(part, index=False)
    save_network(network, folder / "model.keras")
    print(f"wrote {folder}/model.keras, history.csv and config.json")
    probabilities = network.predict(batches["validation"], verbose=0)
    print(f"validation: {summary(labels['validation'], probabilities)}")
    made.finish()


if __name__ == "__main__":
    stage.run(main, __doc__)
