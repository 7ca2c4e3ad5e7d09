"""Further labelled images, for training alone: the data sets whose layout is known, each told by its table."""

from pathlib import Path

from data import ham10000
from data.own_images import masks_in
from utils.errors import InputError

DATA_SETS = (ham10000,)


def mask_paths(folder, image_ids):
    """Paths of the masks of further images; see `data.own_images.masks_in`.

    Args:
        folder: where the masks lie, itself and not its folders.
        image_ids: ids of the images.

    Returns:
        Dictionary from image id to path, in the order of `image_ids`. That of a mask which is not there is the name
        that it should have: it shows when it is read.

    Raises:
        InputError: if the folder is missing, or two files are the mask of one image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is missing: point --extra-mask-dir at the masks of the further images")
    found = masks_in(folder)
    return {image_id: found.get(image_id, folder / f"{image_id}_segmentation.png") for image_id in image_ids}


def data_set(folder):
    """The module that reads a folder of further images: with `table`, `image_paths` and `read_labels`.

    Raises:
        InputError: if the folder holds the table of none.
    """
    for known in DATA_SETS:
        if known.table(folder).is_file():
            return known
    tables = " or ".join(known.table(folder).name for known in DATA_SETS)
    raise InputError(f"{folder} holds no {tables}: point --extra-data-dir at a data set in its official layout")
