"""The official folder layout of HAM10000, further labelled images for training the classifiers.

    HAM10000_images_part_1/ISIC_0027419.jpg
    HAM10000_images_part_2/ISIC_0024306.jpg
    HAM10000_metadata.csv    lesion_id,image_id,dx,dx_type,age,sex,localization

The table may also end on `.tab`, with tabs between its fields, or have no suffix, as Harvard Dataverse gives it. Images
are found beside the table and in any folder whose name begins with `HAM10000_images`, in letters of either case.

Source: Tschandl et al., "The HAM10000 dataset", Scientific Data 5, 180161, 2018, https://doi.org/10.1038/sdata.2018.161
(CC BY-NC 4.0). Its diagnoses are not quite the challenge's: `bkl` holds seborrheic keratoses, and beside them solar
lentigines and lichen-planus-like keratoses, all of which count as seborrheic keratosis here.
"""

from pathlib import Path

import numpy as np

from data.isic2017 import CLASSES
from data.own_images import images_in, standing
from data.tables import read_cells
from utils.errors import InputError

DIAGNOSES = {"mel": "melanoma", "bkl": "seborrheic_keratosis", "nv": "nevus"}
LEFT_OUT = ("akiec", "bcc", "df", "vasc")  # its other diagnoses
TABLE = "HAM10000_metadata.csv"
TABLES = (TABLE, "HAM10000_metadata.tab", "HAM10000_metadata")  # as other sites call it
IMAGES = "ham10000_images"  # begin of the names of folders, in lower case


def image_paths(data_dir):
    """Find the images whose diagnosis is one of `DIAGNOSES`.

    Args:
        data_dir: folder in the official layout.

    Returns:
        Dictionary from image id to path, sorted by id.

    Raises:
        InputError: if the table or an image is missing.
    """
    ids = sorted(diagnoses(data_dir).index)
    found = {}
    for folder in folders(Path(data_dir)):
        for path in images_in(folder)[0]:
            first = found.setdefault(path.stem, path)
            if first is not path and first.stat().st_size != path.stat().st_size:
                raise InputError(f"{first} and {path} are one image by their names, and differ: remove one")
    absent = [image_id for image_id in ids if image_id not in found]
    if absent:
        raise InputError(
            f"{data_dir} lacks {absent[0]}.jpg ({len(absent)} of the {len(ids)} images that are of use): unpack "
            f"both official archives, HAM10000_images_part_1 and HAM10000_images_part_2, into it"
        )
    return {image_id: found[image_id] for image_id in ids}


def folders(data_dir):
    """Folders that may hold images: the data set's own, and those in it that are called so, sorted by name."""
    names = sorted(path.name for path in data_dir.glob("*") if path.name.lower().startswith(IMAGES) and path.is_dir())
    return [data_dir, *(standing(data_dir, name) for name in names)]


def table(data_dir):
    """Path of the table; its official name if there is none."""
    paths = [standing(data_dir, name) for name in TABLES]
    return next((path for path in paths if path.is_file()), paths[0])


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
    path = table(data_dir)
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
