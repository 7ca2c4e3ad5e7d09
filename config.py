"""Every setting of every stage, with its default and its reason.

The defaults are the published protocol (preset `isic2017`). Edit a default here, or pass it as an option to any script:
`python training.py --backbone-name xception`. `--preset` starts from one of the presets at the end of this file. A
value in `PRESETS` wins over the default here: for `fine_tuned`, for example, edit it there. `--config` starts from the
config.json of a run folder; options win over both. `pipeline/settings.py` reads and checks them.

The texts in `Annotated` are the bounds of a number.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

Preset = Literal["isic2017", "isic2017_256", "fine_tuned", "sample"]
Split = Literal["training", "validation", "test"]
BackboneName = Literal["resnet50", "densenet169", "inception_v3", "inception_resnet_v2", "xception"]


@dataclass(frozen=True)
class Config:
    """Settings of all six stages."""

    # ---- run: read by every stage ------------------------------------------------------------------------------------
    preset: Preset = "isic2017"
    """Set of values to start from: the published protocol on the full-size data; the same, adapted to a copy of
    256x256 pixels; current training methods on images of any size; or the built-in sample. Without this option and
    --config, a stage starts from config.json of the run folder, if there is one."""
    config: Path | None = None
    """Start from this file of settings instead: config.json of a run folder, which its first stage writes."""
    overwrite: bool = False
    """Make all outputs of this stage again, finished networks included."""
    data_dir: Path = Path("data/isic2017")
    """Folder of the data set: in the official ISIC 2017 layout, or with a table dataset.csv (docs/data.md)."""
    run_dir: Path = Path("runs/isic2017")
    """Folder that the stages write to."""
    splits: tuple[Split, ...] = ("training", "validation", "test")
    """Splits to segment, crop and predict; training always uses training and validation."""
    seed: Annotated[int, ">= 0", "< 4294967296"] = 0
    """Seed of initial weights, shuffling and augmentation."""
    workers: Annotated[int, ">= 1"] = 2
    """Threads that decode, crop and warp images while the network computes."""
    in_memory: bool = False
    """Keep decoded training images in memory, as uint8. A crop of 192 pixels with its border takes 0.25 MB, in every
    process. Useful with a GPU, which would otherwise wait for the decoding."""
    skip_bad_images: bool = False
    """Skip unreadable images, and unreadable or missing masks, and list them in bad_files.csv of the run folder.
    Otherwise a stage names them and stops."""
    allow_duplicates: bool = False
    """Accept images that are in two splits, or in a split and among the further images (the same id, picture or
    group), and print how many there are. Otherwise a stage names one and stops. The known duplicates of ISIC 2017 are
    accepted without this option."""
    devices: Annotated[int, ">= 0"] = 0
    """Number of accelerators of this machine to train on; each takes a part of every batch. 0 takes all that are
    visible."""
    test_time_augmentation: bool = False
    """Average the probabilities of masks and diagnoses over the eight flips and quarter turns of the image. A step
    takes eight times the work and memory."""
    mixed_precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the networks' arithmetic; weights, losses and metrics stay float32. auto is, on a GPU, bfloat16
    (compute capability 8 or more) or float16 (older); on a CPU, bfloat16 if it has AVX512_BF16 or AMX_BF16
    and the backend is TensorFlow, otherwise float32."""
    checkpoint_seconds: Annotated[float, ">= 0"] = 60.0
    """Least time between two checkpoints of a training, in seconds. A training that was stopped continues after its
    last checkpoint. 0 saves one after every epoch."""
    tensorboard: bool = False
    """Also write the losses of the U-Net and of every classifier for TensorBoard, to tensorboard/<network>/ of the run
    folder. Needs TensorFlow and the package tensorboard with every backend."""

    # ---- U-Net: seg_train.py -----------------------------------------------------------------------------------------
    unet_image_size: Annotated[int, ">= 1"] = 224
    """Side of the U-Net's square input in pixels. If the encoder is no backbone, it must be a multiple of 2 to the
    power unet_blocks - 1."""
    unet_encoder: Literal["none", BackboneName] = "none"
    """Encoder of the U-Net: its own blocks, as published, or an ImageNet backbone, with first weights by the setting
    weights. The skip connections are the backbone's last feature maps of each resolution."""
    unet_blocks: Annotated[int, ">= 1"] = 5
    """Number of resolutions of the U-Net's own encoder; each has two 3x3 convolutions."""
    unet_filters: Annotated[int, ">= 1"] = 32
    """Filters of the first block; each further block has twice as many (32 to 512). With a backbone as encoder:
    filters of the decoder at half of the input's resolution; they double at each of three coarser resolutions (32 to
    256)."""
    unet_batch_norm: bool = False
    """Batch normalisation after each convolution; the published network has none. With a backbone as encoder, the
    decoder always has it."""
    unet_loss: Literal["bce", "bce_dice"] = "bce"
    """Binary cross-entropy, or its sum with the soft Dice loss."""
    unet_learning_rate: Annotated[float, "> 0"] = 1e-4
    """Adam's first learning rate."""
    unet_lr_schedule: Literal["plateau", "cosine"] = "plateau"
    """plateau lowers the learning rate when the validation loss stops falling; cosine lets it fall to 0 along a cosine
    over the epochs."""
    unet_lr_factor: Annotated[float, "> 0", "< 1"] = 0.5
    """Factor by which a plateau lowers the learning rate."""
    unet_lr_patience: Annotated[int, ">= 1"] = 2
    """The learning rate is lowered after this many epochs in which the validation loss did not fall by more than
    0.0001."""
    unet_lr_min: Annotated[float, ">= 0"] = 1e-7
    """The learning rate never falls below this."""
    unet_batch_size: Annotated[int, ">= 1"] = 16
    """Images per step."""
    unet_epochs: Annotated[int, ">= 1"] = 50
    """Epochs of training; the weights of the best validation loss are kept."""
    unet_extra_per_epoch: Annotated[int, ">= 0"] = 2000
    """Number of further images with masks (extra_mask_dir) that are drawn in each epoch of the U-Net, in addition to
    the training split."""

    # ---- augmentation: seg_train.py, training.py ---------------------------------------------------------------------
    augment_flips: bool = True
    """Flip left-right and up-down, each with probability one half."""
    augment_rotation: Annotated[float, ">= 0", "<= 360"] = 180.0
    """Rotate by an angle drawn uniformly from plus or minus this many degrees."""
    augment_shift: Annotated[float, ">= 0", "<= 1"] = 0.1
    """Shift along each axis by up to plus or minus this share of the side."""
    augment_zoom: Annotated[float, ">= 0"] = 0.0
    """Zoom by a factor between 1 / (1 + this) and 1 + this, drawn uniformly on a logarithmic scale."""
    augment_blur: Annotated[float, ">= 0"] = 0.0
    """Shrink half of the images by a factor between 1 and 1 + this, drawn uniformly on a logarithmic scale, and enlarge
    them again. Useful if the further images have a lower resolution: a network then learns less from sharpness which
    data set an image belongs to."""
    augment_brightness: Annotated[float, ">= 0", "< 1"] = 0.0
    """Multiply all colours by a random factor from 1 - this to 1 + this."""
    augment_contrast: Annotated[float, ">= 0", "< 1"] = 0.0
    """Multiply the difference of all colours from the image's mean by a random factor from 1 - this to 1 + this."""
    augment_saturation: Annotated[float, ">= 0", "< 1"] = 0.0
    """Multiply the difference of every pixel from its grey value by a random factor from 1 - this to 1 + this."""
    augment_hue: Annotated[float, ">= 0", "<= 180"] = 0.0
    """Rotate the colours about the grey axis by up to plus or minus this many degrees."""
    augment_cutout: Annotated[float, ">= 0", "< 1"] = 0.0
    """Side of a square that is painted over in half of the crops, as a share of the crop's side. Not for the U-Net."""

    # ---- masks: seg_predict.py ---------------------------------------------------------------------------------------
    unet: Path | None = None
    """U-Net that was trained elsewhere, for a data set without masks: its file, or its run folder."""
    mask_sigma: Annotated[float, ">= 0"] = 2.0
    """Standard deviation of the Gaussian that smooths the probability map, in pixels at the U-Net's resolution."""
    mask_threshold: Annotated[float, ">= 0", "< 1"] = 0.5
    """A pixel belongs to the lesion if its smoothed probability is at least this."""

    # ---- crops: resize.py --------------------------------------------------------------------------------------------
    masks: Literal["predicted", "ground_truth", "none"] = "predicted"
    """Masks that define the crops. ground_truth and none (the whole frame) are ablations: give them their own
    --run-dir."""
    crop_margin_px: Annotated[int, ">= 0"] = 55
    """Margin around the lesion's box, in pixels of the image."""
    crop_margin_ratio: Annotated[float, ">= 0"] = 0.0
    """Additional margin, as a share of the box's longer side."""
    crop_square: bool = False
    """Widen the box to a square (within the image). Otherwise the box is stretched to a square."""
    image_size: Annotated[int, ">= 1"] = 224
    """Side of the square crops, and of the classifiers' input, in pixels."""
    crop_border: Annotated[float, ">= 0", "<= 1"] = 0.0
    """Border kept around every crop, as a share of its side on each side. Augmentation uses it instead of mirroring
    the crop; prediction cuts it off."""

    # ---- classifiers: training.py, cls_predict.py --------------------------------------------------------------------
    backbone_name: BackboneName = "resnet50"
    """ImageNet backbone to train or to predict with."""
    weights: str = "imagenet"
    """First weights of the backbones, also of the U-Net's encoder: imagenet (downloaded once), none (random), or a
    folder of weight files."""
    se_position: Literal["stages", "top", "none"] = "stages"
    """Position of the squeeze-and-excitation blocks: after the last feature map of each resolution, after the final
    feature map only, or nowhere. The paper does not say."""
    se_ratio: Annotated[int, ">= 1"] = 16
    """Reduction ratio of a squeeze-and-excitation block: its bottleneck has the number of channels divided by this."""
    head_units: Annotated[int, ">= 1"] = 128
    """Width of the hidden dense layer of the head."""
    head_l1: Annotated[float, ">= 0"] = 1e-4
    """L1 penalty on the kernel of the hidden dense layer."""
    head_dropout: Annotated[float, ">= 0", "< 1"] = 0.0
    """Dropout rate of the hidden layer's outputs."""
    batch_norm_momentum: Annotated[float, ">= 0", "< 1"] = 0.99
    """Momentum of the moving statistics of batch normalisation. From random weights with few steps, 0.99 adapts too
    slowly."""
    learning_rate: Annotated[float, "> 0"] = 1e-4
    """Adam's learning rate; with a schedule, the highest."""
    lr_schedule: Literal["constant", "cosine"] = "constant"
    """Keep the learning rate constant, or let it fall to 0 along a cosine over the epochs."""
    warmup_epochs: Annotated[float, ">= 0"] = 0.0
    """Epochs at the beginning of the cosine schedule in which the learning rate rises from 0."""
    se_lr_factor: Annotated[float, "> 0"] = 1.0
    """Factor of the learning rate for the squeeze-and-excitation blocks. With a factor of 1, most of their gates barely
    change."""
    frozen_epochs: Annotated[int, ">= 0"] = 0
    """Epochs before all others in which only the head learns. The backbone is frozen, with its squeeze-and-excitation
    blocks and the moving statistics of batch normalisation."""
    frozen_learning_rate: Annotated[float, "> 0"] = 1e-3
    """Adam's learning rate in the frozen epochs."""
    weight_decay: Annotated[float, ">= 0"] = 0.0
    """Decoupled weight decay (AdamW); 0 is Adam."""
    ema_momentum: Annotated[float, ">= 0", "< 1"] = 0.0
    """Momentum of a moving average of the weights, which is then validated and saved; 0 uses the weights themselves."""
    label_smoothing: Annotated[float, ">= 0", "< 1"] = 0.0
    """Label smoothing: the share of each label that is spread over all classes in the loss."""
    sampling_power: Annotated[float, ">= 0"] = 0.0
    """Images of a class with frequency f are drawn in proportion to f to the power -sampling_power. 0 draws every
    image once per epoch; 1 draws all classes equally often. The training loss corrects for it, so predicted
    probabilities keep the true class frequencies."""
    extra_data_dir: Path | None = None
    """Folder of another data set (docs/data.md), or of HAM10000 as it is published: further images, only for
    training."""
    extra_labels: tuple[str, ...] = ()
    """Mapping of the further images' labels to the classes, each as label=class. A label that is a class needs none,
    and images with other labels are left out. Default: mel=melanoma, bkl=seborrheic_keratosis and nv=nevus, as in
    HAM10000."""
    extra_mask_dir: Path | None = None
    """Folder of the further images' masks, <id>_segmentation.png or .pbm. The U-Net is then also trained on them, and
    the images are cropped by them. Otherwise only the classifiers see the further images, cropped by predicted
    masks."""
    extra_per_epoch: Annotated[int, ">= 0"] = 2000
    """Number of further images that are drawn in each epoch of a classifier, in addition to the training split."""
    batch_size: Annotated[int, ">= 1"] = 32
    """Crops per step, in training and prediction."""
    epochs: Annotated[int, ">= 1"] = 100
    """Largest number of epochs; the best weights on the validation split are kept."""
    monitor: Literal["loss", "cross_entropy", "auc"] = "loss"
    """Metric that early stopping and checkpointing monitor: the total loss (dominated by the L1 penalty at first), the
    cross-entropy, or the mean AUC of the tasks (of ISIC 2017, melanoma and keratosis)."""
    early_stopping_patience: Annotated[int, ">= 1"] = 10
    """Training ends after this many epochs without a better value of the monitored metric."""
    class_weights: Literal["none", "balanced"] = "none"
    """Weigh classes equally, or by the inverse of their frequency in the training split. Not with sampling_power or
    extra_data_dir, whose loss keeps the true class frequencies."""
    folds: Annotated[int, ">= 0"] = 0
    """Number of folds of the training split, 2 or more, for out-of-fold predictions: each fold is predicted by a
    network trained on the others. 0 for none."""
    fold: Annotated[int | None, ">= 0"] = None
    """Fold that training.py holds out, counted from 1, to share the work among machines. 0 trains only the network of
    all training images. Without this option, training.py trains that network, then every fold."""

    # ---- vote: vote.py -----------------------------------------------------------------------------------------------
    backbones: tuple[BackboneName, ...] = ("resnet50", "densenet169", "inception_v3", "inception_resnet_v2", "xception")
    """Networks that vote, in the order of the voting network's input channels."""
    vote_fit_split: Literal["training", "validation"] = "training"
    """Split whose predictions the voting network is fitted on. The published code uses training, on which the
    backbones are overfitted. A second vote is fitted on the other split."""
    vote_seeds: Annotated[int, ">= 1"] = 20
    """Number of seeds with which the voting network is fitted. The first seed gives the vote; all seeds give the
    standard deviation of its metrics."""
    vote_filters: Annotated[int, ">= 1"] = 20
    """Filters of the first locally connected layer."""
    vote_learning_rate: Annotated[float, "> 0"] = 1e-3
    """Adam's learning rate."""
    vote_batch_size: Annotated[int, ">= 1"] = 32
    """Images per step."""
    vote_epochs: Annotated[int, ">= 1"] = 20
    """Epochs of training; the last weights are kept."""
    stacking_c: Annotated[float, "> 0"] = 1.0
    """Inverse strength of the L2 penalty of the logistic regression on the backbones' log-probabilities."""
    decide_by: Literal["vote", "mean", "stacking", "temperature", "vote_oof"] = "vote"
    """Method whose diagnosis predict.py and the report show: the voting network (as published), the mean of the
    backbones, or a method that is fitted on out-of-fold predictions (with folds): logistic regression, the mean with a
    temperature, or a second voting network."""


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
    # Current training methods instead of the published protocol, on images of any size. Most figures in
    # docs/results.md are from earlier versions with se_lr_factor=10; resnet50 at 512 pixels was trained with this one.
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
        frozen_epochs=1,
        weight_decay=1e-4,  # float32 rounds it away at this rate; at 1e-3, from random weights, it has an effect
        ema_momentum=0.995,
        label_smoothing=0.05,
        sampling_power=0.4,
        epochs=12,
        monitor="cross_entropy",
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
