"""Stage 1 of 6: train the U-Net that segments the lesion.

    python seg_train.py --preset fine_tuned

Reads   images and masks of the training and validation split in <data-dir>, see data/dataset.py
        further images and <extra-mask-dir>/*_segmentation.png or .pbm    with --extra-data-dir and --extra-mask-dir

Writes  <run-dir>/unet/unet.keras    the network with the weights of its best validation loss
        <run-dir>/unet/history.csv   losses and learning rate, one row per epoch
        <run-dir>/unet/config.json   the settings it was trained with
        <run-dir>/unet/copies/<split>/<id>.png, <id>_segmentation.png
                                     images and masks at the size of the network, which every epoch reads; only this
                                     script needs them, and only to train again
"""

from pipeline import command_line

if __name__ == "__main__":
    config = command_line.start(__doc__)

from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np

from data.batches import Batches, LazyImages
from data.images import read_grey, read_image, read_square, read_square_mask, write_image
from models.unet import bce_dice, unet, unet_with_encoder
from pipeline import checks, inputs
from pipeline.data_sets import data_set
from pipeline.devices import set_devices_and_precision
from pipeline.fitting import Plateau, augmentation, fit, save_trained, warmup_and_cosine
from pipeline.logs import need_tensorboard, tensorboard_folder
from pipeline.manifest import Manifest
from pipeline.paths import RunFolder
from utils.progress import progress


def main(config):
    need_tensorboard(config)
    images, masks = {}, {}
    for split in ("training", "validation", *(inputs.extra_split(config) if config.extra_mask_dir else [])):
        paths, sizes = inputs.images(config, split)
        found = inputs.masks(config, split, sizes)
        images[split], masks[split] = {i: paths[i] for i in found}, found
        print(f"read {len(found)} {split} images with masks from {data_set(config, split).folder}")
    checks.check_splits(config)
    trained = RunFolder(config.run_dir).unet
    files = {f"{split} images": images[split].values() for split in images}
    files |= {f"{split} masks": masks[split] for split in masks}
    if config.unet_encoder != "none":
        files["weight files"] = inputs.weight_files(config, config.unet_encoder)
    outputs = [trained.settings, trained.history, trained.network]
    ignored = unused_settings(config, splits=images)
    manifest = Manifest(
        config, "unet", "unet", "seg_train.py", files, outputs, checkpoints=trained.checkpoints, ignored=ignored
    )
    if not manifest.up_to_date():
        train(config, images, masks, manifest)


def train(config, images, masks, manifest):
    """Train the U-Net and save it.

    Args:
        config: the settings.
        images, masks: dictionaries from "training", "validation" and, with further images, "extra" to dictionaries
            from image id to path.
        manifest: the `Manifest` of the U-Net.
    """
    trained = RunFolder(config.run_dir).unet
    keras.utils.set_random_seed(config.seed)
    set_devices_and_precision(config)
    network = compiled_unet(config)
    extra = (images["extra"], masks["extra"]) if "extra" in images else None
    batches = [
        make_batches(config, "training", images["training"], masks["training"], extra),
        make_batches(config, "validation", images["validation"], masks["validation"]),
    ]
    print(f"training a U-Net of {network.count_params():,} parameters at {config.unet_image_size} pixels")
    if config.unet_lr_schedule == "cosine":
        schedule = warmup_and_cosine(config.unet_learning_rate, config.unet_epochs, warmup=0)
    else:
        schedule = Plateau(factor=config.unet_lr_factor, patience=config.unet_lr_patience, min_lr=config.unet_lr_min)
    manifest.begin()
    logs = tensorboard_folder(config, "unet", trained.checkpoints)
    history = fit(
        network,
        *batches,
        config.unet_epochs,
        trained.checkpoints,
        callbacks=[schedule],
        logs=logs,
        checkpoint_seconds=config.checkpoint_seconds,
    )
    save_trained(network, history, config, trained)
    manifest.finish()


