"""Folds of the training images, so that each can be predicted by networks that were not trained on it."""

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold

from data.duplicates import near_pairs
from utils.errors import InputError
from utils.files import write_table


def assign_folds(copies, classes, folds, seed, lesions=()):
    """Divide images into folds of similar size and class shares, with similar images in one fold.

    Two images stay in one fold if their grey copies are almost the same (see `data.duplicates.near_pairs`), or if they
    show one lesion or patient, and so do all images that such pairs connect. Uses `StratifiedGroupKFold`.

    Args:
        copies: array (images, 32, 32) of the images' grey copies.
        classes: array (images,) of class indices.
        folds: number of folds.
        seed: seed of the shuffle.
        lesions: for each image its lesion or patient, or None if it is unknown; empty if all are unknown.

    Returns:
        Array (images,) of folds, int64, 1 to `folds`.

    Raises:
        InputError: if there are too few images.
    """
    first_of = {}
    same_lesion = [(first_of.setdefault(lesion, row), row) for row, lesion in enumerate(lesions) if lesion is not None]
    pairs = np.array([*(pair[:2] for pair in near_pairs(copies)), *same_lesion], np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(pairs)), pairs.T), shape=(len(copies), len(copies)))
    different, groups = connected_components(graph, directed=False)
    if different < folds or np.bincount(classes).max() < folds:
        raise InputError(f"folds = {folds} is too many for {different} different training images: take fewer")
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    assigned = np.zeros(len(groups), np.int64)
    for fold, (_, held_out) in enumerate(splitter.split(groups, classes, groups), start=1):
        assigned[held_out] = fold
    return assigned


def write_folds(path, image_ids, folds):
    """Write a table `image_id,fold`."""
    write_table(path, pd.DataFrame({"image_id": list(image_ids), "fold": folds}))


def read_folds(path):
    """Read what `write_folds` wrote.

    Returns:
        Dictionary from image id to fold, counted from 1.

    Raises:
        InputError: if the table is damaged.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding_errors="surrogateescape")  # ids: 0001, NA
        return table.set_index("image_id")["fold"].astype(int).to_dict()
    except (ValueError, KeyError) as error:
        raise InputError(f"{path} is damaged ({error}): remove it and run training.py with --folds again") from None
