"""Stage 3 of 6: crop every image to its lesion and resize the crop.

    python resize.py --preset isic2017_256

Reads   <data-dir>/ISIC-2017_*_Data/*.jpg
        <run-dir>/masks/<split>/<id>_segmentation.png    (--masks ground_truth: those of the data set; none: no mask;
                                                     of the split "extra" those of --extra-mask-dir, if that is given)

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

from data.images import read_image, read_mask, write_image
from data.lesion import border_pixels, crop_box, read_crop, without_border
from data.progress import progress
from evaluation.plots import crop_examples, save
from pipeline import checks, inputs
from pipeline.manifest import Manifest
from pipeline.paths import RunFolder
from pipeline.settings import write_settings


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
    """Crop the images of a split whose crops are not there, or all if something changed, and draw some of them.

    Args:
        images, sizes, masks: dictionaries from image id to path, to (height, width) in pixels and to the mask's path;
            an image without a mask is its own crop.
    """
    run = RunFolder(config.run_dir)
    files = {image_id: run.crop(split, image_id) for image_id in images}
    made_from = {"images": images.values(), "masks of the images": masks.values()}
    outputs = [*files.values(), run.crops_settings(split), run.crop_examples(split)]
    manifest = Manifest(config, f"crops_{split}", "crops", "resize.py", made_from, outputs, one_by_one=True)
    if manifest.up_to_date():
        return

    def crop(image_id):
        mask, box = mask_and_box(config, masks.get(image_id), sizes[image_id])
        border = border_pixels(config.image_size, config.crop_border)
        write_image(files[image_id], read_crop(images[image_id], box, config.image_size, border))
        return mask is not None and bool(mask.any())

    manifest.begin()
    write_settings(config, run.crops_settings(split))
    missing = [image_id for image_id, file in files.items() if not file.exists()]
    with ThreadPoolExecutor(config.workers) as pool:
        lesions = sum(progress(pool.map(crop, missing), split, len(missing)))
    source = inputs.data_folder(config, split)
    print(f"read {len(missing)} {split} images from {source}, wrote their crops to {run.crops(split)}")
    print(f"{split}: {lesions} crops of a lesion, {len(missing) - lesions} whole frames")
    save(crop_examples(list(examples(config, images, sizes, masks, files))), run.crop_examples(split))
    manifest.finish()


def mask_and_box(config, mask_file, size):
    """The mask in a file, None if there is none, and the box of the crop; see `data.lesion.crop_box`."""
    mask = read_mask(mask_file) if mask_file else None
    return mask, crop_box(mask, size, config.crop_margin_px, config.crop_margin_ratio, config.crop_square)


def examples(config, images, sizes, masks, files, count=8):
    """Some images of a split, evenly spread, as `evaluation.plots.crop_examples` takes them."""
    ids = list(images)
    for image_id in (ids[round(k)] for k in np.linspace(0, len(ids) - 1, min(count, len(ids)))):
        image = read_image(images[image_id], at_least=256)
        scale = image.shape[0] / sizes[image_id][0]
        crop = without_border(read_image(files[image_id]), config.image_size)
        yield image_id, image, scale, *mask_and_box(config, masks.get(image_id), sizes[image_id]), crop


if __name__ == "__main__":
    command_line.run(main, config)
