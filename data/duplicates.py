"""Find images that stand in the data set more than once, in one split or in two.

    python -m data.duplicates --data-dir data/isic2017_256

An image that is in two splits is known before it is asked for. Prints the pairs: the same pixels, and all but the same,
which a correlation of small grey copies tells, in whichever of the eight flips and quarter turns they are most alike.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from data.images import read_square
from data.isic2017 import image_paths
from data.progress import progress

SIDE = 32  # pixels of the grey copies
BLOCK = 1000  # images that are compared with all others at once


@dataclass(frozen=True)
class Settings:
    data_dir: Path = Path("data/isic2017")
    """Folder of the data set in the official ISIC 2017 layout."""
    splits: tuple[Literal["training", "validation", "test"], ...] = ("training", "validation", "test")
    """Splits to compare, each with itself and with the others."""
    correlation: float = 0.99
    """Least correlation of two grey copies that makes their images a pair."""
    workers: int = 2
    """Threads that decode."""


def near_duplicates(paths, correlation=0.99, workers=2):
    """Find images that are all but the same.

    Args:
        paths: sequence of image files.
        correlation: least correlation of two grey copies that makes their images a pair.
        workers: threads that decode.

    Returns:
        List of (first, second, correlation), indices into `paths`, the most alike first. Images of the same pixels have
        a correlation of 1, to rounding.

    Raises:
        InputError: if a file cannot be decoded.
    """

    def grey_copy(path):
        grey = read_square(path, SIDE).mean(axis=2)
        spread = grey.std()
        return (grey - grey.mean()) / spread if spread else np.zeros_like(grey)

    with ThreadPoolExecutor(workers) as pool:
        copies = np.stack(list(progress(pool.map(grey_copy, paths), total=len(paths))))
    copies = copies.astype(np.float32) / SIDE  # a product of two is their correlation
    ways = [
        np.rot90(flipped, quarters, axes=(1, 2)) for flipped in (copies, copies[:, :, ::-1]) for quarters in range(4)
    ]
    pairs = []
    for start in range(0, len(paths), BLOCK):
        block = copies[start : start + BLOCK].reshape(-1, SIDE * SIDE)
        alike = np.max([block @ way.reshape(len(paths), -1).T for way in ways], axis=0)
        pairs += [
            (start + int(i), int(k), float(alike[i, k]))
            for i, k in zip(*np.nonzero(alike >= correlation), strict=True)
            if start + i < k
        ]
    return sorted(pairs, key=lambda pair: -pair[2])


def main():
    import tyro

    from data.errors import one_sentence_errors
    from data.folds import pixel_hash

    settings = tyro.cli(Settings, prog="python -m data.duplicates", description=__doc__)
    with one_sentence_errors():
        named = [(split, *item) for split in settings.splits for item in image_paths(settings.data_dir, split).items()]
        pairs = near_duplicates([path for *_, path in named], settings.correlation, settings.workers)
        for i, k, alike in pairs:
            (split, image_id, path), (other_split, other_id, other_path) = named[i], named[k]
            how = "the same pixels" if pixel_hash(path) == pixel_hash(other_path) else f"correlation {alike:.4f}"
            print(f"{split} {image_id} = {other_split} {other_id}: {how}")
        across = sum(named[i][0] != named[k][0] for i, k, _ in pairs)
        print(f"{len(pairs)} pairs among {len(named)} images, {across} of them across splits")


if __name__ == "__main__":
    main()
