"""Every setting of every stage, with its default and its reason.

The defaults are the published protocol (preset `isic2017`). Edit a default here, for example `backbone_name`, or pass
it as an option to any script: `python training.py --backbone-name xception`. `--preset` picks one of the sets of values
at the end of this file, `--config` takes what an earlier stage kept; options given beside them win over them. A default
that is edited after the run's first stage counts like an option; one that a preset overrides is named.
"""

import json
import math
import operator
import re
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin

from data.errors import InputError
from data.files import whole_file

Preset = Literal["isic2017", "isic2017_256", "fine_tuned", "sample"]
Split = Literal["training", "validation", "test"]
MOST_FILTERS = 8192  # of the U-Net's last block: 604 million weights in one convolution
BackboneName = Literal["resnet50", "densenet169", "inception_v3", "inception_resnet_v2", "xception"]


@dataclass(frozen=True)
class Interval:
    """The numbers that a setting takes; names and meaning as in the package annotated-types.

    Each setting that is a number has an upper end too, far above what anyone means: a slip of the keyboard is then a
    sentence at once, and not all memory after an hour.
    """

    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None

    def ends(self):
        """Comparison, its words, and the end, of each end that is given."""
        ways = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}
        return [
            (getattr(operator, name), f"{words} {end}", end)
            for name, words in ways.items()
            if (end := getattr(self, name)) is not None
        ]

    def __contains__(self, value):
        return all(compare(value, end) for compare, _, end in self.ends())

    def __str__(self):
        return " and ".join(words for _, words, _ in self.ends())


