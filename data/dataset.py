"""A data set: its classes, and the images of each split. Masks, labels, groups and further columns are optional.

Two layouts are read: the folders of ISIC 2017 (`data/official.py`), and a folder with `dataset.csv`, which has one row
for each image:

    image,label,split,mask,group,sex,age
    images/a 1.png,nevus,training,masks/a 1.png,lesion 7,female,45

image   path from that folder; the image's id is its name without the suffix
label   name of the class, empty where it is unknown; upper case, spaces and hyphens make no difference
split   training, validation or test; without the column, a split is drawn once and kept in `dataset_split.csv`
mask    path of the lesion's mask; the cell may be empty, and the column may be missing
group   lesion or patient: images of one group stay in one split and one fold

Further columns are kept for evaluation. `data/prepare.py` writes this table for public data sets.
"""

import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from data.classes import ISIC_2017, in_order
from data.official import NO_MASKS, SPLITS, OfficialFolders, label_rows
from data.own_images import standing
from data.public_sets import ham10000_tables, public_rows
from data.tables import (
    ID_COLUMNS,
    ODD_NAME,
    as_latin1,
    id_in_tables,
    plain,
    read_cells,
    read_columns,
    refuse_missing,
    without_ending,
)
from utils.errors import InputError
from utils.files import write_table

TABLE, MADE_SPLIT = "dataset.csv", "dataset_split.csv"
OTHER_NAMES = {"train": "training", "val": "validation", "valid": "validation"}
ROLES = ("image", "label", "split", "mask", "group")  # all other columns are further columns
PATH, ROW = "/path", "/row"  # columns that are no part of the table
RESERVED = (  # no class can have these names, because tables use them, the last nine those of predict.py
    *(*ID_COLUMNS, "mean", "file", "suspect", "decision", "remarks", "top", "bottom", "left", "right", "segmented"),
)
ONE_HOT = ("0", "1", "0.0", "1.0")
TENTHS = {"validation": 1, "test": 2}  # tenths of the images, if a split is drawn


def open_data_set(folder, seed=0):
    """Open a data set in either layout.

    Args:
        folder: its folder.
        seed: seed of the split, if the table has none.

    Returns:
        `ListedImages` if the folder holds `dataset.csv`, else `OfficialFolders`. Both have the same attributes and
        methods.

    Raises:
        InputError: if the table has a fault.
    """
    return ListedImages(folder, seed=seed) if standing(folder, TABLE).is_file() else OfficialFolders(folder)


