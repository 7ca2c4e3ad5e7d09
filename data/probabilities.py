"""The table of predicted probabilities that the stages hand to each other."""

from contextlib import suppress

import numpy as np
import pandas as pd

from data.errors import InputError
from data.files import whole_file
from data.isic2017 import CLASSES, read_table


def write_probabilities(path, image_ids, probabilities):
    """Write a table `image_id,melanoma,seborrheic_keratosis,nevus`, a row an image, in full float precision.

    Args:
        path: the CSV file.
        image_ids: ids in the order of the rows.
        probabilities: array (images, 3); each row is divided by its sum, so that it is 1 to float64 precision.
    """
    probabilities = np.asarray(probabilities, np.float64)
    table = pd.DataFrame(probabilities / probabilities.sum(axis=1, keepdims=True), columns=list(CLASSES))
    table.insert(0, "image_id", list(image_ids))
    with whole_file(path) as part:
        table.to_csv(part, index=False, errors="surrogateescape")  # an id may hold bytes that are no UTF-8


def read_probabilities(path, image_ids):
    """Read such a table, joined by id.

    Args:
        path: the CSV file.
        image_ids: ids that must be there.

    Returns:
        Array (images, 3), float64, rows in the order of `image_ids`.

    Raises:
        InputError: if the table is unreadable, lacks a column or an image, has further ids, or holds something else
            than probabilities that sum to 1.
    """
    table = read_table(path, ["image_id", *CLASSES])
    if set(table.index) != set(image_ids):
        odd = min(set(table.index) ^ set(image_ids))
        raise InputError(
            f"{path} does not hold the images of the split ({odd} is only in one of them): run cls_predict.py again"
        )
    probabilities = table.loc[list(image_ids), list(CLASSES)].to_numpy()
    if (probabilities < 0).any() or not np.allclose(probabilities.sum(axis=1), 1, atol=1e-5):
        raise InputError(f"{path} holds rows that are no probabilities summing to 1: run cls_predict.py again")
    return probabilities


def read_scores(path, image_ids):
    """Read anyone's table of scores, joined by id: ours, or the challenge's three columns.

    The challenge's submissions hold an id and two independent scores, for melanoma and for seborrheic keratosis, with
    or without a header, the ids with or without `.jpg`; ours have a third score, for nevus, and sum to 1.

    Args:
        path: the CSV file.
        image_ids: ids that must be there, and no others.

    Returns:
        Array (images, 3) of probabilities, or (images, 2) of scores, float64, rows in the order of `image_ids`.

    Raises:
        InputError: if the table is unreadable, is of neither form, lacks an image or has further ones, or holds
            something else than numbers from 0 to 1, or three of them that do not sum to 1.
    """
    first = ""
    with suppress(OSError, ValueError), open(path, encoding="utf-8-sig") as file:  # of which `read_table` tells
        first = file.readline()
    header = not first.lstrip('" ').startswith("ISIC_")
    three = CLASSES[2] in first if header else first.count(",") > 2
    table = read_table(path, ["image_id", *CLASSES[: 3 if three else 2]], header)
    unknown, absent = sorted(set(table.index) - set(image_ids)), sorted(set(image_ids) - set(table.index))
    if unknown:
        raise InputError(
            f"{path} names {unknown[0]} ({len(unknown)} such ids), which has no label: drop the row or name the "
            f"labels that belong to the table"
        )
    if absent:
        raise InputError(f"{path} has no row for {absent[0]} ({len(absent)} such images): add the row")
    scores = table.loc[list(image_ids)].to_numpy()
    for image_id, row in zip(image_ids, scores, strict=True):
        if not ((row >= 0) & (row <= 1)).all():
            raise InputError(f"{path} has a score outside 0 to 1 for {image_id}: bring the scores into that range")
        if len(row) == 3 and abs(row.sum() - 1) > 1e-5:
            raise InputError(
                f"{path} has probabilities that do not sum to 1 for {image_id}: mend them, or leave the column "
                f"{CLASSES[2]} out to have two independent scores measured"
            )
    return scores