@dataclass(frozen=True)
class Config:
    """Settings of all six stages."""

    # ---- run: read by every stage ------------------------------------------------------------------------------------
    preset: Preset = "isic2017"
    """Set of values to start from: the published protocol on the official full-size data or on a copy of 256x256,
    today's training on images of any size, or the built-in sample. Without this option and --config, a stage starts
    from config.json of the run folder, if there is one."""
    config: Path | None = None
    """File of settings to start from instead: config.json of a run folder, which its first stage writes."""
    overwrite: bool = False
    """Make everything anew that this stage makes, finished networks included."""
    data_dir: Path = Path("data/isic2017")
    """Folder of the data set in the official ISIC 2017 layout."""
    run_dir: Path = Path("runs/isic2017")
    """Folder that takes every file the stages make."""
    splits: tuple[Split, ...] = ("training", "validation", "test")
    """Splits to segment, crop and predict; training always uses training and validation."""
    seed: Annotated[int, Interval(ge=0, lt=2**32)] = 0
    """Seed of initial weights, shuffling and augmentation."""
    workers: Annotated[int, Interval(ge=1, le=1024)] = 2
    """Threads that decode, crop and warp images beside the network."""
    in_memory: bool = False
    """Keep what training has decoded in memory, as uint8, from the first epoch on: 0.25 MB for a crop of 192 pixels
    with its border, in every process. Worth it with a GPU, which would stand idle while images are decoded."""
    skip_bad_images: bool = False
    """Leave unreadable images, and unreadable or missing masks, out, list them in bad_files.csv of the run folder and
    go on; otherwise a stage names them and stops."""
    allow_duplicates: bool = False
    """Let a picture stand in two splits, or among the further images and in validation or test, under two ids, and say
    how many do; otherwise a stage names one and stops. Those known of ISIC 2017 pass without this option."""
    devices: Annotated[int, Interval(ge=0, le=1024)] = 0
    """Accelerators of this machine to train on, each with its part of every batch; 0 takes all that are visible."""
    test_time_augmentation: bool = False
    """Average the masks' and the diagnoses' probabilities over the eight flips and quarter turns of the image, at eight
    times the work and the memory of a step."""
    mixed_precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the networks' arithmetic (weights, losses and metrics stay float32). auto is bfloat16 on a GPU of
    compute capability 8 or more, and float16 on an older one; bfloat16 on a CPU that computes in it (AVX512_BF16 or
    AMX_BF16, with TensorFlow), and float32 elsewhere."""
    tensorboard: bool = False
    """Write the history of the U-Net and of every classifier for TensorBoard too, to tensorboard/<network>/ of the run
    folder; needs TensorFlow and the package tensorboard, whatever the backend."""

    # ---- U-Net: seg_train.py -----------------------------------------------------------------------------------------
    unet_image_size: Annotated[int, Interval(ge=1, le=2048)] = 224
    """Side of the U-Net's square input in pixels; without a backbone as encoder a multiple of 2 to the power
    unet_blocks - 1."""
    unet_encoder: Literal["none", BackboneName] = "none"
    """Encoder of the U-Net: its own blocks, as published, or an ImageNet backbone with first weights as `weights` says,
    whose last map of each resolution is a skip."""
    unet_blocks: Annotated[int, Interval(ge=1, le=11)] = 5
    """Resolutions of the U-Net's own encoder, two 3x3 convolutions each."""
    unet_filters: Annotated[int, Interval(ge=1, le=4096)] = 32
    """Filters of the first block; every further block has twice as many (32 to 512). With a backbone as encoder, those
    of the decoder at half of the input's resolution, doubled at each of three coarser ones (32 to 256)."""
    unet_batch_norm: bool = False
    """Batch normalisation after each convolution; not in the published network. The decoder of a backbone has it
    anyway."""
    unet_loss: Literal["bce", "bce_dice"] = "bce"
    """Binary cross-entropy, or its sum with the soft Dice loss."""
    unet_learning_rate: Annotated[float, Interval(gt=0, le=10)] = 1e-4
    """Adam's first learning rate."""
    unet_lr_schedule: Literal["plateau", "cosine"] = "plateau"
    """Lower the learning rate on a plateau of the validation loss, or let it fall to 0 along a cosine over the
    epochs."""
    unet_lr_factor: Annotated[float, Interval(gt=0, lt=1)] = 0.5
    """The learning rate is multiplied by this on a plateau of the validation loss."""
    unet_lr_patience: Annotated[int, Interval(ge=1, le=100_000)] = 2
    """Epochs without better validation loss that make a plateau."""
    unet_lr_min: Annotated[float, Interval(ge=0, le=10)] = 1e-7
    """The learning rate never falls below this."""
    unet_batch_size: Annotated[int, Interval(ge=1, le=4096)] = 16
    """Images a step."""
    unet_epochs: Annotated[int, Interval(ge=1, le=100_000)] = 50
    """Epochs of training; the weights of the best validation loss are kept."""
    unet_extra_per_epoch: Annotated[int, Interval(ge=0, le=1_000_000)] = 2000
    """How many of the further images that extra_mask_dir has masks of are drawn in each epoch of the U-Net, beside the
    training split."""

    # ---- augmentation: seg_train.py, training.py ---------------------------------------------------------------------
    augment_flips: bool = True
    """Flip left-right and up-down, each with probability one half."""
    augment_rotation: Annotated[float, Interval(ge=0, le=360)] = 180.0
    """Rotate by an angle drawn uniformly from plus or minus this many degrees."""
    augment_shift: Annotated[float, Interval(ge=0, le=1)] = 0.1
    """Shift along each axis by up to plus or minus this share of the side."""
    augment_zoom: Annotated[float, Interval(ge=0, le=10)] = 0.0
    """Zoom by a factor between 1 / (1 + this) and 1 + this, drawn uniformly on a logarithmic scale."""
    augment_brightness: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Multiply all colours by a factor of 1 plus or minus up to this."""
    augment_contrast: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Multiply the distance of all colours from the image's mean by a factor of 1 plus or minus up to this."""
    augment_saturation: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Multiply the distance of every pixel from its grey by a factor of 1 plus or minus up to this."""
    augment_hue: Annotated[float, Interval(ge=0, le=180)] = 0.0
    """Turn the colours about the grey axis by up to plus or minus this many degrees."""
    augment_cutout: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Side, as a share of the crop's, of a square painted over in half of the crops; the U-Net goes without."""

    # ---- masks: seg_predict.py ---------------------------------------------------------------------------------------
    mask_sigma: Annotated[float, Interval(ge=0, le=100)] = 2.0
    """Standard deviation of the Gaussian that smooths the probability map, in pixels of the U-Net's resolution."""
    mask_threshold: Annotated[float, Interval(ge=0, lt=1)] = 0.5
    """Smoothed probability from which a pixel belongs to the lesion."""

    # ---- crops: resize.py --------------------------------------------------------------------------------------------
    masks: Literal["predicted", "ground_truth", "none"] = "predicted"
    """Masks to crop by. ground_truth and none (the whole frame) are ablations: give them a --run-dir of their own."""
    crop_margin_px: Annotated[int, Interval(ge=0, le=100_000)] = 55
    """Margin around the lesion's box, in pixels of the image."""
    crop_margin_ratio: Annotated[float, Interval(ge=0, le=10)] = 0.0
    """Further margin, as a share of the box's longer side."""
    crop_square: bool = False
    """Widen the box to a square (within the image) instead of stretching it to one."""
    image_size: Annotated[int, Interval(ge=1, le=2048)] = 224
    """Side of the square crops, and of the classifiers' input, in pixels."""
    crop_border: Annotated[float, Interval(ge=0, le=1)] = 0.0
    """Context kept around every crop, as a share of its side on each side: augmentation draws on it instead of
    mirroring the crop, prediction cuts it off."""

    # ---- classifiers: training.py, cls_predict.py --------------------------------------------------------------------
    backbone_name: BackboneName = "resnet50"
    """ImageNet backbone to train or to predict with."""
    weights: str = "imagenet"
    """First weights of the backbone, also of the U-Net's: imagenet (downloaded once), none (random), or a folder of
    weight files."""
    se_position: Literal["stages", "top", "none"] = "stages"
    """Where squeeze-and-excitation blocks sit: after the last feature map of each resolution, after the final feature
    map only, or nowhere. The paper does not say."""
    se_ratio: Annotated[int, Interval(ge=1, le=4096)] = 16
    """Channels divided by this are the width of a squeeze-and-excitation block's bottleneck."""
    head_units: Annotated[int, Interval(ge=1, le=65_536)] = 128
    """Width of the hidden dense layer of the head."""
    head_l1: Annotated[float, Interval(ge=0, le=1000)] = 1e-4
    """L1 penalty on the kernel of that layer."""
    head_dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Share of the hidden layer's outputs dropped in training."""
    batch_norm_momentum: Annotated[float, Interval(ge=0, lt=1)] = 0.99
    """Momentum of the networks' moving statistics; from random weights with few steps 0.99 never catches up."""
    learning_rate: Annotated[float, Interval(gt=0, le=10)] = 1e-4
    """Adam's learning rate; with a schedule its highest."""
    lr_schedule: Literal["constant", "cosine"] = "constant"
    """Keep the learning rate, or let it fall to 0 along a cosine over the epochs."""
    warmup_epochs: Annotated[float, Interval(ge=0, le=100_000)] = 0.0
    """Epochs over which the cosine's learning rate first rises from 0."""
    se_lr_factor: Annotated[float, Interval(ge=0, le=1000)] = 1.0
    """The squeeze-and-excitation blocks learn at this multiple of the learning rate; their gates start so far open that
    they barely move otherwise."""
    frozen_epochs: Annotated[int, Interval(ge=0, le=100_000)] = 0
    """Epochs before all others in which only the head and the squeeze-and-excitation blocks learn, while the backbone
    stays as it is, batch normalisation's moving statistics included."""
    frozen_learning_rate: Annotated[float, Interval(gt=0, le=10)] = 1e-3
    """Adam's learning rate in those epochs."""
    weight_decay: Annotated[float, Interval(ge=0, le=10)] = 0.0
    """Decoupled weight decay (AdamW); 0 is Adam."""
    ema_momentum: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Momentum of a moving average of the weights, which is what is validated and kept; 0 for the weights
    themselves."""
    label_smoothing: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Share of the labels' weight that is spread over all classes in the loss."""
    sampling_power: Annotated[float, Interval(ge=0, le=10)] = 0.0
    """Images of a class of frequency f are drawn in proportion to f to the power -sampling_power: 0 takes every image
    once an epoch, 1 all classes alike often. The training loss corrects for it, so predicted probabilities keep the
    true class frequencies."""
    extra_data_dir: Path | None = None
    """Folder of HAM10000 in its official layout: further images for training alone."""
    extra_mask_dir: Path | None = None
    """Folder of these images' masks, <id>_segmentation.png or .pbm. The U-Net is then trained on them too, and the
    images are cropped by them. Without it only the classifiers see the further images, cropped by predicted masks."""
    extra_per_epoch: Annotated[int, Interval(ge=0, le=1_000_000)] = 2000
    """How many of these are drawn in each epoch, beside the training split."""
    batch_size: Annotated[int, Interval(ge=1, le=4096)] = 32
    """Crops a step, in training and prediction."""
    epochs: Annotated[int, Interval(ge=1, le=100_000)] = 100
    """Epochs at the most; the best weights on the validation split are kept."""
    watch: Literal["loss", "cross_entropy", "auc"] = "loss"
    """What is best, for early stopping and the kept weights: the lowest loss, most of which is the L1 penalty for a
    while; the lowest cross-entropy alone; or the highest mean area under the ROC curve of melanoma and keratosis."""
    early_stopping_patience: Annotated[int, Interval(ge=1, le=100_000)] = 10
    """Epochs without anything better after which training ends."""
    class_weights: Literal["none", "balanced"] = "none"
    """Weigh classes alike, or by the inverse of their frequency in the training split. Not with sampling_power or
    extra_data_dir, whose loss keeps the true class frequencies."""
    folds: Annotated[int, Interval(ge=0, le=1000)] = 0
    """Parts, 2 or more, that the training split is cut into for out-of-fold predictions: each part is predicted by a
    network trained on the others. 0 for none."""
    fold: Annotated[int | None, Interval(ge=0, le=1000)] = None
    """Fold that training.py holds out, counted from 1, to share the work among machines; 0 trains the network on all
    training images alone. Without it that one is trained, then every fold in turn."""

    # ---- vote: vote.py -----------------------------------------------------------------------------------------------
    backbones: tuple[BackboneName, ...] = ("resnet50", "densenet169", "inception_v3", "inception_resnet_v2", "xception")
    """Networks that vote, in the order of the voting network's input channels."""
    vote_fit_split: Literal["training", "validation"] = "training"
    """Split whose predictions the voting network is fitted on. The published code takes training, whose images the
    five networks know nearly by heart; a second vote is fitted on the other one."""
    vote_seeds: Annotated[int, Interval(ge=1, le=1000)] = 20
    """Times the voting network is fitted, from one seed after another: the first is the vote, all of them tell how much
    its figures hang on the seed."""
    vote_filters: Annotated[int, Interval(ge=1, le=4096)] = 20
    """Filters of the first locally connected layer."""
    vote_learning_rate: Annotated[float, Interval(gt=0, le=10)] = 1e-3
    """Adam's learning rate."""
    vote_batch_size: Annotated[int, Interval(ge=1, le=1_000_000)] = 32
    """Images a step."""
    vote_epochs: Annotated[int, Interval(ge=1, le=100_000)] = 20
    """Epochs of training; the last weights are kept."""
    stacking_c: Annotated[float, Interval(gt=0, le=1e9)] = 1.0
    """Inverse strength of the L2 penalty of the logistic regression on the backbones' log-probabilities."""
    decide_by: Literal["vote", "mean", "stacking", "vote_oof"] = "vote"
    """Method whose diagnosis predict.py and the report show: the voting network (as published), the mean of the
    backbones, or what is fitted out of fold, with folds: the logistic regression or the second voting network."""


