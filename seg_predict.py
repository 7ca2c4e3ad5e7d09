"""Stage 2 of 6: segment the lesion in every image of the splits.

    python seg_predict.py --preset isic2017_256

Reads   <run-dir>/unet/unet.keras
        <data-dir>/ISIC-2017_*_Data/*.jpg
        <data-dir>/ISIC-2017_*_Part1_GroundTruth/*_segmentation.png    only to measure the overlap, where it is there

Writes  <run-dir>/masks/<split>/<id>_segmentation.png    one-bit PNG, 0 or 255, as large as the image
        <run-dir>/masks/<split>/config.json              the settings they were made with
        <run-dir>/results/segmentation_<split>.csv       the challenge's figures of each image with ground truth
        <run-dir>/results/segmentation.json              their means over each split
"""

import json

import stage
from made import Made


def main(config):
    from tqdm import tqdm

    from data.files import whole_file
    from data.images import write_image
    from data.isic2017 import mask_folder
    from evaluation.bootstrap import mean_intervals
    from evaluation.metrics import mean_mask_metrics

    network_file = stage.need(config.run_dir / "unet" / "unet.keras", "seg_train.py")
    images, truths = {}, {}
    splits = [*config.splits, *stage.extra_split(config)]
    for split in splits:
        images[split], sizes = stage.images(config, split)
        if split != "extra" and mask_folder(config.data_dir, split).is_dir():
            truths[split] = stage.masks(config, split, sizes)

    network, overlap = None, {}
    for split in splits:
        folder = config.run_dir / "masks" / split
        files = {image_id: folder / f"{image_id}_segmentation.png" for image_id in images[split]}
        made_from = {"U-Net": [network_file], "images": images[split].values()}
        outputs = [*files.values(), folder / "config.json"]
        made = Made(config, f"masks_{split}", "masks", "seg_predict.py", made_from, outputs, one_by_one=True)
        if not made.up_to_date():
            network = network or stage.load_predictor(config, network_file, "seg_train.py", "unet")
            made.begin()
            stage.save_settings(config, folder / "config.json")
            missing = [image_id for image_id, file in files.items() if not file.exists()]

            from models.unet import segment

            masks = segment(
                network,
                [images[split][image_id] for image_id in missing],
                lambda path, mask, files=files: write_image(files[path.stem], mask),
                config.unet_batch_size,
                config.workers,
                config.mask_sigma,
                config.mask_threshold,
            )
            for _ in tqdm(masks, split, len(missing), unit="image", disable=None):
                pass
            made.finish()
            print(f"read {len(missing)} {split} images from {config.data_dir}, wrote their masks to {folder}")
        if split in truths:
            agreements = overlaps(config, split, files, truths[split])
            means = mean_mask_metrics(agreements)
            intervals = mean_intervals(agreements, seed=config.seed)
            overlap[split] = {"images": len(agreements), **means, "intervals": intervals}
            print(
                f"{split}: Jaccard {means['jaccard']:.3f}, thresholded at 0.65 {means['threshold_jaccard']:.3f}, "
                f"Dice {means['dice']:.3f} (mean over {len(agreements)} images)"
            )
    file = config.run_dir / "results" / "segmentation.json"
    with stage.shared(file):
        others = stage.read_json(file, "seg_predict.py") if file.exists() else {}
        with whole_file(file) as part:
            part.write_text(json.dumps(others | overlap, indent=2) + "\n")


def overlaps(config, split, masks, truths):
    """Figures of each mask of a split, measured anew only if a mask or its ground truth changed.

    Args:
        masks, truths: dictionaries from image id to the file of the predicted mask and of the true one; only images
            that have both are measured.

    Returns:
        List of dictionaries, see `evaluation.metrics.mask_metrics`, in the order of `truths`.
    """
    from concurrent.futures import ThreadPoolExecutor

    import pandas as pd

    from data.files import whole_file
    from data.images import read_mask
    from evaluation.metrics import mask_metrics

    file = config.run_dir / "results" / f"segmentation_{split}.csv"
    pairs = [(masks[image_id], truth) for image_id, truth in truths.items()]
    made_from = {"masks": masks.values(), "ground truth": truths.values()}
    made = Made(config, f"segmentation_{split}", "overlap", "seg_predict.py", made_from, [file])
    if not made.up_to_date():
        with ThreadPoolExecutor(config.workers) as pool:
            figures = list(pool.map(lambda pair: mask_metrics(*map(read_mask, pair)), pairs))
        made.begin()
        with whole_file(file) as part:
            pd.DataFrame(figures, index=pd.Index(truths, name="image_id")).to_csv(part)
        made.finish()
    return pd.read_csv(file, index_col="image_id").to_dict("records")


if __name__ == "__main__":
    stage.run(main, __doc__)
