"""Read the original files of public data sets: their tables and images, in any subfolders of a folder.

    ham10000   Tschandl et al. 2018, https://doi.org/10.1038/sdata.2018.161 and https://doi.org/10.7910/DVN/DBW86T
    isic2016   Gutman et al. 2016, https://arxiv.org/abs/1605.01397, Part 3; its table has no header
    isic2018   Codella et al. 2019, https://arxiv.org/abs/1902.03368, Task 3
    isic2019   Combalia et al. 2019, https://arxiv.org/abs/1908.02288
    isic2020   Rotemberg et al. 2021, https://doi.org/10.1038/s41597-021-00815-z; also as SIIM-ISIC on Kaggle
    ph2        Mendonça et al. 2013, https://doi.org/10.1109/EMBC.2013.6610779; `||` separates the cells of its table

The files of the challenges are listed at https://challenge.isic-archive.com/data.
"""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from data.images import SUFFIXES
from data.tables import FILE_ENDING, ID_COLUMNS, read_cells, read_rows, read_text
from utils.errors import InputError


@dataclass(frozen=True)
class PublicSet:
    """How a public data set is read. Names of files are patterns of the name in lower case, without its suffix."""

    table: str
    """Its table of labels. The group `split` of the pattern is the split; without that group, there are no splits."""
    further: str = "$."
    """Tables with further columns, and with images without labels. The default matches no name."""
    classes: tuple[str, ...] = ()
    """Columns of a one-hot table, in lower case. An image without a 1 in them has no label."""
    label: str = ""
    """Column of the label, if the table is not one-hot."""
    renamed: dict[str, str] = field(default_factory=dict)
    """New names of columns."""
    codes: dict[str, str] = field(default_factory=dict)
    """New names of labels."""


METADATA = {
    **{"lesion_id": "group", "patient_id": "group", "patient": "group", "age_approx": "age", "localization": "site"},
    **{"anatom_site_general": "site", "anatom_site_general_challenge": "site"},
}
SPLIT = "(?P<split>training|validation|test)"
PUBLIC_SETS = {
    "ham10000": PublicSet("ham10000_metadata", label="dx", renamed=METADATA),
    "isic2016": PublicSet(
        rf"isbi2016_isic_part3b?_{SPLIT}_groundtruth",
        label="diagnosis",
        codes={"0.0": "benign", "1.0": "malignant", "0": "benign", "1": "malignant"},
    ),
    "isic2018": PublicSet(
        rf"isic2018_task3_{SPLIT}_groundtruth",
        further="isic2018_task3_training_lesiongroupings",
        classes=("mel", "nv", "bcc", "akiec", "bkl", "df", "vasc"),
        renamed=METADATA,
    ),
    "isic2019": PublicSet(
        rf"isic_2019_{SPLIT}_groundtruth",
        further=rf"isic_2019_{SPLIT}_metadata",
        classes=("mel", "nv", "bcc", "ak", "bkl", "df", "vasc", "scc"),
        renamed=METADATA,
    ),
    "isic2020": PublicSet(
        rf"isic_2020_{SPLIT}_groundtruth(_v2)?|train",
        further=rf"isic_2020_{SPLIT}_metadata(_v2)?|test",
        label="benign_malignant",
        renamed=METADATA | {"lesion_id": "lesion"},
    ),
    "ph2": PublicSet(
        "ph2_dataset",
        label="clinical_diagnosis",
        codes={"0": "common_nevus", "1": "atypical_nevus", "2": "melanoma"},
    ),
}
MASK_ENDING = re.compile("(_segmentation|_lesion)$", re.IGNORECASE)
TABLE_SUFFIXES = ("", ".csv", ".tab", ".tsv", ".txt")


def ham10000_tables(folder):
    """Paths of the table of HAM10000 in a folder; empty if it is not there."""
    names = Path(folder).iterdir() if Path(folder).is_dir() else ()
    return [path for path in names if is_table(path, PUBLIC_SETS["ham10000"].table)]


def is_table(path, pattern):
    """The match of a table's name with a pattern, or None."""
    suffix = path.suffix.lower()
    return re.fullmatch(pattern, path.stem.lower()) if suffix in TABLE_SUFFIXES else None