PRESETS = {
    # The published protocol on the official full-size data.
    "isic2017": Config(preset="isic2017"),
    # The official images squashed to 256x256. A pixel margin means nothing there; 0.07 of the longer side is what 55
    # pixels are to the median lesion of 20 full-size validation images.
    "isic2017_256": Config(
        preset="isic2017_256",
        data_dir=Path("data/isic2017_256"),
        run_dir=Path("runs/isic2017_256"),
        unet_image_size=128,
        unet_filters=16,
        unet_batch_norm=True,
        unet_loss="bce_dice",
        unet_learning_rate=1e-3,
        crop_margin_px=0,
        crop_margin_ratio=0.07,
    ),
    # Current training methods instead of the published protocol, on images of any size. The README's results are from
    # an earlier version of this preset (commit a103ba1).
    "fine_tuned": Config(
        preset="fine_tuned",
        run_dir=Path("runs/fine_tuned"),
        test_time_augmentation=True,
        unet_encoder="densenet169",
        unet_image_size=192,
        unet_loss="bce_dice",
        unet_learning_rate=3e-4,
        unet_lr_schedule="cosine",
        unet_epochs=12,
        augment_shift=0.07,
        augment_zoom=0.25,
        augment_brightness=0.2,
        augment_contrast=0.2,
        augment_saturation=0.2,
        augment_hue=10.0,
        augment_cutout=0.375,
        crop_margin_px=0,
        crop_margin_ratio=0.2,
        crop_square=True,
        image_size=192,
        crop_border=0.25,
        head_l1=0.0,
        head_dropout=0.3,
        learning_rate=1.5e-4,
        lr_schedule="cosine",
        warmup_epochs=1.0,
        se_lr_factor=10.0,
        frozen_epochs=1,
        weight_decay=1e-4,
        ema_momentum=0.995,
        label_smoothing=0.05,
        sampling_power=0.4,
        epochs=12,
        watch="cross_entropy",
        early_stopping_patience=12,
        decide_by="mean",
    ),
    # The built-in sample: small enough for five networks from random weights in a few minutes on two cores.
    "sample": Config(
        preset="sample",
        data_dir=Path("data/sample"),
        run_dir=Path("runs/sample"),
        unet_image_size=96,
        unet_blocks=4,
        unet_filters=8,
        unet_batch_norm=True,
        unet_loss="bce_dice",
        unet_learning_rate=3e-3,
        unet_batch_size=8,
        unet_epochs=12,
        crop_margin_px=8,
        image_size=80,
        weights="none",
        batch_norm_momentum=0.8,
        learning_rate=1e-3,
        batch_size=16,
        epochs=6,
        vote_seeds=3,
        vote_learning_rate=1e-2,
        vote_epochs=60,
    ),
}

