"""The table of predicted probabilities that the stages hand to each other."""

import numpy as np
import pandas as pd

from data.files import whole_file
from data.isic2017 import CLASSES, read_table
from errors import InputError


def write_predictions(path, image_ids, probabilities):
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
        table.to_csv(part, index=False)


def read_predictions(path, image_ids):
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