def unused_settings(config, splits):
    """The settings of the U-Net that have no effect, given the other settings and the splits it is trained on."""
    unused = [] if "extra" in splits else ["unet_extra_per_epoch"]
    if config.unet_lr_schedule == "cosine":
        unused += ["unet_lr_factor", "unet_lr_patience", "unet_lr_min"]
    if config.unet_encoder != "none":
        return [*unused, "unet_blocks", "unet_batch_norm"]
    return [*unused, "weights", *([] if config.unet_batch_norm else ["batch_norm_momentum"])]


def compiled_unet(config):
    """The untrained U-Net that the settings describe, compiled."""
    side, filters, momentum = config.unet_image_size, config.unet_filters, config.batch_norm_momentum
    if config.unet_encoder == "none":
        network = unet(side, config.unet_blocks, filters, config.unet_batch_norm, momentum)
    else:
        network = unet_with_encoder(config.unet_encoder, side, filters, momentum, config.weights)
    network.compile(
        optimizer=keras.optimizers.Adam(config.unet_learning_rate),
        loss={"bce": "binary_crossentropy", "bce_dice": bce_dice}[config.unet_loss],
    )
    return network


def make_batches(config, split, images, masks, extra=None):
    """Batches of a split's copies, those of the training split augmented and in random order.

    Args:
        images, masks: dictionaries from image id to path, in the same order.
        extra: the same two dictionaries of the further images that are mixed in, or None.
    """
    image_copies, mask_copies = resized_cache(config, split, images, masks)
    sampling_weights, per_epoch = None, len(images)
    if extra:
        further_images, further_masks = resized_cache(config, "extra", *extra)
        drawn = config.unet_extra_per_epoch
        sampling_weights = np.repeat([1, drawn / len(further_images)], [len(images), len(further_images)])
        per_epoch += drawn
        image_copies, mask_copies = image_copies + further_images, mask_copies + further_masks
    return Batches(
        LazyImages(read_image, image_copies, config.in_memory),
        LazyImages(read_grey, mask_copies, config.in_memory),
        batch_size=config.unet_batch_size,
        augment=augmentation(config) if split == "training" else None,
        shuffle=split == "training",
        weights=sampling_weights,
        per_epoch=per_epoch,
        seed=config.seed,
        workers=config.workers,
    )


def resized_cache(config, split, images, masks):
    """Copies of images and masks at the U-Net's size, made unless they are up to date.

    A full-size image and its mask take 40 to 70 ms to decode, their copies of 224 pixels 1.3, in every epoch. The
    copies stay for the next training, one that goes on or one with other settings: they are 77 kB a pair.

    Args:
        images, masks: dictionaries from image id to path, in the same order.

    Returns:
        Two lists of PNG files in that order, equal to what `read_square` and `read_square_mask` make of the originals.
    """
    folder, size = RunFolder(config.run_dir).resized_cache(split), config.unet_image_size
    image_copies = [folder / f"{image_id}.png" for image_id in images]
    mask_copies = [folder / f"{image_id}_segmentation.png" for image_id in images]
    made_from = {f"{split} images": images.values(), f"{split} masks": masks}
    outputs = [*image_copies, *mask_copies]
    manifest = Manifest(config, f"copies_{split}", "copies", "seg_train.py", made_from, outputs, one_by_one=True)
    if manifest.up_to_date():
        return image_copies, mask_copies

    def copy(image, mask, image_copy, mask_copy):
        if not image_copy.exists():
            write_image(image_copy, read_square(image, size))
        if not mask_copy.exists():
            write_image(mask_copy, read_square_mask(mask, size), one_bit=False)

    manifest.begin()
    with ThreadPoolExecutor(config.workers) as pool:
        done = pool.map(copy, images.values(), masks.values(), image_copies, mask_copies)
        for _ in progress(done, f"{split} copies", len(images)):
            pass
    manifest.finish()
    print(f"copied {len(images)} {split} images and masks at {size} pixels to {folder}")
    return image_copies, mask_copies


if __name__ == "__main__":
    command_line.run(main, config)
