"""Stage 4 of 6: train one classifier on the crops; run it once for each backbone.

    python training.py --preset fine_tuned --backbone-name xception
    python training.py --preset fine_tuned --backbone-name xception --folds 5    # and its five fold networks

Reads   <run-dir>/crops/{training,validation}/<id>.png    and of the extra split, with --extra-data-dir
        the labels of these splits in <data-dir> and <extra-data-dir>, see data/dataset.py
        the images of <data-dir>    only to find the same picture in two splits, and similar ones for the folds

Writes  <run-dir>/backbones/<backbone>/model.keras    the network with its best weights on the validation split
        <run-dir>/backbones/<backbone>/history.csv    losses and metrics, one row per epoch
        <run-dir>/backbones/<backbone>/config.json    the settings it was trained with
        <run-dir>/backbones/<backbone>/classes.json   names of its classes
        <run-dir>/folds.csv                           with --folds: image_id,fold of the training images
        <run-dir>/backbones/<backbone>/fold_<k>/      the same files of a network trained without fold k, and
                                                      held_out.csv, the ids of the images that it has not seen
"""

from pipeline import command_line

if __name__ == "__main__":
    config = command_line.start(__doc__)

import zlib
from dataclasses import replace

import keras
import numpy as np
import pandas as pd

from data.batches import Batches, LazyImages
from data.classes import tasks_of
from data.folds import assign_folds, read_folds, write_folds
from data.images import read_image
from data.lesion import border_pixels, without_border
from models.backbones import HEAD_LAYERS, classifier
from models.cross_entropy import MeanAUC, PriorCorrected
from models.variables import copy_values, set_values
from pipeline import checks, inputs
from pipeline.data_sets import data_set, label_files
from pipeline.devices import set_devices_and_precision
from pipeline.fitting import augmentation, fit, save_trained, warmup_and_cosine
from pipeline.logs import need_tensorboard, tensorboard_folder
from pipeline.manifest import Manifest
from pipeline.paths import HEAD_CHECKPOINTS, RunFolder
from utils.errors import InputError
from utils.files import write_json, write_table
from utils.progress import wrapped


def main(config):
    need_tensorboard(config)
    images, labels, crops, classes = {}, {}, {}, data_set(config).classes
    splits = ["training", "validation", *inputs.extra_split(config)]
    label_texts = read_label_files(config, splits)
    for split in splits:
        images[split], _ = inputs.images(config, split)
        images[split], labels[split] = labelled(config, split, images[split])
        crops[split] = inputs.crop_paths(config, split, images[split])
        checks.check_crops(crops[split], config.image_size, config)
        counts = ", ".join(f"{int(n)} {name}" for name, n in zip(classes, labels[split].sum(axis=0), strict=True))
        folder = RunFolder(config.run_dir).crops(split)
        print(wrapped(f"read {len(images[split])} {split} crops ({counts}) from {folder}"))
    check_labels(config, classes, labels)
    checks.check_splits(config)
    fold_of = make_folds(config, images["training"], labels["training"]) if config.folds else {}
    reused_classifier = ReusedClassifier(config)
    folds = range(config.folds + 1) if config.fold is None else [config.fold]  # 0 holds nothing out
    for fold in folds:
        training_rows = [row for row, image_id in enumerate(images["training"]) if fold_of.get(image_id) != fold]
        held_out = [image_id for image_id in images["training"] if fold_of.get(image_id) == fold]
        if read_label_files(config, splits) != label_texts:  # otherwise the record would name other labels
            raise InputError(f"the labels in {config.data_dir} changed during training: run the same command again")
        train(
            replace(config, fold=fold),
            {**crops, "training": [crops["training"][row] for row in training_rows]},
            {**labels, "training": labels["training"][training_rows]},
            held_out,
            reused_classifier,
        )


def read_label_files(config, splits):
    """Contents of the files of the labels of some splits."""
    return [file.read_bytes() for split in splits for file in label_files(config, split)]


def labelled(config, split, images):
    """The images that have a label, as a dictionary to their paths, and their one-hot labels (images, classes)."""
    labels = inputs.labels(config, split, images, required=True)
    known = labels.any(axis=1)
    if not known.all():
        print(f"left out {np.sum(~known)} {split} images without a label")
    return dict(item for item, keep in zip(images.items(), known, strict=True) if keep), labels[known]