class ListedImages:
    """A folder with `dataset.csv`; see above.

    Args:
        folder: the folder.
        rows: data frame of texts that replaces the table, indexed by the number of the row. Its images may be of one
            class.
        seed: seed of the split, if the table has none.

    Attributes:
        classes: names of the classes of the training images; see `data.classes.in_order`.
        rows: data frame of all columns, PATH and ROW, indexed by image id and sorted.

    Raises:
        InputError: naming the row with a fault.
    """

    def __init__(self, folder, rows=None, seed=0):
        self.folder, self.file = Path(folder), standing(folder, TABLE)
        from_file = rows is None
        rows = read_columns(self.file, ROLES[:1]) if from_file else rows
        refuse_missing(self.file, rows, ROLES[:1])
        if rows.empty:
            raise InputError(f"{self.file} lists no image: add rows")
        rows = rows.assign(**{name: "" for name in ("label", "mask", "group") if name not in rows})
        for column in ("image", "mask"):
            rows[column] = rows[column].map(self.as_on_disk)
        self.refuse(rows, rows["image"] == "", "names no image: fill in the cell or drop the row")
        ids = without_ending(rows["image"].str.rpartition("/")[2])
        self.refuse(rows, ids != ids.map(id_in_tables), f"has {ODD_NAME}: rename it")
        self.refuse(rows, ids.duplicated(), "has the same id (file name without suffix) as an earlier row: rename one")
        rows["label"] = rows["label"].map(plain)
        self.refuse(rows, rows["label"].isin(RESERVED), "has a label that no class can have: rename the class")
        if "split" not in rows:
            rows["split"] = self.kept_split(rows, seed)
        rows["split"] = rows["split"].str.lower().replace(OTHER_NAMES)
        self.refuse(rows, ~rows["split"].isin(SPLITS), f"has a split that is none of {', '.join(SPLITS)}: correct it")
        trained = set(rows["label"][rows["split"] == "training"]) - {""}
        self.refuse(
            rows,
            ~rows["label"].isin({"", *trained}),
            "has a label that no training image has: correct it, empty it, or move images of it to the training split",
        )
        if from_file and len(trained) == 1:
            raise InputError(f"{self.file} has one class, {min(trained)}: a classifier needs two, so label others too")
        self.classes = in_order(trained)
        rows[PATH], rows[ROW] = [self.find(name) for name in rows["image"]], rows.index
        self.rows = rows.set_index(ids.rename("image_id")).sort_index()

    def refuse(self, rows, bad, fault):
        """Raise `InputError` about the first of the bad rows."""
        if bad.any():
            first = rows[bad].iloc[0]
            what = " ".join(first[name] for name in ("image", "label", "split") if first.get(name))
            raise InputError(f"row {first.name} of {self.file} ({what}) {fault} ({bad.sum()} such rows)")

    def as_on_disk(self, name):
        """A file name of the table, whose bytes are not UTF-8: as it is if such a file exists, else as Latin-1."""
        other = as_latin1(name)
        return name if other == name or (self.folder / name).exists() else other

    def find(self, name):
        """Path of a file that the table names. The two Unicode forms of a letter such as ä count as the same."""
        forms = (name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name))
        return next((path for path in (self.folder / form for form in forms) if path.exists()), self.folder / name)

    def kept_split(self, rows, seed):
        """Read the split that was drawn when the data set was first opened, or draw it now; see `draw_split`."""
        file = self.folder / MADE_SPLIT
        if not file.exists():
            split = draw_split(rows.assign(split=""), seed)
            try:
                write_table(file, pd.DataFrame({"image": rows["image"], "split": split}))
            except OSError as error:
                raise InputError(
                    f"{file} cannot be written ({error.strerror}): add a column split to {self.file}"
                ) from None
            print(f"{self.file} has no column split: drew a split and wrote it to {file}")
            return split
        saved = read_columns(file, ["image", "split"])
        refuse_missing(file, saved, ["image", "split"])
        split_of = dict(zip(map(self.as_on_disk, saved["image"]), saved["split"], strict=True))
        split = rows["image"].map(split_of).fillna("")
        self.refuse(rows, split == "", f"is not in {file}: add it there, or remove that file to draw a new split")
        return split

    def in_split(self, split):
        """The rows of a split; all rows for "extra"."""
        return self.rows if split == "extra" else self.rows[self.rows["split"] == split]

    def images(self, split):
        """Find the images of a split.

        Returns:
            Dictionary from image id to path, sorted by id.

        Raises:
            InputError: if there is none.
        """
        rows = self.in_split(split)
        if rows.empty:
            without = ", or leave it out with --splits" if split == "test" else ""  # the others are needed
            raise InputError(f"{self.file} has no image of the {split} split: add some{without}")
        return rows[PATH].to_dict()

    def masks(self, split, image_ids):
        """Find the masks of some images of a split.

        Returns:
            Dictionary from image id to path, in the order of `image_ids`, without those that have no mask.

        Raises:
            InputError: if no image of the split has a mask.
        """
        named = self.in_split(split)["mask"]
        if not (named != "").any():
            raise InputError(f"{self.file} names no mask of the {split} split: {NO_MASKS}")
        return {image_id: self.find(named[image_id]) for image_id in image_ids if named[image_id]}

    def has_masks(self, split):
        """Whether a split has masks."""
        return (self.in_split(split)["mask"] != "").any()

    def absent(self, paths):
        """Dictionary from the id of each missing file to an `InputError` that names its row."""
        return {
            image_id: InputError(
                f"row {self.rows[ROW][image_id]} of {self.file} names {path}, which is missing: put it there or drop "
                f"the row"
            )
            for image_id, path in paths.items()
            if not path.exists()
        }

    def labels(self, split, image_ids, required=False, left_out=()):
        """Read the labels of some images of a split.

        Args:
            split: the split.
            image_ids: ids of its images.
            required: whether a split without labels is an error.
            left_out: used only by `OfficialFolders.labels`.

        Returns:
            One-hot array (images, classes), float32, rows in the order of `image_ids`, with zeros where the label is
            unknown; None if no image of the split has a label.

        Raises:
            InputError: if an image is not in the data set, or labels are required and there are none.
        """
        labels = self.in_split(split)["label"]
        if gone := sorted(set(image_ids) - set(labels.index)):
            raise InputError(f"{self.file} has no row for {gone[0]} ({len(gone)} such images): add the row")
        if not (labels != "").any():
            if required:
                raise InputError(f"{self.file} has no label of the {split} split: fill in the column label")
            return None
        return np.equal.outer(labels[list(image_ids)].to_numpy(), np.array(self.classes, object)).astype(np.float32)

    def label_table(self, split):
        """The labels of a split, to detect changes: their file, or their text if the file holds all splits.

        None if no image of the split has a label.
        """
        labels = self.in_split(split)["label"]
        return labels.to_csv(lineterminator="\n") if (labels != "").any() else None

    def groups(self, split):
        """Dictionary from image id to group, of the images of a split that have one."""
        groups = self.in_split(split)["group"]
        return groups[groups != ""].to_dict()

    def groups_of(self, split, image_ids):
        """The group of each of some images as a list, "" for none; None if no image of the split has one."""
        groups = self.groups(split)
        return [groups.get(image_id, "") for image_id in image_ids] if groups else None

    def columns(self, split):
        """Data frame of texts, indexed by image id, of the further columns of a split, and the files that hold them."""
        return self.in_split(split).drop(columns=[*ROLES, PATH, ROW]), [self.file]

    def image_folders(self, split):
        """Folders that hold the images of one split and nothing else. This layout has none."""
        return []

    def squashed_name(self, kind, split, image_id):
        """Name of the copy of an "image" or "mask" in a copy of the data set; see `data.prepare.squash`."""
        return f"{kind}s/{image_id}.png"

    def squashed_tables(self, images, masks):
        """Tables of a copy of the data set, as a dictionary from name to text.

        Args:
            images, masks: dictionaries from image id to the name of its copy.
        """
        rows = self.rows.assign(image=pd.Series(images), mask=pd.Series(masks, dtype=object)).fillna("")
        return {TABLE: rows.drop(columns=[PATH, ROW]).to_csv(index=False, lineterminator="\n")}


