"""Folds of the training images, for predictions by networks that have not seen the image."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from data.errors import InputError
from data.images import read_image
from data.progress import progress


def assign_folds(paths, classes, folds, seed, workers):
    """Cut images into folds of like size and like shares of the classes, in which identical images stay together.

    Images are identical if they have the same size and the same decoded pixels, whatever their files and names. Source
    of the folds: scikit-learn's `StratifiedGroupKFold`.

    Args:
        paths: the image files.
        classes: array (images,) of class indices.
        folds: number of folds.
        seed: seed of the shuffle.
        workers: threads that decode; no more images than that are held in memory at a time.

    Returns:
        Array (images,) of folds, int64, 1 to `folds`.

    Raises:
        InputError: if an image cannot be decoded, or there are too few images.
    """
    with ThreadPoolExecutor(workers) as pool:
        groups = list(progress(pool.map(pixel_hash, paths), "comparing", len(paths), leave=False, delay=1))
    different = len(set(groups))
    if different < folds or np.bincount(classes).max() < folds:
        raise InputError(f"folds = {folds} is too many for {different} different training images: take fewer")
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    assigned = np.zeros(len(groups), np.int64)
    for fold, (_, held_out) in enumerate(splitter.split(groups, classes, groups), start=1):
        assigned[held_out] = fold
    return assigned


def pixel_hash(path):
    """Text that two images share if, and in practice only if, they have the same size and pixels."""
    image = read_image(path)
    return f"{image.shape} {hashlib.sha256(image).hexdigest()}"