def make_folds(config, images, labels):
    """Assign the training images to folds, unless that is up to date.

    Args:
        config: the settings.
        images: dictionary from image id to path.
        labels: one-hot array (images, classes), in the same order.

    Returns:
        Dictionary from image id to fold, 1 to `config.folds`.

    Raises:
        InputError: if there are too few images for so many folds, or if the groups of the data set changed since they
            were made.
    """
    file = RunFolder(config.run_dir).folds
    made_from = {"images": images.values(), "labels": label_files(config, "training")}
    script = f"training.py --backbone-name {config.backbone_name} --folds {config.folds}"
    manifest = Manifest(config, "folds", "folds", script, made_from, [file], wait=600)
    if not manifest.up_to_date():
        readable, grey_copies = checks.fingerprints(config, images)
        if unreadable := sorted(set(images) - set(readable)):
            raise InputError(f"{images[unreadable[0]]} cannot be decoded: replace the file")
        groups = data_set(config).groups("training")
        lesions = [groups.get(image_id) for image_id in images]
        folds = assign_folds(grey_copies, labels.argmax(axis=1), config.folds, config.seed, lesions)
        manifest.begin()
        write_folds(file, images, folds)
        manifest.finish()
        print(f"read {len(images)} training images from {config.data_dir}, wrote their folds to {file}")
    fold_of, groups = read_folds(file), data_set(config).groups("training")
    folds_of_group = pd.Series(fold_of).groupby(pd.Series(groups, dtype=object)).nunique()
    if (folds_of_group > 1).any():
        raise InputError(
            f"{file} has images of group {folds_of_group.idxmax()} in several folds, because the groups of the data "
            f"set changed: run `python {script} --overwrite`"
        )
    return fold_of


def check_labels(config, classes, labels):
    """Refuse labels without a training image of each class, and to monitor an AUC that they do not define.

    Args:
        config: the settings.
        classes: names of the classes.
        labels: dictionary from split to one-hot array (images, classes).

    Raises:
        InputError: naming the class or the setting.
    """
    if lacking := [name for name, count in zip(classes, labels["training"].sum(axis=0), strict=True) if not count]:
        raise InputError(f"{config.data_dir} has no training image of {lacking[0]}: add some to the training split")
    shares = labels["validation"].mean(axis=0)[: len(tasks_of(classes))]
    if config.monitor == "auc" and not ((shares > 0) & (shares < 1)).any():
        raise InputError("monitor = auc, but the validation labels define no AUC: give another --monitor")
    if absent := [name for name, share in zip(classes, labels["validation"].mean(axis=0), strict=True) if not share]:
        names = ", ".join(absent)
        print(wrapped(f"the validation split has no image of {names}: the best epoch is chosen without such images"))


def train(config, crops, labels, held_out, reused_classifier):
    """Train the network of one fold, or of all images (fold 0), unless it is up to date.

    Args:
        config: the settings, with the fold.
        crops, labels: dictionaries from "training", "validation" and, with further images, "extra" to paths and one-hot
            labels.
        held_out: ids of the training images that are left out.
        reused_classifier: the `ReusedClassifier` of all folds.
    """
    trained = RunFolder(config.run_dir).backbone(config.backbone_name, config.fold)
    files = {f"{split} crops": crops[split] for split in crops}
    files |= {f"{split} labels": label_files(config, split) for split in crops}
    files["weight files"] = inputs.weight_files(config, config.backbone_name)
    outputs = [trained.settings, trained.history, *([trained.held_out] if config.fold else []), trained.network]
    name, script = config.backbone_name, f"training.py --backbone-name {config.backbone_name}"
    if config.fold:
        name, script = f"{name}_fold_{config.fold}", f"{script} --folds {config.folds} --fold {config.fold}"
    elif config.folds:
        script += " --fold 0"  # that of all images alone
    ignored = unused_settings(config, splits=crops)
    manifest = Manifest(
        config, name, "classifier", script, files, outputs, checkpoints=trained.checkpoints, ignored=ignored
    )
    if manifest.up_to_date():
        return

    network, head = reused_classifier.untrained()
    for model in filter(None, (network, head)):
        model.prior_ratio.assign(prior_ratio(config, labels))
    batches = make_batches(config, crops, labels)
    without = f", without the {len(held_out)} images of fold {config.fold}" if config.fold else ""
    parameters = sum(layer.count_params() for layer in network.layers)
    training = f"training {config.backbone_name} of {parameters:,} parameters"
    print(wrapped(f"{training} on {len(crops['training'])} crops of {config.image_size} pixels{without}"))
    manifest.begin()
    class_weight = balanced_class_weights(labels["training"]) if config.class_weights == "balanced" else None
    logs = tensorboard_folder(config, name, trained.checkpoints)
    history = fit_in_phases(config, network, head, batches, trained.checkpoints, class_weight, logs)
    if config.fold:
        write_table(trained.held_out, pd.DataFrame({"image_id": held_out}))
    write_json(trained.classes, data_set(config).classes)
    save_trained(network, history, config, trained)
    manifest.finish()


