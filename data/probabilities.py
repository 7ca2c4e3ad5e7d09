"""Read and write the table of predicted probabilities, which later stages read."""

import sys
from dataclasses import dataclass

import numpy as np
import pandas as pd

from data.classes import tasks_of
from data.tables import as_numbers, read_cells, read_table
from utils.errors import InputError
from utils.files import write_table


@dataclass(frozen=True)
class Predictions:
    """Predictions of several networks for some images."""

    image_ids: np.ndarray
    """Ids (images,)."""
    labels: np.ndarray | None
    """One-hot rows (images, classes), zeros for an image without a label; None if no label is known."""
    probabilities: np.ndarray
    """Array (images, classes, networks)."""

    @property
    def has_label(self):
        """Boolean array (images,), whether each image has a label."""
        return np.zeros(len(self.image_ids), bool) if self.labels is None else self.labels.any(axis=1)

    def labelled(self):
        """The `Predictions` for the images with a label. `labels` must not be None."""
        return Predictions(
            self.image_ids[self.has_label], self.labels[self.has_label], self.probabilities[self.has_label]
        )


def write_probabilities(path, image_ids, probabilities, classes):
    """Write a table of `image_id` and the classes, for example `image_id,melanoma,seborrheic_keratosis,nevus`, in full
    float precision. Each image has one row.

    Args:
        path: the CSV file.
        image_ids: ids in the order of the rows.
        probabilities: array (images, classes). Each row is divided by its sum, so that it sums to 1 in float64.
        classes: names of the classes.
    """
    probabilities = np.asarray(probabilities, np.float64)
    table = pd.DataFrame(probabilities / probabilities.sum(axis=1, keepdims=True), columns=list(classes))
    table.insert(0, "image_id", list(image_ids))
    write_table(path, table)


def read_probabilities(path, image_ids, classes):
    """Read a table of `write_probabilities`, joined by id.

    Args:
        path: the CSV file.
        image_ids: ids that must be there.
        classes: names of the classes.

    Returns:
        Array (images, classes), float64, rows in the order of `image_ids`.

    Raises:
        InputError: if the table is unreadable, lacks a column or an image, has further ids, or if its rows are not
            probabilities that sum to 1.
    """
    return ordered_probabilities(path, read_table(path, ["image_id", *classes]), image_ids)


def ordered_probabilities(path, table, image_ids):
    """Check a table of probabilities, and put its rows in the order of the given ids.

    Args:
        path: its file, for errors.
        table: data frame of the classes, indexed by image id.
        image_ids, and what is returned and raised: see `read_probabilities`.
    """
    if set(table.index) != set(image_ids):
        odd = min(set(table.index) ^ set(image_ids))
        raise InputError(
            f"{path} does not hold the images of the split ({odd} is only in one of them): run cls_predict.py again"
        )
    probabilities = table.loc[list(image_ids)].to_numpy()
    if (probabilities < 0).any() or not np.allclose(probabilities.sum(axis=1), 1, atol=1e-5):
        raise InputError(f"{path} holds rows that are no probabilities summing to 1: run cls_predict.py again")
    return probabilities


def read_scores(path, image_ids, classes, others=()):
    """Read a table of scores by any method, joined by id: scores of all classes, or of the tasks.

    Submissions to the challenge hold an id, with or without `.jpg`, and two independent scores, for melanoma and for
    seborrheic keratosis; the header is optional. Tables of this repository have a third score, for nevus, and sum to 1
    up to rounding. With two classes, a score of the positive class is enough. Further columns are ignored and named on
    standard error.

    Args:
        path: the file, as `data.tables.read_cells` takes it.
        image_ids: ids that must be there.
        classes: names of the classes.
        others: ids that may be there.

    Returns:
        Array (images, classes) of probabilities, or (images, tasks) of scores of the tasks, float64, rows in the order
        of `image_ids`.

    Raises:
        InputError: if the table is unreadable or has neither form, lacks an image or has further images, holds values
            other than numbers from 0 to 1, or scores of all classes that do not sum to 1; or if the rows sum to 1 with
            a further column, which is probably a class with another name.
    """
    tasks, whole = tasks_of(classes), tasks_of(classes) == tuple(classes)
    cells = read_cells(path, ["image_id", *tasks], without_header=["image_id", *classes])
    table = as_numbers(path, cells[[name for name in classes if name in cells]])
    unknown, absent = sorted({*table.index} - {*image_ids, *others}), sorted({*image_ids} - {*table.index})
    if unknown:
        raise InputError(
            f"{path} names {unknown[0]} ({len(unknown)} such ids), which has no label: drop the row or name the "
            f"labels that belong to the table"
        )
    if absent:
        raise InputError(f"{path} has no row for {absent[0]} ({len(absent)} such images): add the row")
    table = table.loc[list(image_ids)]
    scores = table.to_numpy()
    outside = table.index[((scores < 0) | (scores > 1)).any(axis=1)]
    if len(outside):
        raise InputError(f"{path} has a score outside 0 to 1 for {outside[0]}: bring the scores into that range")
    if classes[-1] in table:
        far = table.index[~sum_to_one(scores)]
        if len(far):
            raise InputError(
                f"{path} has probabilities that do not sum to 1 for {far[0]}: correct them"
                + ("" if whole else f", or leave the column {classes[-1]} out to have independent scores measured")
            )
        return scores
    if len(classes) == 2:
        return np.column_stack([scores, 1 - scores])
    further = cells.drop(columns=table.columns).loc[list(image_ids)]
    further = further.loc[:, [name != "" for name in further.columns]]
    numbers = further.apply(lambda column: pd.to_numeric(column.str.replace(",", "."), errors="coerce")).dropna(axis=1)
    for names in [[name] for name in numbers] + [list(numbers)]:
        third = numbers[names].sum(axis=1).to_numpy()
        if names and sum_to_one(np.column_stack([scores, third])).all():
            raise InputError(
                f"{path} has probabilities of three classes, the third as {', '.join(names)}: call that column "
                f"{classes[-1]}, or leave it out to have two independent scores measured"
            )
    if len(further.columns):
        print(f"{path}: ignored the columns {', '.join(further.columns)}", file=sys.stderr)
    return scores


def sum_to_one(probabilities):
    """Which rows of probabilities (rows, columns) sum to 1, up to the rounding of their decimals.

    For example, each number with two decimals may be wrong by 0.005.
    """
    decimals = next(
        (d for d in range(2, 6) if np.allclose(probabilities, probabilities.round(d), rtol=0, atol=1e-9)), 6
    )
    off = max(1e-5, probabilities.shape[1] / 2 * 10.0**-decimals + 1e-9)
    return np.abs(probabilities.sum(axis=1) - 1) <= off
