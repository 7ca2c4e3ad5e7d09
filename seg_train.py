"""Stage 1 of 6: train the U-Net that segments the lesion.

    python seg_train.py --preset isic2017_256

Reads   <data-dir>/ISIC-2017_{Training,Validation}_Data/*.jpg
        <data-dir>/ISIC-2017_{Training,Validation}_Part1_GroundTruth/*_segmentation.png

Writes  <run-dir>/unet/unet.keras    the network with the weights of its best validation loss
        <run-dir>/unet/history.csv   losses and learning rate, a row an epoch
        <run-dir>/unet/config.json   the settings it was trained with
"""

from functools import partial

import stage
from made import Made


def main(config):
    images, masks = {}, {}
    for split in ("training", "validation"):
        paths, sizes = stage.images(config, split)
        found = stage.masks(config, split, sizes)
        images[split], masks[split] = [paths[image_id] for image_id in found], list(found.values())
        print(f"read {len(found)} {split} images with masks from {config.data_dir}")
    folder = config.run_dir / "unet"
    checkpoints = folder / "checkpoints"
    files = {f"{split} images": images[split] for split in images} | {f"{split} masks": masks[split] for split in masks}
    outputs = [folder / "config.json", folder / "history.csv", folder / "unet.keras"]
    ignored = [] if config.unet_batch_norm else ["batch_norm_momentum"]
    made = Made(config, "unet", "unet", "seg_train.py", files, outputs, checkpoints=checkpoints, ignored=ignored)
    if made.up_to_date():
        return

    import keras

    from data.batches import Batches, Lazy
    from data.files import whole_file
    from data.images import read_mask, read_square, read_square_mask
    from evaluation.metrics import mask_metrics, mean_mask_metrics
    from models.fitting import fit, save_network
    from models.unet import bce_dice, segment, unet

    keras.utils.set_random_seed(config.seed)
    stage.set_precision(config)
    batches = {
        split: Batches(
            Lazy(partial(read_square, size=config.unet_image_size), images[split]),
            Lazy(partial(read_square_mask, size=config.unet_image_size), masks[split]),
            batch_size=config.unet_batch_size,
            augment=stage.augmentation(config) if split == "training" else None,
            shuffle=split == "training",
            seed=config.seed,
            workers=config.workers,
        )
        for split in images
    }
    network = unet(
        config.unet_image_size,
        config.unet_blocks,
        config.unet_filters,
        config.unet_batch_norm,
        config.batch_norm_momentum,
    )
    network.compile(
        optimizer=keras.optimizers.Adam(config.unet_learning_rate),
        loss={"bce": "binary_crossentropy", "bce_dice": bce_dice}[config.unet_loss],
    )
    print(f"training a U-Net of {network.count_params():,} parameters at {config.unet_image_size} pixels")
    plateau = keras.callbacks.ReduceLROnPlateau(
        factor=config.unet_lr_factor, patience=config.unet_lr_patience, min_lr=config.unet_lr_min
    )
    made.begin()
    history = fit(
        network, batches["training"], batches["validation"], config.unet_epochs, checkpoints, callbacks=[plateau]
    )

    stage.save_settings(config, folder / "config.json")
    with whole_file(folder / "history.csv") as part:
        history.to_csv(part, index=False)
    save_network(network, folder / "unet.keras")
    print(f"wrote {folder}/unet.keras, history.csv and config.json")

    truth = dict(zip(images["validation"], masks["validation"], strict=True))
    overlaps = segment(
        network,
        images["validation"],
        lambda path, mask: mask_metrics(mask, read_mask(truth[path])),
        config.unet_batch_size,
        config.workers,
        config.mask_sigma,
        config.mask_threshold,
    )
    means = mean_mask_metrics(list(overlaps))
    print(f"validation: Jaccard {means['jaccard']:.3f}, Dice {means['dice']:.3f} (mean over {len(truth)} images)")
    made.finish()


if __name__ == "__main__":
    stage.run(main, __doc__)