def unused_settings(config, splits):
    """The settings of a classifier that have no effect, given the other settings and the splits it is trained on."""
    unused = [] if "extra" in splits else ["extra_per_epoch", "extra_labels"]
    if config.lr_schedule == "constant":
        unused.append("warmup_epochs")
    if not config.frozen_epochs:
        unused.append("frozen_learning_rate")
    if config.se_position == "none":
        unused += ["se_ratio", "se_lr_factor"]
    # Not `early_stopping_patience`, although it has no effect where it is `epochs` or more: a change from a smaller one
    # to such a one, or back, has an effect.
    return unused


def fit_in_phases(config, network, head, batches, checkpoints, class_weight, logs=None):
    """Train the head alone for `frozen_epochs`, then the whole network. Returns the history of both."""
    options = {"monitor": f"val_{config.monitor}", "class_weight": class_weight}
    histories = []
    if head is not None:
        set_backbone_trainable(network, False)
        folders = {"folder": checkpoints / HEAD_CHECKPOINTS, "logs": logs and logs / "head"}
        histories.append(fit(head, *batches.values(), config.frozen_epochs, **folders, **options))
        set_backbone_trainable(network, True)
    schedule = []
    if config.lr_schedule == "cosine":
        schedule = [warmup_and_cosine(config.learning_rate, config.epochs, config.warmup_epochs)]
    # The head saves every epoch: after a kill, the second phase must find it finished.
    options |= {"checkpoint_seconds": config.checkpoint_seconds}
    options |= {"patience": config.early_stopping_patience, "callbacks": schedule}
    histories.append(fit(network, *batches.values(), config.epochs, checkpoints, logs=logs, **options))
    warn_of_lost_weights(config, histories)
    history = pd.concat(histories, ignore_index=True)
    return history.assign(epoch=history.index + 1)


def warn_of_lost_weights(config, histories):
    """Print it if the head alone was better than the whole network: then training has spoilt the backbone's weights."""
    best = max if config.monitor == "auc" else min
    values = [best(history[f"val_{config.monitor}"].dropna()) for history in histories]
    if best(values) != values[-1]:
        before, after = (f"{value:.3f}" for value in (values[0], values[-1]))
        print(
            wrapped(
                f"warning: val_{config.monitor} was {before} with a frozen backbone, and {after} at best afterwards: "
                f"the learning rate may be too high, the moving average (ema_momentum) too slow for so few steps, or "
                f"the weight file damaged (benchmarks/unfold_batch_norm.py corrects some)"
            )
        )


def make_batches(config, crops, labels):
    """Batches of the training split, augmented and in random order, and of the validation split."""
    border = border_pixels(config.image_size, config.crop_border)
    # Each network gets its own augmentation seed, so that the errors of the ensemble are less correlated.
    seed = zlib.crc32(f"{config.seed} {config.backbone_name} {config.fold}".encode())
    drawn = [split for split in ("training", "extra") if split in crops]
    kept = config.in_memory
    validation_crops = LazyImages(
        lambda path: without_border(read_image(path), config.image_size), crops["validation"], kept
    )
    return {
        "training": Batches(
            LazyImages(read_image, [path for split in drawn for path in crops[split]], kept),
            np.concatenate([labels[split] for split in drawn]),
            batch_size=config.batch_size,
            augment=augmentation(config, border, config.augment_cutout),
            shuffle=True,
            weights=sampling_weights(config, labels),
            per_epoch=len(crops["training"]) + (config.extra_per_epoch if "extra" in crops else 0),
            seed=seed,
            workers=config.workers,
        ),
        "validation": Batches(
            validation_crops, labels["validation"], batch_size=config.batch_size, workers=config.workers
        ),
    }


def sampling_weights(config, labels):
    """How often each training image, then each further image, is drawn per epoch on average; None for once each."""
    if not config.sampling_power and "extra" not in labels:
        return None
    per_epoch = {"training": len(labels["training"]), "extra": config.extra_per_epoch}
    weights = []
    for split in ("training", "extra"):
        if split in labels:
            frequencies = labels[split].mean(axis=0).clip(min=1e-9)  # a class may have no image here
            wanted = labels[split] @ frequencies**-config.sampling_power
            weights.append(wanted * per_epoch[split] / wanted.sum())
    return np.concatenate(weights)


