"""Write `dataset.csv` for the original files of a public data set, or write a smaller copy of any data set.

    python -m data.prepare ham10000 FOLDER            also isic2016, isic2018, isic2019, isic2020 and ph2
    python -m data.prepare squash FROM TO --side 256

docs/data.md describes what each data set needs.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path

import tyro
from tyro.conf import Positional

from data.dataset import TABLE, ListedImages, draw_split, open_data_set
from data.images import image_size, read_square, read_square_mask, write_image
from data.official import SPLITS
from data.public_sets import PUBLIC_SETS, public_rows
from utils.errors import InputError, one_sentence_errors
from utils.files import atomic_write, write_table
from utils.progress import progress

CHUNK = 256  # files that the threads work on at once
MARK = ".squashed"  # empty file in a folder that holds a smaller copy


def prepare(
    name: str, folder: Positional[Path], output: Path | None = None, masks: Path | None = None, seed: int = 0
) -> None:
    """Write dataset.csv of a public data set.

    Args:
        name: name of the data set.
        folder: Folder with its unpacked archives, in any subfolders.
        output: Folder for dataset.csv; without it, the folder of the data set.
        masks: Another folder with lesion masks, <id>_segmentation and a suffix.
        seed: Seed of the splits, if the data set has none.
    """
    if not 0 <= seed < 2**32:
        raise InputError(f"--seed {seed}: give a number from 0 to {2**32 - 1}")
    rows = public_rows(name, folder, masks)
    rows["split"] = draw_split(rows, seed)
    output = folder if output is None else output
    if output != folder:
        start, end = map(os.path.realpath, (output, folder))  # a relative path through a link would lead elsewhere
        for column in ("image", "mask"):
            rows[column] = [path and os.path.relpath(os.path.join(end, path), start) for path in rows[column]]
    first = ["image", "label", "split", "mask", "group"]
    table, file = rows[first + [column for column in rows if column not in first]], output / TABLE
    if file.exists() and file.read_bytes() != table.to_csv(index=False).encode(errors="surrogateescape"):
        raise InputError(f"{file} is there already, with other rows: move it away, or give another --output")
    write_table(file, table)
    data_set = ListedImages(output)  # checks the table
    for split in SPLITS:
        counts = data_set.in_split(split)["label"].replace("", "without a label").value_counts()
        print(f"{split}: {counts.sum()} images ({', '.join(f'{n} {label}' for label, n in counts.items())})")
    print(f"wrote {output / TABLE}")


def squash(source: Positional[Path], target: Positional[Path], side: int = 256, workers: int = 2) -> None:
    """Write a smaller copy of a data set. Every image and mask is resized to a square. A second call continues.

    Args:
        source: Folder of the data set.
        target: Folder for the copy.
        side: Width and height of the copies in pixels.
        workers: Threads that decode.
    """
    if min(side, workers) < 1:
        raise InputError(f"--side {side} --workers {workers}: both must be at least 1")
    data_set, images, masks, files = open_data_set(source), {}, {}, {}
    for split in SPLITS:
        try:
            paths = data_set.images(split)
        except InputError as error:
            print(f"left out the {split} split: {str(error).partition(': ')[0]}")
            continue
        mask_paths = data_set.masks(split, paths) if data_set.has_masks(split) else {}
        for image_id, path in paths.items():
            images[image_id] = data_set.squashed_name("image", split, image_id)
            files[target / images[image_id]] = path, read_square
        for image_id, path in mask_paths.items():
            if path.exists():
                masks[image_id] = data_set.squashed_name("mask", split, image_id)
                files[target / masks[image_id]] = path, read_square_mask
    if not files:
        raise InputError(f"{source} holds no image of any split: name the folder of a data set")
    if target.resolve() == source.resolve():
        raise InputError(f"{target} is the data set itself: choose another folder for the copy")
    tables = data_set.squashed_tables(images, masks)
    former = next((file for file in [*files, *(target / name for name in tables)] if file.exists()), None)
    if former and not (target / MARK).exists():
        raise InputError(
            f"{former} is there already, without {MARK} of a smaller copy: choose another folder, or run `touch "
            f"{target / MARK}` if it is one"
        )
    with atomic_write(target / MARK) as part:
        part.touch()
    bad = []

    def copy(file):
        path, read = files[file]
        with suppress(FileNotFoundError, InputError):  # a copy that is missing or damaged
            if file.stat().st_mtime_ns >= path.stat().st_mtime_ns and image_size(file) == (side, side):
                return
        try:
            write_image(file, read(path, side), one_bit=False)
        except InputError as error:
            bad.append(error)

    with ThreadPoolExecutor(workers) as pool:
        chunks = (list(files)[start : start + CHUNK] for start in range(0, len(files), CHUNK))
        for _ in progress(chain.from_iterable(pool.map(copy, chunk) for chunk in chunks), "squashing", len(files)):
            pass
    for name, text in tables.items():
        with atomic_write(target / name) as part:
            part.write_text(text, encoding="utf-8", errors="surrogateescape")
    if bad:
        raise InputError(
            f"{bad[0]} ({len(bad)} such files; all others are in {target}), then run the same command again"
        )
    print(f"wrote {len(images)} images and {len(masks)} masks of {side}x{side} pixels, and the tables, to {target}")


def main():
    commands = {name: partial(prepare, name) for name in PUBLIC_SETS} | {"squash": squash}
    with one_sentence_errors():
        tyro.extras.subcommand_cli_from_dict(commands, prog="python -m data.prepare", description=__doc__)


if __name__ == "__main__":
    main()
