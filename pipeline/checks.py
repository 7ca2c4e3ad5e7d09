"""Checks of the data set and of the files of earlier stages, before any work starts."""

import csv
import json
import os
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np

from data.duplicates import SIDE, grey_copies, near_pairs
from data.images import check_images
from data.lesion import border_pixels
from data.official import KNOWN_DUPLICATES, SPLITS
from pipeline.data_sets import data_set
from pipeline.paths import RunFolder
from utils.errors import InputError
from utils.files import atomic_write, lock

AS_BYTES = {"newline": "", "encoding": "utf-8", "errors": "surrogateescape"}  # file names may not be UTF-8
NAMED = 20  # an error names at most this many bad files


def check_crops(paths, size, config):
    """Check that crops are readable and have the size that a network takes, plus the border.

    Raises:
        InputError: if one is unreadable or of another size.
    """
    size += 2 * border_pixels(size, config.crop_border)
    sizes, bad = check_images({path.stem: path for path in paths}, config.workers)
    for error in bad.values():
        raise InputError(f"{error}, or remove it and run `python resize.py`")
    for path in paths:
        height, width = sizes[path.stem]
        if (height, width) != (size, size):
            raise InputError(
                f"{path} is {width}x{height} pixels, not {size}x{size}: "
                f"give the --image-size and --crop-border that the crops were made with, or run `python resize.py`"
            )


def good_files(config, what, paths, look, misfits=lambda facts: {}):
    """Decode files of the data set, and refuse or skip the bad ones; see `refuse_or_skip`.

    Args:
        config: the settings.
        what: what the files are, for example "training image".
        paths: dictionary from image id to path.
        look: function that decodes a file and returns facts about it, see `data.images.check_images`.
        misfits: function that finds more bad files: it takes the facts of all decoded files by image id, and returns a
            dictionary from image id to the `InputError` about it.

    Returns:
        Dictionary from the id of each good file to the facts about it, in the order of `paths`.

    Raises:
        InputError: about every bad file that is not skipped; or if no file is good.
    """
    facts, bad = decode_once(config, paths, look)
    bad |= misfits(facts)
    refuse_or_skip(config, what, bad)
    good = {image_id: facts[image_id] for image_id in paths if image_id not in bad}
    if not good:
        folders = [path.parent for path in paths.values()] or [Path(config.data_dir)]
        raise InputError(f"{os.path.commonpath(folders)} has no {what} that can be used: add or replace files")
    return good


def decode_once(config, paths, look):
    """Do what `data.images.check_images` does, but do not decode a file that an earlier stage has decoded.

    decoded.json of the run folder keeps the facts about each good file, with the size and time of the file.
    """
    file, saved = RunFolder(config.run_dir).decoded, {}
    with suppress(FileNotFoundError, ValueError, TypeError):  # if it is damaged, all images are decoded again
        saved = dict(json.loads(file.read_text(encoding="utf-8")))
    stamps = {image_id: f"{look.__name__} {stamp(path)}" for image_id, path in paths.items()}
    known = {image_id: tuple(saved[key]) for image_id, key in stamps.items() if key in saved}
    unknown = {image_id: path for image_id, path in paths.items() if image_id not in known}
    new, bad = check_images(unknown, config.workers, look)
    if new:
        with atomic_write(file) as part:
            part.write_text(json.dumps(saved | {stamps[image_id]: facts for image_id, facts in new.items()}))
    return known | new, bad


def stamp(path):
    """Path, size and time of a file, as text; None if there is no access to it."""
    try:
        status = path.stat()
    except OSError:
        return None
    return f"{path} {status.st_size} {status.st_mtime_ns}"


def refuse_or_skip(config, what, bad):
    """Refuse bad files. They are skipped and listed instead with `skip_bad_images`, or if an earlier stage did so.

    Args:
        config: the settings.
        what: what the files are, for example "training image".
        bad: dictionary from image id to the `InputError` about it.

    Raises:
        InputError: about the bad files, if they are not skipped.
    """
    file = RunFolder(config.run_dir).bad_files
    rows = listed_bad_files(file)
    known = {image_id for kind, image_id, _ in rows if kind == what}
    if set(bad) - known and not config.skip_bad_images:
        named = [f"{bad[image_id]}, or pass --skip-bad-images" for image_id in sorted(bad)[:NAMED]]
        more = [f"and {len(bad) - NAMED} more {what} files"] if len(bad) > NAMED else []
        raise InputError("; ".join([*named, *more]))
    if bad:
        print(f"left out {len(bad)} bad {what} files, listed in {file}")
    if set(bad) != known:
        with lock_shared(RunFolder(config.run_dir), file):
            rows = [row for row in listed_bad_files(file) if row[0] != what]
            rows += [[what, image_id, str(bad[image_id])] for image_id in sorted(bad)]
            with atomic_write(file) as part, open(part, "w", **AS_BYTES) as table:
                csv.writer(table).writerows([["what", "image_id", "problem"], *rows])