def prior_ratio(config, labels):
    """For each class, its share of the drawn images over its share of the training images; see `sampling_weights`."""
    weights = sampling_weights(config, labels)
    if weights is None:
        return np.ones(labels["training"].shape[1])
    everything = np.concatenate([labels[split] for split in ("training", "extra") if split in labels])
    drawn, true = weights @ everything / weights.sum(), labels["training"].mean(axis=0)
    return np.divide(drawn, true, out=np.ones_like(drawn), where=true > 0)


class ReusedClassifier:
    """One classifier that is trained again for each fold, from the same first weights.

    TensorFlow keeps the memory of every traced training step until the process ends. So the network is not built again
    for each fold: its variables, and those of its optimizers, get their first values back. It is built when it is first
    needed, which is never if all networks are up to date.

    Args:
        config: the settings.
    """

    def __init__(self, config):
        self.config, self.network, self.head = config, None, None
        # If this process trains a single network, it needs no copy of the first values.
        self.several = config.folds > 0 and config.fold is None

    def untrained(self):
        """The compiled network with its first weights, a `PriorCorrected` model.

        Returns:
            The network, and the same network compiled to train its head while the backbone is frozen, or None if there
            are no such epochs.
        """
        if self.network is None:
            self.build()
        elif self.several:
            set_values(self.variables, self.first_values)
        return self.network, self.head

    def build(self):
        """Build and compile the network."""
        config = self.config
        keras.utils.set_random_seed(config.seed)
        set_devices_and_precision(config)
        plain_network = build_classifier(config)
        inputs, outputs = plain_network.input, plain_network.output
        self.network = PriorCorrected(inputs, outputs, name=plain_network.name)
        compile_network(self.network, config)
        self.network.optimizer.build(self.network.trainable_variables)
        optimizers = [self.network.optimizer]
        if config.frozen_epochs:
            self.head = PriorCorrected(inputs, outputs, name="head")
            compile_network(self.head, config, frozen=True)
            set_backbone_trainable(self.network, False)
            self.head.optimizer.build(self.network.trainable_variables)
            set_backbone_trainable(self.network, True)
            optimizers.append(self.head.optimizer)
        if self.several:
            self.variables = [*self.network.variables, *(v for optimizer in optimizers for v in optimizer.variables)]
            self.first_values = copy_values(self.variables)


def build_classifier(config):
    """The classifier that the settings describe, not compiled."""
    return classifier(
        config.backbone_name,
        image_size=config.image_size,
        classes=len(data_set(config).classes),
        weights=config.weights,
        se_position=config.se_position,
        se_ratio=config.se_ratio,
        head_units=config.head_units,
        head_l1=config.head_l1,
        head_dropout=config.head_dropout,
        batch_norm_momentum=config.batch_norm_momentum,
        se_lr_factor=config.se_lr_factor,
    )


def compile_network(network, config, frozen=False):
    """Compile a `PriorCorrected` network with its optimizer, loss and metrics.

    The loss is that of training alone: `PriorCorrected` has its own in validation, see there.

    Args:
        network: the classifier.
        config: the settings.
        frozen: compile for the epochs with a frozen backbone: plain Adam with its own learning rate.
    """
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
    classes = data_set(config).classes
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=config.label_smoothing)
    metrics = [
        keras.metrics.CategoricalAccuracy(name="accuracy"),
        keras.metrics.CategoricalCrossentropy(name="cross_entropy"),
        # Mean of the tasks; a thousand thresholds agree with all of them to three digits.
        MeanAUC(len(tasks_of(classes)), len(classes)),
    ]
    network.compile(optimizer=optimizer, loss=loss, metrics=metrics)


def set_backbone_trainable(network, trainable):
    """Make all layers but those of the head trainable, or freeze them.

    A frozen batch normalisation does not update its moving statistics, and normalises with them.
    """
    for layer in network.layers:
        if layer.name not in HEAD_LAYERS:
            layer.trainable = trainable


def balanced_class_weights(labels):
    """Dictionary from class index to a weight by the inverse of its frequency, 1 if all are equally frequent."""
    counts = labels.sum(axis=0).clip(min=1)
    return dict(enumerate(counts.sum() / (len(counts) * counts)))


if __name__ == "__main__":
    command_line.run(main, config)
