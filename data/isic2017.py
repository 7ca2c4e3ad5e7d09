"""The official folder layout of the ISIC 2017 challenge: images, Part 1 masks and Part 3 labels.

    ISIC-2017_Training_Data/ISIC_0000000.jpg
    ISIC-2017_Training_Part1_GroundTruth/ISIC_0000000_segmentation.png
    ISIC-2017_Training_Part3_GroundTruth.csv

and the same with `Validation` and `Test_v2`. Other ids are read as well, other formats (`data.images.SUFFIXES`),
and names in letters of either case. The image folders also hold superpixel maps and a metadata table, which are passed
over. Source: Codella et al., "Skin Lesion Analysis Toward Melanoma Detection: A Challenge at the 2017 ISBI",
https://arxiv.org/abs/1710.05006.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from data.errors import InputError
from data.images import SUFFIXES
from data.own_images import images_in, masks_in, standing

CLASSES = ("melanoma", "seborrheic_keratosis", "nevus")
ID_COLUMNS = ("image_id", "image", "image_name", "isic_id")  # of this challenge, later ones, and the archive
OFFICIAL_NAME = {"training": "Training", "validation": "Validation", "test": "Test_v2"}
SAMPLE = Path("data/sample")  # where `data.sample` writes


def image_folder(data_dir, split):
    """Folder of a split's images."""
    return standing(data_dir, f"ISIC-2017_{OFFICIAL_NAME[split]}_Data")


def mask_folder(data_dir, split):
    """Folder of a split's ground-truth masks (challenge Part 1)."""
    return standing(data_dir, f"ISIC-2017_{OFFICIAL_NAME[split]}_Part1_GroundTruth")


def label_table(data_dir, split):
    """Path of a split's diagnoses (challenge Part 3)."""
    return standing(data_dir, f"ISIC-2017_{OFFICIAL_NAME[split]}_Part3_GroundTruth.csv")


def image_paths(data_dir, split):
    """Find the images of a split.

    Args:
        data_dir: folder in the official layout.
        split: "training", "validation" or "test".

    Returns:
        Dictionary from image id (`ISIC_0000000`, or whatever the file is called) to path, sorted by id.

    Raises:
        InputError: if the folder is missing or holds no image, or two files have one id.
    """
    folder = image_folder(data_dir, split)
    if not folder.is_dir():
        raise InputError(f"{folder} is missing: {remedy(data_dir)}, or leave this split out with --splits")
    paths = {}
    for path in images_in(folder)[0]:
        if path.stem in paths:
            raise InputError(f"{path} and {paths[path.stem].name} are one image by their names: remove one")
        paths[path.stem] = path
    if not paths:
        raise InputError(f"{folder} holds no image ({', '.join(SUFFIXES)}): put those of the {split} split there")
    return dict(sorted(paths.items()))


def remedy(data_dir):
    """How to come by the data set of a folder that lacks it."""
    if Path(data_dir) == SAMPLE:
        return "make the built-in sample with `python -m data.sample`"
    if Path(data_dir).is_dir() and images_in(Path(data_dir))[0]:
        return f"{data_dir} holds images itself, move those of each split into such a folder"
    return (
        f"point --data-dir at the ISIC 2017 folders, get them with `python -m data.download --data-dir {data_dir}` "
        f"(12 GB), make the built-in sample with `python -m data.sample --data-dir {data_dir}`"
    )


def mask_paths(data_dir, split, image_ids):
    """Paths of the ground-truth masks of some images; whether each is there shows when it is read.

    Returns:
        Dictionary from image id to path, in the order of `image_ids`.

    Raises:
        InputError: if the folder is missing, or two files have one name.
    """
    folder = mask_folder(data_dir, split)
    if not folder.is_dir():
        raise InputError(f"{folder} is missing: ground-truth masks of the {split} split are needed here")
    found = masks_in(folder)
    return {image_id: found.get(image_id, folder / f"{image_id}_segmentation.png") for image_id in image_ids}