def listed_bad_files(file):
    """Rows (what, image id, problem) of the list of bad files; none if there is no list.

    Raises:
        InputError: if the list is damaged.
    """
    if not file.exists():
        return []
    try:
        with open(file, **AS_BYTES) as table:
            header, *rows = csv.reader(table)
    except (ValueError, csv.Error):
        header, rows = [], []
    if header != ["what", "image_id", "problem"] or any(len(row) != 3 for row in rows):
        raise InputError(f"{file} is damaged: remove it and pass --skip-bad-images again")
    return rows


def lock_shared(run, path):
    """Lock a file of a `RunFolder` that several stages read and write.

    Returns:
        A context manager.

    Raises:
        InputError: if another process holds the lock for a minute.
    """
    taken = lock(run.manifests / f"{path.name}.lock", timeout=60)
    if taken is None:
        raise InputError(f"{path} is being written by another process: wait for its end")
    return taken


def of_another_size(paths, facts, sizes):
    """Masks that do not have the size of their image: dictionary from image id to the `InputError` about it."""
    return {
        image_id: InputError(
            f"{paths[image_id]} is {width}x{height} pixels, its image {sizes[image_id][1]}x{sizes[image_id][0]}: "
            f"replace the mask or the image"
        )
        for image_id, (height, width, *_) in facts.items()
        if (height, width) != sizes[image_id]
    }


def turned_otherwise(paths, masks, images):
    """Find the masks that may not fit their image, because EXIF turns the image and not the mask.

    Where the turn exchanges width and height, the size of the mask shows on which image it was drawn.

    Args:
        paths: dictionary from image id to the mask's path.
        masks, images: dictionaries from image id to `data.images.mask_facts` and `data.images.image_facts`.

    Returns:
        Dictionary from image id to the `InputError` about it.
    """
    bad = {}
    for image_id, (*_, orientation, _, _) in masks.items():
        height, width, turn = images[image_id]
        size_shows = height != width and (turn >= 5) != (orientation >= 5)  # EXIF's 5 to 8 are quarter turns
        if turn != orientation and not size_shows:
            bad[image_id] = InputError(
                f"{paths[image_id]} may be drawn on its image as stored or as EXIF turns it (orientation {turn} of the "
                f"image, {orientation} of the mask): save both upright, without EXIF orientation"
            )
    return bad


def check_lesions(split, paths, facts):
    """Check that the masks of a split are not all empty, not all full, and not mostly inverted.

    A mask looks inverted if the lesion covers more than 0.9 of the edge of the frame, and less of the whole frame.

    Args:
        paths: dictionary from image id to path.
        facts: dictionary from image id to `data.images.mask_facts`.

    Raises:
        InputError: if it is the training split. For another split the sentence is printed.
    """
    masks = [(paths[image_id], share, edge) for image_id, (*_, share, edge) in facts.items()]
    empty = [path for path, share, _ in masks if share == 0]
    full = [path for path, share, _ in masks if share == 1]
    inverted = [path for path, share, edge in masks if edge > 0.9 and share < edge]
    for bad, limit, what in (
        (empty, len(facts), "are empty: a lesion is brighter than 128 of 255, or 1 in masks of 0 and 1"),
        (full, len(facts), "are all lesion: a mask is 0 outside the lesion"),
        (inverted, len(facts) / 2 + 0.5, "look inverted: the lesion is the bright part of a mask"),
    ):
        if len(bad) >= limit:
            sentence = f"{len(bad)} of {len(facts)} {split} masks, {bad[0]} first, {what}"
            if split == "training":
                raise InputError(f"{sentence}; replace the masks")
            print(sentence)