def draw_split(rows, seed):
    """Draw the splits that are missing.

    Images of one group stay together, and the classes have similar shares in all splits. One tenth of the images is the
    validation split, two tenths are the test split. Splits that the rows name stay as they are. Missing splits are
    taken from the training images.

    Args:
        rows: data frame with `image`, `label`, `group`, and `split`, which is empty for images without a split.
        seed: seed of the draw.

    Returns:
        Series of splits.

    Raises:
        InputError: if there are too few images.
    """
    split = rows["split"].copy()
    missing = [name for name in TENTHS if not (split == name).any()]
    free = rows[split.isin(["", "training"])]
    split[free.index] = "training"
    groups = free["group"].where(free["group"] != "", "image " + free["image"])
    if missing and groups.nunique() < 10:
        raise InputError(
            f"{groups.nunique()} images or groups are too few to draw a split from: add a column split to {TABLE}"
        )
    if missing:
        # The splitter needs a class with at least ten images; without one, the classes are ignored.
        labels = free["label"] if free["label"].value_counts().max() >= 10 else np.zeros(len(free))
        with warnings.catch_warnings(action="ignore"):  # a warning about classes with fewer groups than folds
            folds = list(StratifiedGroupKFold(10, shuffle=True, random_state=seed).split(free, labels, groups))
        names = [name for name in missing for _ in range(TENTHS[name])]
        for name, (_, drawn) in zip(names, folds, strict=False):
            split[free.index[drawn]] = name
        lost = ~free["label"].isin(free["label"][split[free.index] == "training"])  # too rare for three splits
        split[free.index[groups.isin(groups[lost])]] = "training"
    return split


