"""Stage 4 of 6: train one classifier on the crops; run it once for each backbone.

    python training.py --preset isic2017_256 --backbone-name xception
    python training.py --preset isic2017_256 --backbone-name xception --folds 5    # and its five fold networks

Reads   <run-dir>/crops/{training,validation}/<id>.png    and of the extra split, with --extra-data-dir
        <data-dir>/ISIC-2017_{Training,Validation}_Part3_GroundTruth.csv, the table in <extra-data-dir>
        <data-dir>/ISIC-2017_*_Data/*.jpg    only to compare them: none may be in two splits, alike ones share a fold

Writes  <run-dir>/backbones/<backbone>/model.keras    the network with its best weights on the validation split
        <run-dir>/backbones/<backbone>/history.csv    losses and figures of merit, a row an epoch
        <run-dir>/backbones/<backbone>/config.json    the settings it was trained with
        <run-dir>/folds.csv                           with --folds: image_id,fold of the training images
        <run-dir>/backbones/<backbone>/fold_<k>/      the same files of a network trained without fold k, and
                                                      held_out.csv, the image_id of what it has not seen
"""

import zlib
from dataclasses import replace

from data.errors import InputError
from pipeline import command_line, inputs
from pipeline.logs import need_tensorboard, tensorboard_folder
from pipeline.made import Made


def main(config):
    from data.isic2017 import CLASSES

    need_tensorboard(config)
    images, labels, crops = {}, {}, {}
    for split in ("training", "validation", *inputs.extra_split(config)):
        images[split], _ = inputs.images(config, split)
        labels[split] = inputs.labels(config, split, images[split], required=True)
        crops[split] = inputs.crop_paths(config, split, images[split])
        inputs.check_crops(crops[split], config.image_size, config)
        counts = ", ".join(f"{int(n)} {name}" for name, n in zip(CLASSES, labels[split].sum(axis=0), strict=True))
        print(f"read {len(images[split])} {split} crops ({counts}) from {config.run_dir}/crops/{split}")
    check_watched(config, labels["validation"])
    inputs.check_splits(config)
    fold_of = inputs.folds(config, images["training"], labels["training"])
    networks = untrained_networks(config)
    for fold in range(config.folds + 1) if config.fold is None else [config.fold]:  # nothing is in fold 0
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


def check_watched(config, labels):
    """Refuse to watch the area under the curve where one-hot labels (images, 3) of validation define none.

    Raises:
        InputError: naming the setting.
    """
    from data.isic2017 import TASKS

    shares = labels.mean(axis=0)[: len(TASKS)]
    if config.watch == "auc" and not ((shares > 0) & (shares < 1)).any():
        raise InputError("watch = auc, but the validation labels define no area under a curve: give another --watch")


def train(config, crops, labels, held_out, networks):
    """Train the network of one fold, or of all images (fold 0), unless it is up to date.

    Args:
        config: the settings, with the fold.
        crops, labels: dictionaries from "training", "validation" and, with further images, "extra" to paths and one-hot
            labels.
        held_out: ids of the training images that are not among them.
        networks: iterator over what `untrained_networks` yields.
    """
    from data.extra import data_set
    from data.isic2017 import label_table

    folder = inputs.backbone_folder(config, config.fold)
    checkpoints = folder / "checkpoints"
    files = {f"{split} crops": crops[split] for split in crops}
    files |= {f"{split} labels": [label_table(config.data_dir, split)] for split in ("training", "validation")}
    files["extra labels"] = [data_set(config.extra_data_dir).table(config.extra_data_dir)] if "extra" in crops else []
    files["weight files"] = inputs.weight_files(config, config.backbone_name)
    outputs = [folder / "config.json", folder / "history.csv", folder / "model.keras"]
    outputs += [folder / "held_out.csv"] if config.fold else []
    name, script = config.backbone_name, f"training.py --backbone-name {config.backbone_name}"
    if config.fold:
        name, script = f"{name}_fold_{config.fold}", f"{script} --folds {config.folds} --fold {config.fold}"
    made = Made(config, name, "classifier", script, files, outputs, checkpoints=checkpoints)
    if made.up_to_date():
        return

    import pandas as pd

    from data.files import whole_file
    from pipeline.fitting import save_trained

    network, head = next(networks)
    for model in filter(None, (network, head)):
        model.drawn_over_true.assign(drawn_over_true(config, labels))
    batches = make_batches(config, crops, labels)
    without = f", without the {len(held_out)} images of fold {config.fold}" if config.fold else ""
    parameters = sum(layer.count_params() for layer in network.layers)
    print(f"training {config.backbone_name} of {parameters:,} parameters", end=" ")
    print(f"on {len(crops['training'])} crops of {config.image_size} pixels{without}")
    made.begin()
    weights = class_weights(labels["training"]) if config.class_weights == "balanced" else None
    logs = tensorboard_folder(config, name, checkpoints)
    history = fit_in_phases(config, network, head, batches, checkpoints, weights, logs)
    if config.fold:
        with whole_file(folder / "held_out.csv") as part:
            pd.DataFrame({"image_id": held_out}).to_csv(part, index=False, errors="surrogateescape")
    save_trained(network, history, config, folder / "model.keras")
    made.finish()


