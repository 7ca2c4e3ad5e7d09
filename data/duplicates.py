"""Find images that occur more than once in a data set, in one split or in two.

    python -m data.duplicates --data-dir data/isic2017_256

Prints pairs of images with the same pixels, and pairs that are nearly the same: their small grey copies have a high
correlation in one of the eight flips and quarter turns. Stages 1 to 4 make this comparison by themselves.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from data.dataset import open_data_set
from data.images import read_image, resize
from utils.errors import InputError, one_sentence_errors
from utils.progress import progress

SIDE = 32  # pixels of the grey copies
ALIKE = 0.99  # least correlation of the grey copies of a pair; ISIC 2017 has 15 such pairs
PRODUCTS = 2**22  # numbers in memory at once, so that memory does not grow with the square of the number of images


@dataclass(frozen=True)
class Settings:
    data_dir: Path = Path("data/isic2017")
    """Folder of the data set."""
    splits: tuple[Literal["training", "validation", "test"], ...] = ("training", "validation", "test")
    """Splits to compare, each with itself and with the others."""
    correlation: float = ALIKE
    """Least correlation of two grey copies that makes their images a pair."""
    workers: int = 2
    """Threads that decode."""


def near_duplicates(paths, correlation=ALIKE, workers=2):
    """Find images that are almost the same.

    Args:
        paths: sequence of image files.
        correlation: least correlation of two grey copies that makes their images a pair.
        workers: threads that decode.

    Returns:
        See `near_pairs`.

    Raises:
        InputError: if a file cannot be decoded.
    """
    copies = grey_copies(paths, workers)
    for copy in copies:
        if isinstance(copy, InputError):
            raise copy
    return near_pairs(np.array(copies), correlation)


def grey_copies(paths, workers):
    """Decode images to small grey copies.

    Returns:
        List of arrays (32, 32), float16, 0 to 255, or of the `InputError` about a file that cannot be decoded.
    """

    def grey_copy(path):
        try:
            image = read_image(path, at_least=4 * SIDE)  # coarser pixels would depend on the blocks of the JPEG file
            return resize(image, SIDE, SIDE).mean(axis=2).astype(np.float16)
        except InputError as error:
            return error

    with ThreadPoolExecutor(workers) as pool:
        return list(progress(pool.map(grey_copy, paths), "comparing", len(paths), leave=False, delay=1))


def near_pairs(copies, correlation=ALIKE, splits=None):
    """Find grey copies that are almost the same after one of the eight flips and quarter turns.

    Args:
        copies: array (images, 32, 32), as `grey_copies` gives them.
        correlation: least correlation of a pair.
        splits: integer array (images,), to find only pairs of images in different splits.

    Returns:
        List of (first, second, correlation), with indices into `copies`, sorted by falling correlation. Images of the
        same pixels have a correlation of 1, up to rounding. A copy with a single grey value is in no pair.
    """
    copies = copies.astype(np.float32)
    copies -= copies.mean(axis=(1, 2), keepdims=True)
    lengths = np.linalg.norm(copies, axis=(1, 2), keepdims=True)
    copies = np.divide(copies, lengths, out=copies, where=lengths > 0)  # a product of two is their correlation
    ways = turned(copies)
    # All eight turns of a copy have the same mean, and the means of two copies are not further apart than the copies
    # themselves: the squared distance of a pair is at most 2 - 2 * correlation. So most pairs are excluded by their
    # means. A mean is symmetric, so an eighth of its pixels determines it.
    half = SIDE // 2
    rows, columns = np.triu_indices(half)
    means = np.mean([way[:, rows, columns] for way in ways], axis=0) * np.where(rows == columns, 4, 8) ** 0.5
    squares = (means**2).sum(axis=1)
    pairs, block = [], max(1, PRODUCTS // max(1, len(copies)))
    for start in range(0, len(copies), block):
        stop = start + block
        distances = squares[start:stop, None] + squares - 2 * means[start:stop] @ means.T
        first, second = np.nonzero(distances <= 2 - 2 * correlation + 1e-4)
        first += start
        wanted = first < second if splits is None else (first < second) & (splits[first] != splits[second])
        first, second = first[wanted], second[wanted]
        for offset in range(0, len(first), PRODUCTS // SIDE**2):
            i, k = (indices[offset : offset + PRODUCTS // SIDE**2] for indices in (first, second))
            alike = np.max([np.einsum("nrc,nrc->n", copies[i], way[k]) for way in ways], axis=0)
            near = alike >= correlation
            pairs += zip(i[near].tolist(), k[near].tolist(), alike[near].tolist(), strict=True)
    return sorted(pairs, key=lambda pair: -pair[2])


def turned(images):
    """The eight flips and quarter turns of square images (images, side, side), as views."""
    return [np.rot90(flip, quarters, axes=(1, 2)) for flip in (images, images[:, :, ::-1]) for quarters in range(4)]


def pixel_hash(path):
    """Text that is the same for two images if (and in practice only if) they have the same size and pixels."""
    image = read_image(path)
    return f"{image.shape} {hashlib.sha256(image).hexdigest()}"


def main():
    settings = tyro.cli(Settings, prog="python -m data.duplicates", description=__doc__)
    with one_sentence_errors():
        if settings.workers < 1:
            raise InputError(f"--workers {settings.workers}: give at least 1")
        data_set = open_data_set(settings.data_dir)
        named = [(split, *item) for split in settings.splits for item in data_set.images(split).items()]
        pairs = near_duplicates([path for *_, path in named], settings.correlation, settings.workers)
        for i, k, alike in pairs:
            (split, image_id, path), (other_split, other_id, other_path) = named[i], named[k]
            same = pixel_hash(path) == pixel_hash(other_path)
            likeness = "the same pixels" if same else f"correlation {alike:.4f}"
            print(f"{split} {image_id} = {other_split} {other_id}: {likeness}")
        across = sum(named[i][0] != named[k][0] for i, k, _ in pairs)
        print(f"{len(pairs)} pairs among {len(named)} images, {across} of them across splits")


if __name__ == "__main__":
    main()