# What files depend on: for each kind of file the settings that count, by name, or by * where all names alike count. A
# file is made again where one of them changed (a trained network only when told to). Every setting is in a row.
SETTINGS_OF = {
    "unet": (
        *("unet_*", "augment_flips", "augment_rotation", "augment_shift", "augment_zoom", "augment_brightness"),
        *("augment_contrast", "augment_saturation", "augment_hue", "batch_norm_momentum", "seed"),
        *("weights", "mixed_precision"),
    ),
    "copies": ("unet_image_size",),
    "masks": ("mask_*", "test_time_augmentation"),
    "overlap": (),
    "crops": ("masks", "crop_*", "image_size"),
    "folds": ("folds", "seed"),
    "classifier": (
        *("backbone_name", "image_size", "crop_border", "weights", "se_*", "head_*", "batch_norm_momentum"),
        *("learning_rate", "lr_schedule", "warmup_epochs", "frozen_*", "weight_decay", "ema_momentum"),
        *("label_smoothing", "sampling_power", "extra_per_epoch", "batch_size", "epochs", "watch"),
        *("early_stopping_patience", "class_weights", "augment_*", "seed", "mixed_precision"),
    ),
    "predictions": ("backbone_name", "test_time_augmentation"),
    "vote": ("vote_*", "stacking_*", "backbones", "folds", "splits", "seed"),
    "report": ("seed", "decide_by"),
    # No file depends on these: they say how the work is done, or what one call is about.
    "nothing": (
        *("preset", "data_dir", "extra_data_dir", "extra_mask_dir", "skip_bad_images", "allow_duplicates"),
        *("workers", "in_memory", "devices", "tensorboard"),
    ),
    "one call": ("config", "overwrite", "run_dir", "fold"),
}
# What config.json of a run folder does not keep: it is true of one call, or of one place, and not of the run.
NOT_KEPT = ("config", "overwrite", "run_dir", "backbone_name", "fold")