def read_truth(path, split=None):
    """Read a table of labels: `dataset.csv`, the challenge's Part 3, or a table with a column of 0 and 1 per class.

    Args:
        path: the table.
        split: the split of `dataset.csv`; None for all of its images.

    Returns:
        Names of the classes; data frame of one-hot labels, float, columns the classes, indexed by image id, with zeros
        where `dataset.csv` has no label; data frame of texts, the further columns, of `dataset.csv` also "group".

    Raises:
        InputError: if the table has a fault, or is none of these.
    """
    path = Path(path)
    if path.name.lower() == TABLE:
        rows = read_columns(path, ROLES[:1])
        if split is None:  # all images count, so no split is needed
            rows = rows.assign(split="training")
        data_set = ListedImages(path.parent, rows)
        if len(data_set.classes) < 2:
            raise InputError(f"{path} has fewer than two classes: label others too")
        rows = data_set.rows if split is None else data_set.in_split(split)
        labels = pd.DataFrame({name: (rows["label"] == name).astype(float) for name in data_set.classes})
        return data_set.classes, labels, rows.drop(columns=[*ROLES[1:-1], PATH, ROW])
    if split is not None:
        raise InputError(f"{path} has no splits: leave out --split, or name a {TABLE}")
    cells = read_cells(path, ["image_id"])
    labels = cells[[name for name in cells if cells[name].isin(ONE_HOT).all()]].astype(float)
    complete = labels.shape[1] > 1 and (labels.sum(axis=1) == 1).all()
    others = labels.drop(columns=[*ISIC_2017], errors="ignore")
    if (set(ISIC_2017[:2]) <= set(cells) and not (complete and others.any(axis=None))) or len(cells.columns) < 2:
        labels = label_rows(path)
    elif complete:
        labels = labels[list(in_order(labels))]
    else:
        raise InputError(
            f"{path} needs one column of 0 and 1 for each class, and one 1 in each row: correct the table, or take "
            f"dataset.csv"
        )
    return tuple(labels), labels, cells.drop(columns=labels, errors="ignore")


class FurtherImages(ListedImages):
    """Further images with labels, only for training. Their labels are mapped to the classes of the main data set.

    Args:
        folder: the folder, in either layout, or with the original files of HAM10000.
        classes: the classes of the data set that is trained on.
        mapping: texts `label=class`; `SYNONYMS` if there are none. A label that is already a class needs no mapping.

    Raises:
        InputError: if a mapping names no class, or no image has a label that is mapped.
    """

    SYNONYMS = ("mel=melanoma", "bkl=seborrheic_keratosis", "nv=nevus")  # in HAM10000 and the challenges after 2017

    def __init__(self, folder, classes, mapping=()):
        file = standing(folder, TABLE)
        raw = not file.is_file() and bool(ham10000_tables(folder))
        if file.is_file():
            rows = read_columns(file, ROLES[:1])
            refuse_missing(file, rows, ROLES[:1])
            source = ListedImages(folder, rows.assign(split="training"))
        elif raw:
            source = ListedImages(folder, public_rows("ham10000", folder).assign(split="training"))
        else:
            source = OfficialFolders(folder)
        self.folder, self.file, self.classes, rows = source.folder, standing(folder, TABLE), classes, every_row(source)
        pairs = (text.partition("=")[::2] for text in mapping or self.SYNONYMS)
        table = {plain(label.strip()): plain(name.strip()) for label, name in pairs}
        if wrong := [f"{label}={name}" for label, name in table.items() if mapping and name not in classes]:
            raise InputError(f"--extra-labels {wrong[0]}: write label=class, with a class of {', '.join(classes)}")
        table = {label: name for label, name in table.items() if name in classes}
        known = rows["label"].replace(table)
        left_out = rows["label"][~known.isin(classes)].value_counts()
        self.left_out = {label or "without a label": int(count) for label, count in left_out.items()}
        rows = rows.assign(label=known)[known.isin(classes)]
        if rows.empty:
            raise InputError(
                f"{folder} has no image of a class of this data set: map its labels ({', '.join(self.left_out)}) to "
                f"{', '.join(classes)} with --extra-labels"
            )
        self.rows, self.raw = rows.sort_index(), raw and ham10000_tables(folder)

    def label_table(self, split):
        """See `ListedImages`; for the original files of HAM10000, their table."""
        return self.raw[0] if self.raw else super().label_table(split)

    def absent(self, paths):
        """Empty: a missing file is an error when it is read."""
        return {}


def every_row(data_set):
    """Data frame of PATH, `label` and `group` of all images of a data set in either layout, indexed by image id."""
    parts = []
    for split in SPLITS:
        try:
            paths = data_set.images(split)
        except InputError:
            continue
        labels = data_set.labels(split, paths)
        names = [""] * len(paths)
        if labels is not None:
            names = [data_set.classes[row.argmax()] if row.any() else "" for row in labels]
        columns = {PATH: paths, "label": dict(zip(paths, names, strict=True)), "group": data_set.groups(split)}
        parts.append(pd.DataFrame(columns, index=list(paths), dtype=object))
    if not parts:
        data_set.images("training")  # raises the error
    rows = pd.concat(parts).fillna("")
    return rows[~rows.index.duplicated()]