def check_splits(config):
    """Check that no image is in two splits. All splits of the data set are checked, and "extra".

    Pairs are accepted with `allow_duplicates`, or if they are known duplicates of ISIC 2017. A pair of "extra" and
    training is accepted unless there are folds.

    Raises:
        InputError: naming the first pair.
    """
    paths, groups = images_of_all_splits(config)
    reasons = pairs_in_two_splits(config, paths, groups)
    if not config.folds:
        reasons = {pair: why for pair, why in reasons.items() if {s for s, _ in pair} != {"training", "extra"}}
    unknown = [pair for pair in reasons if tuple(image_id for _, image_id in pair) not in KNOWN_DUPLICATES]
    if unknown and not config.allow_duplicates:
        (first, second), more = unknown[0], f" ({len(unknown)} such pairs)" if len(unknown) > 1 else ""
        raise InputError(
            f"{paths[first]} ({first[0]}) and {paths[second]} ({second[0]}) {reasons[unknown[0]]}{more}: remove one of "
            f"them, put both into one split, rename a group if two have one name, or pass --allow-duplicates "
            f"(`python -m data.duplicates --data-dir {config.data_dir}` lists pairs of pictures)"
        )
    if unknown:
        print(f"{len(unknown)} pictures are in two splits, accepted because of --allow-duplicates")
    if known := len(reasons) - len(unknown):
        print(f"{known} pictures are in two splits of the published ISIC 2017; `python -m data.duplicates` names them")


def images_of_all_splits(config):
    """The images of all splits of the data set, and of "extra".

    Returns:
        Two dictionaries whose keys are pairs of split and image id: to paths, and to groups.
    """
    source, paths, groups = data_set(config), {}, {}
    for split in SPLITS:
        with suppress(InputError):  # not there, or damaged: the stage that reads this split raises the error
            paths |= {(split, image_id): path for image_id, path in source.images(split).items()}
            groups |= {(split, image_id): group for image_id, group in source.groups(split).items()}
    if config.extra_data_dir:
        further = data_set(config, "extra")
        paths |= {("extra", image_id): path for image_id, path in further.images("extra").items()}
        groups |= {("extra", image_id): group for image_id, group in further.groups("extra").items()}
    return paths, groups


def pairs_in_two_splits(config, paths, groups):
    """Find the pairs of images that are in two splits and have the same id, the same group or the same picture.

    The ending `_downsampled` of ids of ISIC 2019 is ignored.

    Args:
        paths, groups: see `images_of_all_splits`.

    Returns:
        Dictionary from each pair, two keys of `paths`, to what is the same, in words.
    """
    reasons = {}
    ids = {image: image[1].removesuffix("_downsampled") for image in paths}
    for values, reason in ((ids, "have the same id"), (groups, "are of one group")):
        first_of = {}
        for image, value in values.items():
            first = first_of.setdefault(value, image)
            if first[0] != image[0]:
                reasons.setdefault((first, image), reason)
    images, copies = fingerprints(config, paths)
    numbers = np.array([[*SPLITS, "extra"].index(split) for split, _ in images])
    near = [(images[i], images[k]) for i, k, _ in near_pairs(copies, splits=numbers)]
    return reasons | dict.fromkeys(near, "are the same picture")


def fingerprints(config, paths):
    """Small grey copies of images, to find the same picture twice; see `data.duplicates.grey_copies`.

    No file is decoded twice: fingerprints.npz of the run folder keeps the copies, with size and time of each file.

    Args:
        paths: dictionary from image id, or any other key, to path.

    Returns:
        List of the keys of the images that can be decoded, in the order of `paths`, and array (images, 32, 32),
        float16, of their copies.
    """
    file, saved = RunFolder(config.run_dir).fingerprints, {}
    # If the file is damaged, all images are decoded again.
    with suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile), np.load(file) as arrays:
        saved = dict(zip(arrays["stamps"].tolist(), arrays["copies"], strict=True))
    stamps = {image_id: stamp(path) for image_id, path in paths.items()}
    unknown = [image_id for image_id, key in stamps.items() if key and key not in saved]
    copies = grey_copies([paths[image_id] for image_id in unknown], config.workers)
    if new := {stamps[i]: copy for i, copy in zip(unknown, copies, strict=True) if not isinstance(copy, InputError)}:
        saved |= new
        with atomic_write(file) as part:
            np.savez(part, stamps=list(saved), copies=list(saved.values()))
    readable = {image_id: saved[key] for image_id, key in stamps.items() if key in saved}
    return list(readable), np.reshape(list(readable.values()), (-1, SIDE, SIDE))