def counts(kind, name, table=SETTINGS_OF):
    """Whether files of a kind, a key of `SETTINGS_OF`, depend on a setting."""
    return any(fnmatchcase(name, pattern) for pattern in table[kind])


def as_json(config):
    """The settings as a dictionary of what JSON knows."""
    values = {field.name: getattr(config, field.name) for field in fields(Config)}
    return json.loads(json.dumps(values, default=str))


def as_typed(value):
    """A setting as it is typed on the command line."""
    return " ".join(value) if isinstance(value, list | tuple) else str(value)


def write_settings(config, path, leave_out=("config", "overwrite")):
    """Keep the settings as a JSON file, and under "defaults" the defaults that hold today."""
    kept = {name: value for name, value in as_json(config).items() if name not in leave_out}
    defaults = as_json(defaults_of(config.preset))
    kept["defaults"] = {name: defaults[name] for name in kept}
    with whole_file(path) as part:
        part.write_text(json.dumps(kept, indent=2) + "\n")


def defaults_of(preset):
    """The settings of a call without options but --preset; `preset` itself is what holds without that one too."""
    return replace(PRESETS[preset], preset=Config.preset)


def read_settings(path):
    """Read a file of settings; see `write_settings`.

    Returns:
        A `Config`. What the file does not name, as an older version did not have it, is as published; a file that does
        not name its run folder lies in it.

    Raises:
        InputError: if the file is missing or damaged, or holds something that is no setting.
    """
    try:
        kept = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing: --config takes a config.json of a run folder") from None
    except ValueError:
        kept = None
    if not isinstance(kept, dict):
        raise InputError(f"{path} holds no settings: remove it and give them as options")
    known, values = {field.name for field in fields(Config)}, {"run_dir": Path(path).parent}
    kept.pop("defaults", None)
    for name, value in kept.items():
        if name not in known:
            raise InputError(f"{path} names {name}, which is no setting: remove it there")
        if name in ("config", "overwrite", "fold"):  # true of the call that made the file alone
            continue
        values[name] = as_setting(value, getattr(PRESETS["isic2017"], name))
        if values[name] is None and value is not None:
            raise InputError(f"{path} says {name} = {value!r}: mend it or remove the file")
    return replace(PRESETS["isic2017"], **values)


