"""Stage 3 of 6: crop every image to its lesion and resize the crop.

    python resize.py --preset isic2017_256

Reads   <data-dir>/ISIC-2017_*_Data/*.jpg
        <run-dir>/masks/<split>/<id>_segmentation.png    (--masks ground_truth: those of the data set; none: no mask)

Writes  <run-dir>/crops/<split>/<id>.png       RGB, image_size x image_size pixels, plus the border; the whole frame if
                                               the mask is empty
        <run-dir>/crops/<split>/config.json    the settings they were made with; --extra-data-dir adds a split "extra"
        <run-dir>/results/crops_<split>.png    some images with the outline of their mask, their box and their crop
"""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

from config import write_settings
from pipeline import command_line, inputs
from pipeline.made import Made


def main(config):
    import numpy as np
    from tqdm import tqdm

    from data.images import read_image, read_mask, write_image
    from data.lesion import border_pixels, crop_box, read_crop, without_border
    from evaluation.plots import crop_examples, save

    images, masks, sizes = {}, {}, {}
    splits = [*config.splits, *inputs.extra_split(config)]
    border = border_pixels(config.image_size, config.crop_border)
    for split in splits:
        images[split], sizes[split] = inputs.images(config, split)
        if config.masks != "none":
            predicted = config.masks == "predicted" or split == "extra"  # HAM10000 comes without masks
            masks[split] = inputs.masks(config, split, sizes[split], predicted=predicted)

    def mask_and_box(split, image_id):
        mask = read_mask(masks[split][image_id]) if image_id in masks.get(split, {}) else None
        margins = config.crop_margin_px, config.crop_margin_ratio, config.crop_square
        return mask, crop_box(mask, sizes[split][image_id], *margins)

    def crop_file(split, image_id):
        return config.run_dir / "crops" / split / f"{image_id}.png"

    def make_crop(split, image_id):
        mask, box = mask_and_box(split, image_id)
        write_image(crop_file(split, image_id), read_crop(images[split][image_id], box, config.image_size, border))
        return mask is not None and bool(mask.any())

    for split in splits:
        ids = list(images[split])
        folder = config.run_dir / "crops" / split
        picture = config.run_dir / "results" / f"crops_{split}.png"
        outputs = [*(crop_file(split, image_id) for image_id in ids), folder / "config.json", picture]
        made_from = {"images": images[split].values(), "masks of the images": masks.get(split, {}).values()}
        made = Made(config, f"crops_{split}", "crops", "resize.py", made_from, outputs, one_by_one=True)
        if made.up_to_date():
            continue
        made.begin()
        write_settings(config, folder / "config.json")
        missing = [image_id for image_id in ids if not crop_file(split, image_id).exists()]
        with ThreadPoolExecutor(config.workers) as pool:
            found = pool.map(partial(make_crop, split), missing)
            lesions = sum(tqdm(found, split, len(missing), unit="image", disable=None))
        print(f"read {len(missing)} {split} images from {config.data_dir}, wrote their crops to {folder}")
        print(f"{split}: {lesions} crops of a lesion, {len(missing) - lesions} whole frames")
        shown = [ids[round(k)] for k in np.linspace(0, len(ids) - 1, min(8, len(ids)))]
        examples = []
        for image_id in shown:
            image = read_image(images[split][image_id], at_least=256)
            scale = image.shape[0] / sizes[split][image_id][0]
            crop = without_border(read_image(crop_file(split, image_id)), config.image_size)
            examples.append((image_id, image, scale, *mask_and_box(split, image_id), crop))
        save(crop_examples(examples), picture)
        made.finish()


if __name__ == "__main__":
    command_line.run(main, __doc__)