def read_labels(data_dir, split, image_ids, left_out=(), required=False):
    """Read the diagnoses of some images, joined by id.

    Args:
        data_dir: folder in the official layout.
        split: "training", "validation" or "test".
        image_ids: ids of the split's images.
        left_out: ids that the table may hold all the same; None for any.
        required: whether a split without a table is an error.

    Returns:
        One-hot array (images, 3), float32, columns in the order of `CLASSES`, rows in the order of
        `image_ids`; None if the split has no table.

    Raises:
        InputError: if the table is unreadable, lacks columns, names an image twice, sets both diagnoses, holds
            values other than 0 and 1, has ids without an image, or lacks an image.
    """
    path = label_table(data_dir, split)
    if not path.exists() and not required:
        return None
    labels = label_rows(path)
    unknown = [] if left_out is None else sorted(set(labels.index) - set(image_ids) - set(left_out))
    if unknown:
        raise InputError(
            f"{path} names {unknown[0]} ({len(unknown)} such ids), which has no image: add the image or drop the row"
        )
    absent = sorted(set(image_ids) - set(labels.index))
    if absent:
        raise InputError(
            f"{path} has no row for {absent[0]} ({len(absent)} such images): add the row or remove the image"
        )
    return labels.loc[list(image_ids)].to_numpy(np.float32)


def label_rows(path):
    """Read a table of diagnoses, whatever images it is about.

    Returns:
        Data frame indexed by image id, columns `CLASSES`, one 1 a row and else 0, in the file's order.

    Raises:
        InputError: if the table is unreadable, lacks columns, names an image twice, sets both diagnoses, or holds
            values other than 0 and 1.
    """
    table = read_table(path, ["image_id", *CLASSES[:2]])
    for image_id, row in zip(table.index, table.to_numpy(), strict=True):
        if not np.isin(row, (0, 1)).all():
            raise InputError(f"{path} has a value other than 0 and 1 for {image_id}: mend that row")
        if row.sum() > 1:
            raise InputError(f"{path} sets both diagnoses for {image_id}: at most one of them can be 1")
    return table.assign(**{CLASSES[2]: 1 - table.sum(axis=1)})


def read_table(path, columns, header=True):
    """Read a table of numbers by image id.

    Args:
        path: a CSV file. Ids may end on `.jpg`, which is dropped.
        columns: names that its header must hold, `image_id` first; the ids' may also be another of `ID_COLUMNS`.
        header: whether the file has one; otherwise its columns are taken to be these.

    Returns:
        Data frame indexed by image id, with the other columns as float64, in the file's order.

    Raises:
        InputError: if the file is missing, cannot be parsed, has rows longer than its header, lacks a column, names
            an image twice, or holds something else than numbers.
    """
    names = {} if header else {"names": columns}
    try:
        table = pd.read_csv(
            path, dtype=str, encoding="utf-8-sig", encoding_errors="surrogateescape", skipinitialspace=True, **names
        )
    except FileNotFoundError:
        raise InputError(f"{path} is missing: put the table there") from None
    except PermissionError:
        raise InputError(f"{path} cannot be read, permission denied: ask its owner for access") from None
    except (ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read as a table ({error}): replace the file") from None
    if len(table) and not isinstance(table.index, pd.RangeIndex):  # pandas made row labels of the first fields
        fields, expected = table.index.nlevels + len(table.columns), len(table.columns)
        raise InputError(f"{path} has rows of {fields} fields for {expected} columns: mend the header or the rows")
    id_column = next((column for column in ID_COLUMNS if column in table.columns), None)
    table = table.rename(columns={id_column: "image_id"})
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise InputError(f"{path} has no column {', '.join(missing)}: its header must be {','.join(columns)}")
    if table["image_id"].isna().any():
        raise InputError(f"{path} has a row without image_id: mend the table")
    table["image_id"] = table["image_id"].str.replace(r"\.jpg$", "", case=False, regex=True)
    twice = table["image_id"][table["image_id"].duplicated()]
    if len(twice):
        raise InputError(f"{path} names {twice.iloc[0]} twice: keep one row an image")
    try:
        numbers = table[columns[1:]].astype(np.float64)
    except ValueError as error:
        raise InputError(f"{path} holds something that is no number ({error}): mend the table") from None
    empty = table["image_id"][numbers.isna().any(axis=1)]
    if len(empty):
        raise InputError(f"{path} has an empty cell for {empty.iloc[0]}: fill it in")
    return numbers.set_index(table["image_id"])