def fit_in_phases(config, network, head, batches, checkpoints, class_weight, logs=None):
    """Train the head alone if that is asked for, then everything; the history of both."""
    import pandas as pd

    from pipeline.fitting import fit, warmup_and_cosine

    options = {"watch": f"val_{config.watch}", "class_weight": class_weight}
    histories = []
    if head is not None:
        freeze_backbone(network)
        folders = {"folder": checkpoints / "head", "logs": logs and logs / "head"}
        histories.append(fit(head, *batches.values(), config.frozen_epochs, **folders, **options))
        freeze_backbone(network, frozen=False)
    schedule = []
    if config.lr_schedule == "cosine":
        schedule = [warmup_and_cosine(config.learning_rate, config.epochs, config.warmup_epochs)]
    options |= {"patience": config.early_stopping_patience, "callbacks": schedule}
    histories.append(fit(network, *batches.values(), config.epochs, checkpoints, logs=logs, **options))
    history = pd.concat(histories, ignore_index=True)
    return history.assign(epoch=history.index + 1)


def make_batches(config, crops, labels):
    """Batches of the training split, augmented and in random order, and of the validation split."""
    import numpy as np

    from data.batches import Batches, Lazy
    from data.images import read_image
    from data.lesion import border_pixels, without_border
    from pipeline.fitting import augmentation

    border = border_pixels(config.image_size, config.crop_border)
    # Networks that saw the same warps in the same order would be more alike in their errors than they need be.
    seed = zlib.crc32(f"{config.seed} {config.backbone_name} {config.fold}".encode())
    drawn = [split for split in ("training", "extra") if split in crops]
    kept = config.in_memory
    validation_crops = Lazy(lambda path: without_border(read_image(path), config.image_size), crops["validation"], kept)
    return {
        "training": Batches(
            Lazy(read_image, [path for split in drawn for path in crops[split]], kept),
            np.concatenate([labels[split] for split in drawn]),
            batch_size=config.batch_size,
            augment=augmentation(config, border, config.augment_cutout),
            shuffle=True,
            weights=sample_weights(config, labels),
            per_epoch=len(crops["training"]) + (config.extra_per_epoch if "extra" in crops else 0),
            seed=seed,
            workers=config.workers,
        ),
        "validation": Batches(
            validation_crops, labels["validation"], batch_size=config.batch_size, workers=config.workers
        ),
    }


def sample_weights(config, labels):
    """How often each training image, then each further one, is to be drawn in an epoch; None for each of them once."""
    import numpy as np

    if not config.sampling_power and "extra" not in labels:
        return None
    per_epoch = {"training": len(labels["training"]), "extra": config.extra_per_epoch}
    weights = []
    for split in ("training", "extra"):
        if split in labels:
            wanted = labels[split] @ labels[split].mean(axis=0).clip(min=1e-9) ** -config.sampling_power
            weights.append(wanted * per_epoch[split] / wanted.sum())
    return np.concatenate(weights)


