"""The official folder layout of the ISIC 2017 challenge: images, Part 1 masks and Part 3 labels.

    ISIC-2017_Training_Data/ISIC_0000000.jpg
    ISIC-2017_Training_Part1_GroundTruth/ISIC_0000000_segmentation.png
    ISIC-2017_Training_Part3_GroundTruth.csv

and the same with `Validation` and `Test_v2`. Other ids, other formats (`data.images.SUFFIXES`), and names in upper or
lower case are read too. Superpixel maps and the metadata table in the image folders are ignored as images. Source:
Codella et al., "Skin Lesion Analysis Toward Melanoma Detection: A Challenge at the 2017 ISBI",
https://arxiv.org/abs/1710.05006.
"""

import shlex
from pathlib import Path

import numpy as np
import pandas as pd

from data.classes import ISIC_2017
from data.images import SUFFIXES
from data.own_images import images_in, masks_in, standing
from data.tables import ODD_NAME, as_numbers, id_in_tables, read_cells, read_text
from utils.errors import InputError

SPLITS = ("training", "validation", "test")
NO_MASKS = (
    "add masks, or segment with a U-Net that was trained elsewhere (`python seg_predict.py --unet FILE`), or begin "
    "with `python resize.py --masks none` to classify whole frames"
)
# Pairs that are in two splits of the published data set: eight with a correlation above 0.99 (`data.duplicates`), four
# of them with the same pixels, and six with one above 0.98, which may be higher at another image size.
KNOWN_DUPLICATES = {
    *(("ISIC_0012175", "ISIC_0015982"), ("ISIC_0012970", "ISIC_0012127"), ("ISIC_0012221", "ISIC_0016002")),
    *(("ISIC_0012271", "ISIC_0016018"), ("ISIC_0012887", "ISIC_0012989"), ("ISIC_0013163", "ISIC_0013109")),
    *(("ISIC_0012222", "ISIC_0016003"), ("ISIC_0000171", "ISIC_0015124"), ("ISIC_0000162", "ISIC_0014826")),
    *(("ISIC_0000201", "ISIC_0015023"), ("ISIC_0000174", "ISIC_0015071"), ("ISIC_0000193", "ISIC_0015436")),
    *(("ISIC_0000185", "ISIC_0015155"), ("ISIC_0000179", "ISIC_0014765")),
}
OFFICIAL_NAME = {"training": "Training", "validation": "Validation", "test": "Test_v2"}
SAMPLE = Path("data/sample")  # where `data.draw_sample` writes


def image_folder(data_dir, split):
    """Folder of a split's images."""
    return standing(data_dir, f"ISIC-2017_{OFFICIAL_NAME[split]}_Data")


def mask_folder(data_dir, split):
    """Folder of a split's ground-truth masks (challenge Part 1)."""
    return standing(data_dir, f"ISIC-2017_{OFFICIAL_NAME[split]}_Part1_GroundTruth")


def label_table(data_dir, split):
    """Path of a split's diagnoses (challenge Part 3)."""
    return standing(data_dir, f"ISIC-2017_{OFFICIAL_NAME[split]}_Part3_GroundTruth.csv")


def metadata_table(data_dir, split):
    """Path of the table of age and sex in the folder of a split's images."""
    return standing(image_folder(data_dir, split), f"ISIC-2017_{OFFICIAL_NAME[split]}_Data_metadata.csv")


def metadata_beside(table):
    """Path of the table of age and sex that belongs to a table of diagnoses; None if it does not exist."""
    tables = {label_table(table.parent, split): metadata_table(table.parent, split) for split in SPLITS}
    return tables[table] if table in tables and tables[table].is_file() else None


