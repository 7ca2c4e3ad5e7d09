"""Stage 3 of 6: crop every image to its lesion and resize the crop.

    python resize.py --preset fine_tuned

Reads   images of the splits in <data-dir>, see data/dataset.py
        <run-dir>/masks/<split>/<id>_segmentation.png    with --masks ground_truth those of the data set, with
                                                         --masks none no masks
        the masks in --extra-mask-dir                    for the split "extra", if that option is given

Writes  <run-dir>/crops/<split>/<id>.png       RGB, image_size x image_size pixels, plus the border; the whole frame if
                                               the mask is empty
        <run-dir>/crops/<split>/config.json    the settings they were made with; --extra-data-dir adds a split "extra"
        <run-dir>/results/crops_<split>.png    some images with the outline of their mask, their box and their crop
"""

from pipeline import command_line

if __name__ == "__main__":
    config = command_line.start(__doc__)

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from data.images import read_mask, write_image
from data.lesion import border_pixels, crop_box, image_view, read_crop
from evaluation.plots import crop_examples, save
from pipeline import checks, inputs
from pipeline.data_sets import data_set
from pipeline.manifest import Manifest
from pipeline.paths import RunFolder
from pipeline.settings import write_settings
from utils.progress import progress


def main(config):
    images, sizes, masks = {}, {}, {}
    splits = [*config.splits, *inputs.extra_split(config)]
    for split in splits:
        images[split], sizes[split] = inputs.images(config, split)
        if config.masks != "none":
            predicted = not config.extra_mask_dir if split == "extra" else config.masks == "predicted"
            masks[split] = inputs.masks(config, split, sizes[split], predicted=predicted)
    checks.check_splits(config)
    for split in splits:
        write_crops(config, split, images[split], sizes[split], masks.get(split, {}))


def write_crops(config, split, images, sizes, masks):
    """Crop the images of a split that have no crop yet, or all of them if something changed, and draw some.

    Args:
        images, sizes, masks: dictionaries from image id to path, to (height, width) in pixels and to the mask's path;
            an image without a mask is its own crop.
    """
    run, rule = RunFolder(config.run_dir), inputs.crop_rule(config)
    files = {image_id: run.crop(split, image_id) for image_id in images}
    made_from = {"images": images.values(), "masks of the images": masks}
    outputs = [*files.values(), run.crops_settings(split), run.crop_examples(split)]
    manifest = Manifest(config, f"crops_{split}", "crops", "resize.py", made_from, outputs, one_by_one=True)
    if manifest.up_to_date():
        return

    def crop(image_id):
        mask = read_mask(masks[image_id]) if image_id in masks else None
        box, border = crop_box(mask, sizes[image_id], rule), border_pixels(rule.size, rule.border)
        write_image(files[image_id], read_crop(images[image_id], box, rule.size, border))
        return mask is not None and bool(mask.any())

    manifest.begin()
    write_settings(config, run.crops_settings(split))
    missing = [image_id for image_id, file in files.items() if not file.exists()]
    with ThreadPoolExecutor(config.workers) as pool:
        lesions = sum(progress(pool.map(crop, missing), split, len(missing)))
    source = data_set(config, split).folder
    print(f"read {len(missing)} {split} images from {source}, wrote their crops to {run.crops(split)}")
    print(f"{split}: {lesions} crops of a lesion, {len(missing) - lesions} whole frames")
    save(crop_examples(examples(rule, images, masks, files)), run.crop_examples(split))
    manifest.finish()


def examples(rule, images, masks, files, count=8):
    """Some images of a split, evenly spread: dictionary from image id to a `data.lesion.ImageView`."""
    ids = list(images)
    views = {}
    for image_id in (ids[round(k)] for k in np.linspace(0, len(ids) - 1, min(count, len(ids)))):
        mask = read_mask(masks[image_id]) if image_id in masks else None
        views[image_id] = image_view(images[image_id], mask, rule, shorter_side=256, crop_file=files[image_id])
    return views


if __name__ == "__main__":
    command_line.run(main, config)