def drawn_over_true(config, labels):
    """For each class its share of the images drawn over its share of the training images; see `sample_weights`."""
    import numpy as np

    weights = sample_weights(config, labels)
    if weights is None:
        return np.ones(labels["training"].shape[1])
    everything = np.concatenate([labels[split] for split in ("training", "extra") if split in labels])
    drawn, true = weights @ everything / weights.sum(), labels["training"].mean(axis=0)
    return np.divide(drawn, true, out=np.ones_like(drawn), where=true > 0)


def untrained_networks(config):
    """Yield the compiled classifier, a `PriorCorrected` model, untrained, as often as one is wanted.

    It is the same one every time, with all its variables set back. TensorFlow never frees a training step: its registry
    of gradients holds the optimizer's sum over devices, and by it the graph, the weights and Adam's moments.

    Yields:
        The network, and the same one compiled to train its head while the backbone is frozen; None in place of that if
        no epoch is for the head alone.
    """
    import keras
    import numpy as np

    from models.cross_entropy import PriorCorrected
    from pipeline.devices import set_devices_and_precision

    keras.utils.set_random_seed(config.seed)
    set_devices_and_precision(config)
    made = make_network(config)
    network, head = PriorCorrected(made.input, made.output, name=made.name), None
    compile_network(network, config)
    network.optimizer.build(network.trainable_variables)
    optimizers = [network.optimizer]
    if config.frozen_epochs:
        head = PriorCorrected(made.input, made.output, name="head")
        compile_network(head, config, frozen=True)
        freeze_backbone(network)
        head.optimizer.build(network.trainable_variables)
        freeze_backbone(network, frozen=False)
        optimizers.append(head.optimizer)
    if config.fold is not None or not config.folds:  # one network is all: spare the memory of a copy
        yield network, head
        return
    variables = [*network.variables, *(variable for optimizer in optimizers for variable in optimizer.variables)]
    start = [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]
    while True:
        yield network, head
        for variable, value in zip(variables, start, strict=True):
            variable.assign(value)


def make_network(config):
    """The classifier, not yet compiled."""
    from data.isic2017 import CLASSES
    from models.backbones import classifier

    return classifier(
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
        config.se_lr_factor,
    )


def compile_network(network, config, frozen=False):
    """Give a network its optimizer, loss and metrics.

    Args:
        network: the classifier.
        config: the settings.
        frozen: for the epochs in which the backbone is frozen: Adam alone, at a learning rate of its own.
    """
    import keras

    from data.isic2017 import CLASSES, TASKS
    from models.cross_entropy import MeanAUC

    if frozen:
        optimizer = keras.optimizers.Adam(config.frozen_learning_rate)
    else:
        optimizer = keras.optimizers.Adam(
            config.learning_rate,
            weight_decay=config.weight_decay or None,
            use_ema=config.ema_momentum > 0,
            ema_momentum=config.ema_momentum or 0.99,  # the value is checked even where it is not used
        )
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=config.label_smoothing)
    metrics = [
        keras.metrics.CategoricalAccuracy(name="accuracy"),
        keras.metrics.CategoricalCrossentropy(name="cross_entropy"),
        # Mean of the challenge's two tasks; a thousand thresholds agree with all of them to three digits.
        MeanAUC(len(TASKS), len(CLASSES)),
    ]
    network.compile(optimizer=optimizer, loss=loss, metrics=metrics)


def freeze_backbone(network, frozen=True):
    """Keep all layers but the head and the squeeze-and-excitation blocks as they are, or let them learn again.

    A frozen batch normalisation also leaves its moving statistics alone, and normalises by them.
    """
    from models import SqueezeExcitation

    for layer in network.layers:
        if layer.name not in ("hidden", "diagnosis") and not isinstance(layer, SqueezeExcitation):
            layer.trainable = not frozen


def class_weights(labels):
    """Dictionary from class index to a weight by the inverse of its frequency, 1 if all are equally frequent."""
    counts = labels.sum(axis=0).clip(min=1)
    return dict(enumerate(counts.sum() / (len(counts) * counts)))


if __name__ == "__main__":
    command_line.run(main, __doc__)