def public_rows(name, folder, masks=None):
    """Read a public data set.

    Args:
        name: a key of `PUBLIC_SETS`.
        folder: folder with its tables and images, in any subfolders.
        masks: another folder with masks, `<id>_segmentation` and a suffix.

    Returns:
        Data frame of texts with the columns of `dataset.csv`: image, label, split ("" if there is none), mask, group,
        and further columns. Paths are relative to the folder.

    Raises:
        InputError: if a table is missing or damaged, an image is missing, or two files that differ have one id.
    """
    # Real paths, because a relative path through a link would lead elsewhere.
    folder, layout = Path(os.path.realpath(folder)), PUBLIC_SETS[name]
    tables, image_files, mask_files = files_below(folder)
    if masks is not None:
        mask_files |= files_below(Path(os.path.realpath(masks)))[2]
    labelled = [(path, match) for path in tables if (match := is_table(path, layout.table))]
    if not labelled:
        raise InputError(f"{folder} holds no table of {name} ({layout.table}): name the folder that its archives fill")
    parts = []
    for path, match in labelled:
        cells = read_table_of(name, path, layout)
        split = match.groupdict().get("split") or ("training" if match[0] == "train" else "")
        parts.append(with_usual_names(cells, layout).assign(label=label_of(path, cells, layout), split=split))
    rows = pd.concat(parts)
    rows = rows[~rows.index.duplicated()]
    for path in tables:
        if match := is_table(path, layout.further):
            cells = with_usual_names(read_cells(path, ["image_id"]), layout)
            split = match.groupdict().get("split") or match[0]
            rows = rows.combine_first(cells.assign(split=split) if split in ("validation", "test") else cells)
    if absent := [image_id for image_id in rows.index if image_id.lower() not in image_files]:
        raise InputError(
            f"{folder} lacks the image {absent[0]} ({len(absent)} of {len(rows)}): unpack all archives into it"
        )

    for column, files in (("image", image_files), ("mask", mask_files)):
        paths = [files.get(image_id.lower()) for image_id in rows.index]
        rows[column] = [Path(os.path.relpath(path, folder)).as_posix() if path else "" for path in paths]
    return rows.assign(group=rows.get("group", "")).fillna("")


def with_usual_names(cells, layout):
    """A table without its columns of labels, the others under the names of `dataset.csv`; the first of two of a name.

    Each table is renamed by itself, because the tables of a data set may call a column differently.
    """
    cells = cells.drop(columns=[*layout.classes, "unk", layout.label], errors="ignore").rename(columns=layout.renamed)
    return cells.loc[:, ~cells.columns.duplicated()]


def files_below(folder):
    """Tables, images and masks anywhere below a folder.

    Returns:
        List of the paths of files that may be tables; and two dictionaries from the image id in lower case to the path
        of the image, and to the path of the mask.

    Raises:
        InputError: if there is no folder, or two images that differ have one id.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is missing: name the folder of the data set")
    tables, images, masks, visited = [], {}, {}, set()
    for place, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in visited:  # two links to one folder, or a circle
            folders.clear()
            continue
        visited.add(real)
        # Skip run folders.
        folders[:] = sorted(name for name in folders if not Path(place, name, "manifests").is_dir())
        for name in sorted(names):
            path, stem = Path(place, name), re.sub(FILE_ENDING, "", name, flags=re.IGNORECASE)
            if path.suffix.lower() in TABLE_SUFFIXES:
                tables.append(path)
            elif path.suffix.lower() in SUFFIXES and not name.startswith(".") and not stem.endswith("_superpixels"):
                is_mask = MASK_ENDING.search(stem)
                first = (masks if is_mask else images).setdefault(MASK_ENDING.sub("", stem).lower(), path)
                if first is not path and not is_mask and first.stat().st_size != path.stat().st_size:
                    raise InputError(f"{first} and {path} have the same image id, but differ: remove one")
    return tables, images, masks


def read_table_of(name, path, layout):
    """Read the table of labels; data frame of texts indexed by image id."""
    if name == "isic2016":
        rows = [row for row in read_rows(path, ID_COLUMNS) if row[0].lower() not in ID_COLUMNS]
        return pd.DataFrame([(*row, "")[1] for row in rows], [row[0] for row in rows], [layout.label])
    if name == "ph2":
        rows = [[cell.strip() for cell in line.split("||")] for line in read_text(path).splitlines()]
        rows = [row for row in rows if len(row) > 3 and re.fullmatch("IMD[0-9]+", row[1])]
        if not rows:
            raise InputError(f"{path} has no row like || IMD003 || ... ||: take PH2_dataset.txt as it was published")
        cells = pd.DataFrame([row[2:4] for row in rows], [row[1] for row in rows])
        cells.columns = ["histological_diagnosis", layout.label][: len(cells.columns)]
        return cells
    return read_cells(path, ["image_id", *(layout.classes or [layout.label])])


def label_of(path, cells, layout):
    """Labels of the rows of a table, as a column of texts; "" if there is none.

    Raises:
        InputError: if a row of a one-hot table has more than one 1, or a label is not known in this data set.
    """
    if layout.classes:
        hot = cells[list(layout.classes)].apply(pd.to_numeric, errors="coerce").fillna(0) == 1
        if (several := hot.sum(axis=1) > 1).any():
            raise InputError(f"{path} has more than one diagnosis of {cells.index[several][0]}: correct that row")
        return hot.idxmax(axis=1).where(hot.any(axis=1), "")
    labels = cells[layout.label].str.lower().replace(layout.codes)
    if layout.codes and (wrong := ~labels.isin(layout.codes.values())).any():
        raise InputError(f"{path} has the label {labels[wrong].iloc[0]!r} of {cells.index[wrong][0]}: correct that row")
    return labels