class OfficialFolders:
    """A data set in this layout. It has the same attributes and methods as `data.dataset.ListedImages`.

    Args:
        folder: its folder.
    """

    classes = ISIC_2017

    def __init__(self, folder):
        self.folder = Path(folder)

    def images(self, split):
        """Find the images of a split.

        Returns:
            Dictionary from image id (the file's name without suffix, for example `ISIC_0000000`) to path, sorted by id.

        Raises:
            InputError: if the folder is missing or holds no image, two files have the same id, or a name is odd.
        """
        folder = image_folder(self.folder, split)
        if not folder.is_dir():
            without = ", or leave this split out with --splits" if split == "test" else ""  # the others are needed
            raise InputError(f"{folder} is missing: {remedy(self.folder)}{without}")
        paths = {}
        for path in images_in(folder)[0]:
            if id_in_tables(path.stem) != path.stem:
                raise InputError(f"{path} has {ODD_NAME}: rename it")
            if path.stem in paths:
                raise InputError(f"{path} and {paths[path.stem].name} have the same image id: remove one")
            paths[path.stem] = path
        if not paths:
            raise InputError(f"{folder} holds no image ({', '.join(SUFFIXES)}): put the {split} images there")
        return dict(sorted(paths.items()))

    def masks(self, split, image_ids):
        """Paths of the ground-truth masks of some images. A missing file is an error only when it is read.

        Returns:
            Dictionary from image id to path, in the order of `image_ids`.

        Raises:
            InputError: if the folder is missing, or two files are masks of one image.
        """
        folder = mask_folder(self.folder, split)
        if not folder.is_dir():
            raise InputError(f"{folder} is missing, the ground-truth masks of the {split} split: {NO_MASKS}")
        return masks_of(folder, image_ids)

    def has_masks(self, split):
        """Whether a split has masks."""
        return mask_folder(self.folder, split).is_dir()

    def absent(self, paths):
        """Empty, because no table in this layout names the files."""
        return {}

    def labels(self, split, image_ids, required=False, left_out=()):
        """Read the diagnoses of some images, joined by id.

        Args:
            split: "training", "validation" or "test".
            image_ids: ids of the split's images.
            required: whether a split without a table is an error.
            left_out: further ids that the table may hold; None for any.

        Returns:
            One-hot array (images, 3), float32, columns in the order of `classes`, rows in the order of `image_ids`;
            None if the split has no table.

        Raises:
            InputError: if the table is unreadable, lacks columns, names an image twice, sets both diagnoses, holds
                values other than 0 and 1, has ids without an image, or lacks an image.
        """
        path = label_table(self.folder, split)
        if not path.exists() and not required:
            return None
        labels = label_rows(path)
        known = set(labels.index) if left_out is None else {*image_ids, *left_out}
        if unknown := sorted(set(labels.index) - known):
            raise InputError(
                f"{path} names {unknown[0]} ({len(unknown)} such ids), which has no image: add the image or drop the "
                f"row"
            )
        if absent := sorted(set(image_ids) - set(labels.index)):
            raise InputError(
                f"{path} has no row for {absent[0]} ({len(absent)} such images): add the row or remove the image"
            )
        return labels.loc[list(image_ids)].to_numpy(np.float32)

    def label_table(self, split):
        """File of a split's diagnoses, which may be missing."""
        return label_table(self.folder, split)

    def groups(self, split):
        """Dictionary from image id to lesion or patient. It is empty, as the challenge does not publish them."""
        return {}

    def groups_of(self, split, image_ids):
        """None, as there are no groups."""
        return None

    def columns(self, split):
        """Data frame of texts, indexed by image id, of age and sex of a split, and the files that hold them."""
        file = metadata_table(self.folder, split)
        return (read_cells(file, ["image_id"]), [file]) if file.is_file() else (pd.DataFrame(), [])

    def image_folders(self, split):
        """Folders that hold the images of one split and nothing else."""
        return [image_folder(self.folder, split)]

    def squashed_name(self, kind, split, image_id):
        """Name of the copy of an "image" or "mask" in a copy of the data set; see `data.prepare.squash`."""
        folder, name = {"image": ("Data", ""), "mask": ("Part1_GroundTruth", "_segmentation")}[kind]
        return f"ISIC-2017_{OFFICIAL_NAME[split]}_{folder}/{image_id}{name}.png"

    def squashed_tables(self, images, masks):
        """Tables of a copy of the data set, as a dictionary from name to text; see `data.prepare.squash`."""
        tables = {}
        for name, split in ((OFFICIAL_NAME[split], split) for split in SPLITS):
            tables[f"ISIC-2017_{name}_Part3_GroundTruth.csv"] = label_table(self.folder, split)
            tables[f"ISIC-2017_{name}_Data/ISIC-2017_{name}_Data_metadata.csv"] = metadata_table(self.folder, split)
        return {copy: read_text(path) for copy, path in tables.items() if path.is_file()}


def remedy(data_dir):
    """The part of a message about how to get the data set that is missing in a folder."""
    if Path(data_dir) == SAMPLE:
        return "make the built-in sample with `python -m data.draw_sample`"
    if Path(data_dir).is_dir() and images_in(Path(data_dir))[0]:
        return f"{data_dir} holds images itself, move those of each split into such a folder"
    folder = shlex.quote(str(data_dir))
    return (
        f"download ISIC 2017 with `python -m data.download --data-dir {folder}` (12 GB), make the built-in sample "
        f"with `python -m data.draw_sample --data-dir {folder}`, or point --data-dir at a data set (docs/data.md)"
    )


def masks_of(folder, image_ids):
    """Paths of the masks of some images in a folder; see `data.own_images.masks_in`.

    Returns:
        Dictionary from image id to path, in the order of `image_ids`. The path of a missing mask is the expected one,
        so that reading it raises the error.
    """
    masks = masks_in(folder)
    return {image_id: masks.get(image_id, folder / f"{image_id}_segmentation.png") for image_id in image_ids}


def label_rows(path):
    """Read a table of diagnoses of any images.

    Returns:
        Data frame indexed by image id, in the file's order. Its columns are `ISIC_2017`, with one 1 in each row.

    Raises:
        InputError: if the table is unreadable, lacks columns or has one twice, names an image twice, sets both
            diagnoses or contradicts itself about the third, or holds values other than 0 and 1.
    """
    cells = read_cells(path, ["image_id", *ISIC_2017[:2]])
    table = as_numbers(path, cells[[name for name in ISIC_2017 if name in cells]])
    for image_id, row in zip(table.index, table.to_numpy(), strict=True):
        if not np.isin(row, (0, 1)).all():
            raise InputError(f"{path} has a value other than 0 and 1 for {image_id}: correct the row")
        if row[:2].sum() > 1:
            raise InputError(f"{path} sets both diagnoses for {image_id}: at most one of them can be 1")
        if len(row) > 2 and row.sum() != 1:
            raise InputError(f"{path} does not have one 1 among {', '.join(ISIC_2017)} for {image_id}: correct the row")
    return table.assign(**{ISIC_2017[2]: 1 - table[list(ISIC_2017[:2])].sum(axis=1)})