def edited_defaults(path):
    """The defaults that were edited in this file since a file of settings was written.

    Args:
        path: the file; one of an older version, which does not hold the defaults of its time, gives none.

    Returns:
        Dictionary from the name of a setting to its default of today.
    """
    kept = json.loads(Path(path).read_text(encoding="utf-8"))
    then = kept.get("defaults")
    if not isinstance(then, dict) or kept.get("preset") not in PRESETS:
        return {}
    now = defaults_of(kept["preset"])
    changed = [name for name, value in as_json(now).items() if name in then and then[name] != value]
    return {name: getattr(now, name) for name in changed if name not in NOT_KEPT}


def as_setting(value, default):
    """What JSON gave back as a setting of its default's type; None if it is none."""
    if isinstance(default, tuple) and isinstance(value, list):
        return tuple(map(str, value))
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if isinstance(default, Path | None) and isinstance(value, str):
        return Path(value)
    return value if type(value) is type(default) else None


def parse_args(description, settings=Config, options=None):
    """Read the settings from the command line.

    They start from the file that `--config` names, or from the preset, or, where neither is given, from config.json of
    the run folder if there is one. A default that was edited since that file was written wins over the file, and
    options win over all of these. What differs from the run's own is said, and so is an edited default that does not
    count.

    Args:
        description: what `--help` says above the options.
        settings: `Config`, or a subclass with options of one script's own.
        options: list of words to read in place of the command line.

    Returns:
        An object of that class.

    Raises:
        SystemExit: with code 2 after an unknown option or a wrong type; with code 0 after `--help`.
        InputError: if a value makes no sense.
    """
    import argparse

    import tyro

    choose = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    choose.add_argument("--preset", choices=get_args(Preset))
    choose.add_argument("--config", type=Path)
    choose.add_argument("--run-dir", "--run_dir", type=Path, default=PRESETS[Config.preset].run_dir)
    chosen = choose.parse_known_args(options)[0]
    if chosen.preset and chosen.config:
        raise InputError("--preset and --config both say where to start from: give one of them")
    start, file, edited = PRESETS[chosen.preset or Config.preset], chosen.config, {}
    if not chosen.preset and not chosen.config and (chosen.run_dir / "config.json").exists():
        file = chosen.run_dir / "config.json"
    if file:
        start, edited = read_settings(file), edited_defaults(file)
        others = replace(PRESETS[Config.preset], run_dir=start.run_dir)  # as with --preset
        start = others if "preset" in edited else replace(start, **edited)
    check(start)
    config = tyro.cli(settings, args=options, default=settings(**vars(start)), description=description)
    check(config)
    kept = config.run_dir / "config.json"
    if file or kept.exists():
        tell_settings(config, file, file or kept, edited)
    tell_edits_without_effect(config)
    return config


