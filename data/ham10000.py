"""The official folder layout of HAM10000, further labelled images for training the classifiers.

    HAM10000_images_part_1/ISIC_0027419.jpg
    HAM10000_images_part_2/ISIC_0024306.jpg
    HAM10000_metadata.csv    lesion_id,image_id,dx,dx_type,age,sex,localization

Source: Tschandl et al., "The HAM10000 dataset", Scientific Data 5, 180161, 2018, https://doi.org/10.1038/sdata.2018.161
(CC BY-NC 4.0). Its diagnoses are not quite the challenge's: `bkl` holds seborrheic keratoses, and beside them solar
lentigines and lichen-planus-like keratoses, all of which count as seborrheic keratosis here.
"""

from pathlib import Path

import numpy as np

from data.errors import InputError
from data.isic2017 import CLASSES
from data.tables import read_cells

DIAGNOSES = {"mel": "melanoma", "bkl": "seborrheic_keratosis", "nv": "nevus"}
LEFT_OUT = ("akiec", "bcc", "df", "vasc")  # its other diagnoses
TABLE = "HAM10000_metadata.csv"


def image_paths(data_dir):
    """Find the images whose diagnosis is one of `DIAGNOSES`.

    Args:
        data_dir: folder in the official layout.

    Returns:
        Dictionary from image id to path, sorted by id.

    Raises:
        InputError: if the table or an image is missing.
    """
    found = {path.stem: path for path in Path(data_dir).glob("HAM10000_images_part_[12]/ISIC_*.[jJ][pP][gG]")}
    ids = sorted(diagnoses(data_dir).index)
    absent = [image_id for image_id in ids if image_id not in found]
    if absent:
        raise InputError(
            f"{data_dir}/HAM10000_images_part_1 and _2 lack {absent[0]}.jpg ({len(absent)} images in all): unpack both "
            f"official archives into it"
        )
    return {image_id: found[image_id] for image_id in ids}


def read_labels(data_dir, image_ids):
    """Read the diagnoses of some images, joined by id.

    Args:
        data_dir: folder in the official layout.
        image_ids: ids as `image_paths` gives them.

    Returns:
        One-hot array (images, 3), float32, columns in the order of `CLASSES`, rows in the order of `image_ids`.

    Raises:
        InputError: if the table is missing or unreadable.
    """
    classes = diagnoses(data_dir).loc[list(image_ids)].map(CLASSES.index)
    return np.eye(len(CLASSES), dtype=np.float32)[classes.to_numpy()]


def diagnoses(data_dir):
    """Series from image id to class name, of the images whose diagnosis is one of `DIAGNOSES`.

    Raises:
        InputError: if the table is missing or unreadable, holds a diagnosis that HAM10000 does not have, or none of
            `DIAGNOSES`.
    """
    path = Path(data_dir) / TABLE
    if not path.exists():
        raise InputError(f"{path} is missing: point --extra-data-dir at HAM10000 in its official layout")
    found = read_cells(path, ["image_id", "dx"])["dx"].str.lower()
    unknown = found[~found.isin([*DIAGNOSES, *LEFT_OUT])]
    if len(unknown):
        raise InputError(
            f"{path} has the diagnosis {unknown.iloc[0]!r} for {unknown.index[0]} ({len(unknown)} such rows): HAM10000 "
            f"has {', '.join([*DIAGNOSES, *LEFT_OUT])}: mend the rows or drop them"
        )
    found = found[found.isin(DIAGNOSES)].map(DIAGNOSES)
    if found.empty:
        raise InputError(f"{path} has no image of {', '.join(DIAGNOSES)}: replace the file, or drop --extra-data-dir")
    return found