def tell_settings(config, start, kept, edited=()):
    """Say from which file the settings are, if from any, and which differ from those that are kept.

    Args:
        config: the settings.
        start: the file that they start from, or None.
        kept: the file to compare them with.
        edited: names of the settings whose default was edited since that file was written.
    """
    ours, theirs = as_json(config), as_json(read_settings(kept))
    differing = [
        f"{name} = {as_typed(value)} instead of {as_typed(theirs[name])}"
        f"{' (edited in config.py)' if name in edited and value == as_json(defaults_of(config.preset))[name] else ''}"
        for name, value in ours.items()
        if value != theirs[name] and name not in NOT_KEPT
    ]
    if start:
        print(f"settings of {start}{', but ' if differing else ''}{', '.join(differing)}")
    elif differing:
        print(f"not the settings of {kept}: {', '.join(differing)}")


def tell_edits_without_effect(config):
    """Say which defaults of `Config` were edited but do not count, as the preset has values of its own for them.

    docs/settings.md lists the defaults as they are without edits. Without that page nothing is said.
    """
    page = Path(__file__).parent / "docs" / "settings.md"
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| ", page.read_text(encoding="utf-8") if page.exists() else "", re.M)
    published, ours, preset = dict(rows), as_json(config), as_json(PRESETS[config.preset])
    for name, default in as_json(Config()).items():
        edited = name not in ("preset", "run_dir") and as_typed(default) != published.get(name, as_typed(default))
        if edited and default not in (preset[name], ours[name]):
            print(
                f"{name} = {as_typed(ours[name])}, not the edited default {as_typed(default)}: preset {config.preset} "
                f"has a value of its own"
            )


def check(config):
    """Refuse settings that no stage can work with.

    Raises:
        InputError: naming the field, its value and what it takes.
    """
    check_numbers(config)
    for field in fields(config):
        value = getattr(config, field.name)
        several = get_origin(field.type) is tuple
        kind = get_args(field.type)[0] if several else field.type
        if get_origin(kind) is not Literal:
            continue
        for one in value if several else [value]:
            if one not in get_args(kind):
                raise InputError(f"{field.name} = {one!r} is not known: choose from {', '.join(get_args(kind))}")
        if several and (not value or len(set(value)) < len(value)):
            raise InputError(f"{field.name} = {' '.join(value) or 'nothing'}: name at least one, each once")
    if config.class_weights != "none" and (config.sampling_power or config.extra_data_dir):
        raise InputError(
            f"class_weights = {config.class_weights} goes neither with sampling_power nor with extra_data_dir, whose "
            f"loss keeps the true class frequencies: leave one of them out"
        )
    if config.folds == 1:
        raise InputError("folds = 1: take at least 2, or 0 for none")
    if config.decide_by in ("stacking", "vote_oof") and not config.folds:
        raise InputError(f"decide_by = {config.decide_by} is fitted on out-of-fold predictions: give it --folds too")
    if config.fold is not None and config.fold > config.folds:
        raise InputError(f"fold = {config.fold}: it must be at most folds = {config.folds}")
    if config.extra_mask_dir and not config.extra_data_dir:
        raise InputError("extra_mask_dir holds masks of further images: name their folder with --extra-data-dir too")
    if config.unet_encoder != "none":
        if config.unet_filters * 2**3 > MOST_FILTERS:
            raise InputError(
                f"unet_filters = {config.unet_filters} doubled 3 times is more than {MOST_FILTERS}: take fewer filters"
            )
        return
    step = 2 ** (config.unet_blocks - 1)
    if config.unet_image_size % step:
        raise InputError(
            f"unet_image_size = {config.unet_image_size} does not halve {config.unet_blocks - 1} times: "
            f"take a multiple of {step}"
        )
    if config.unet_filters * step > MOST_FILTERS:
        raise InputError(
            f"unet_filters = {config.unet_filters} doubled {config.unet_blocks - 1} times is more than {MOST_FILTERS}: "
            f"take fewer filters or unet_blocks"
        )


def check_numbers(settings):
    """Refuse numbers outside the `Interval` of their field, and what is no number; of `Config` or any dataclass.

    Raises:
        InputError: naming the field, its value and what it takes.
    """
    for field in fields(settings):
        value = getattr(settings, field.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{field.name} = {value}: it must be a finite number")
        for interval in getattr(field.type, "__metadata__", ()):
            if isinstance(interval, Interval) and value is not None and value not in interval:
                raise InputError(f"{field.name} = {value}: it must be {interval}")
