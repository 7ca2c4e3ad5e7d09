"""Find what a stage works on, and check it before any work starts: the data set, and what earlier stages left."""

import csv
import json
import os
import zipfile
from contextlib import suppress
from pathlib import Path

from data.errors import InputError
from data.files import lock, whole_file
from pipeline.made import Made

AS_BYTES = {"newline": "", "encoding": "utf-8", "errors": "surrogateescape"}  # a file's name may hold any bytes
NAMED = 20  # bad files that an error names one by one


def shared(path):
    """Lock a file that several stages write to, for as long as reading and writing it takes.

    Returns:
        A context manager.

    Raises:
        InputError: if another process does not let go of it.
    """
    taken = lock(path.parent / "made" / f"{path.name}.lock", timeout=60)
    if taken is None:
        raise InputError(f"{path} is being written by another process: wait for its end")
    return taken


def need(path, script):
    """Make sure that an earlier stage has left its file.

    Raises:
        InputError: naming the script that makes it.
    """
    if not Path(path).exists():
        raise InputError(f"{path} is missing: run `python {script}` with the same --run-dir first")
    return Path(path)


def read_json(path, script):
    """Read a JSON object that an earlier stage has left.

    Raises:
        InputError: if it is missing or damaged, naming the script that makes it.
    """
    try:
        content = json.loads(need(path, script).read_text(encoding="utf-8"))
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise InputError(f"{path} is damaged: remove it and run `python {script}` again")
    return content


def read_histories(files):
    """Read the losses by epoch that trainings have left.

    Args:
        files: dictionary from the name of a network to its file, which may be missing.

    Returns:
        Dictionary from name to data frame.

    Raises:
        InputError: if one is damaged.
    """
    import pandas as pd

    histories = {}
    for name, file in files.items():
        try:
            histories[name] = pd.read_csv(file)
            histories[name][["epoch", "loss", "val_loss"]].astype(float)
        except FileNotFoundError:
            continue
        except (ValueError, KeyError) as error:
            raise InputError(f"{file} is damaged ({error}): remove it") from None
    return histories


def crop_paths(config, split, image_ids):
    """Paths of the crops that `resize.py` made, in the order of `image_ids`.

    Raises:
        InputError: if one is missing.
    """
    folder = config.run_dir / "crops" / split
    return [need(folder / f"{image_id}.png", "resize.py") for image_id in image_ids]


def check_crops(paths, size, config):
    """Make sure that crops are readable, and of the size that a network takes, with the border that belongs to it.

    Raises:
        InputError: if one is unreadable or of another size.
    """
    from data.images import check_images
    from data.lesion import border_pixels

    size += 2 * border_pixels(size, config.crop_border)
    found, bad = check_images({path.stem: path for path in paths}, config.workers)
    for error in bad.values():
        raise InputError(f"{error}, or run resize.py again") from None
    for path in paths:
        height, width = found[path.stem]
        if (height, width) != (size, size):
            raise InputError(
                f"{path} is {width}x{height} pixels, not {size}x{size}: "
                f"run resize.py and training.py with the same --image-size and --crop-border"
            )


def data_folder(config, split):
    """Folder of the data set that a split belongs to."""
    return config.extra_data_dir if split == "extra" else config.data_dir


def extra_split(config):
    """The further images for training as a list of one split, "extra"; empty if there are none."""
    return ["extra"] if config.extra_data_dir else []


def images(config, split):
    """Find the images of a split that can be read; the split "extra" is that of `Config.extra_data_dir`.

    Returns:
        Two dictionaries, sorted by image id: from id to path, and from id to (height, width) in pixels.

    Raises:
        InputError: about every bad image that is not left out; see `leave_out`.
    """
    from data import isic2017
    from data.images import image_facts
    from data.own_images import print_passed_over

    paths = image_paths(config, split)
    if split != "extra":
        print_passed_over([isic2017.image_folder(config.data_dir, split)])
    found = check_data(config, f"{split} image", paths, image_facts)
    return {image_id: paths[image_id] for image_id in found}, {
        i: (height, width) for i, (height, width, _) in found.items()
    }


def image_paths(config, split):
    """Paths of a split's images by id, good or bad."""
    from data import isic2017
    from data.extra import data_set

    if split == "extra":
        paths = data_set(config.extra_data_dir).image_paths(config.extra_data_dir)
        if not paths:
            raise InputError(f"{config.extra_data_dir} holds no image of a known diagnosis: mend its table")
        return paths
    return isic2017.image_paths(config.data_dir, split)


def masks(config, split, sizes, predicted=False):
    """Find the masks of some images that can be read and have their image's size.

    Args:
        sizes: dictionary from image id to (height, width) in pixels.
        predicted: take the masks of `seg_predict.py`, not the ground truth (of the split "extra" that is what
            `Config.extra_mask_dir` holds).

    Returns:
        Dictionary from image id to path.

    Raises:
        InputError: about every bad mask. Those of the ground truth can be left out; see `leave_out`. Or if those of the
            training split cannot be meant, see `check_lesions`.
    """
    from data import extra, isic2017
    from data.images import check_images, image_facts, mask_facts

    if not predicted:
        if split == "extra":
            paths = extra.mask_paths(config.extra_mask_dir, sizes)
        else:
            paths = isic2017.mask_paths(config.data_dir, split, sizes)
        images = image_paths(config, split)
        images, _ = look_at(config, {image_id: images[image_id] for image_id in sizes}, image_facts)

        def misfits(found):
            return turned_otherwise(paths, found, images) | of_another_size(paths, found, sizes)

        found = check_data(config, f"{split} mask", paths, mask_facts, misfits)
        check_lesions(split, paths, found)
        return {image_id: paths[image_id] for image_id in found}
    folder = config.run_dir / "masks" / split
    paths = {i: need(folder / f"{i}_segmentation.png", "seg_predict.py") for i in sizes}
    found, bad = check_images(paths, config.workers)
    bad |= of_another_size(paths, found, sizes)
    if bad:
        raise InputError(f"{next(iter(bad.values()))}, or run seg_predict.py again ({len(bad)} bad masks)")
    return paths


def of_another_size(paths, found, sizes):
    """Masks whose size, as found, is not that of their image: dictionary from image id to the `InputError` about it."""
    return {
        image_id: InputError(
            f"{paths[image_id]} is {width}x{height} pixels, its image {sizes[image_id][1]}x{sizes[image_id][0]}: "
            f"replace the mask or the image"
        )
        for image_id, (height, width, *_) in found.items()
        if (height, width) != sizes[image_id]
    }


def turned_otherwise(paths, found, images):
    """Masks of which nothing shows whether they were drawn before or after their image was turned.

    A mask fits an image that EXIF turns if EXIF turns it alike, or if it is as wide as the upright image and that is
    not as wide as the stored one.

    Args:
        paths: dictionary from image id to the mask's path.
        found, images: dictionaries from image id to `data.images.mask_facts` and `data.images.image_facts`.

    Returns:
        Dictionary from image id to the `InputError` about it.
    """
    bad = {}
    for image_id, (*_, orientation, _, _) in found.items():
        height, width, turn = images[image_id]
        size_shows = height != width and (turn > 4) != (orientation > 4)
        if turn != orientation and not size_shows:
            bad[image_id] = InputError(
                f"{paths[image_id]} may be drawn on its image as stored or as EXIF turns it (orientation {turn} of the "
                f"image, {orientation} of the mask): save both upright and without this note"
            )
    return bad


def check_lesions(split, paths, found):
    """Look whether the masks of a split can be what they are to be: not all empty, all full, or most of them inverted.

    A mask looks inverted if the lesion covers the frame's edge, all but a tenth, and less of what is within.

    Args:
        paths: dictionary from image id to path.
        found: dictionary from image id to `data.images.mask_facts`.

    Raises:
        InputError: if it is the training split. Of another one it is printed.
    """
    shares = [(share, edge) for *_, share, edge in found.values()]
    empty, full, inverted = (
        [path for path, looks in zip((paths[i] for i in found), map(test, shares), strict=True) if looks]
        for test in (lambda s: s[0] == 0, lambda s: s[0] == 1, lambda s: s[1] > 0.9 and s[0] < s[1])
    )
    for bad, most, what in (
        (empty, len(found), "are empty: a lesion is brighter than 128 of 255, or 1 in masks of 0 and 1"),
        (full, len(found), "are all lesion: outside of it a mask is 0"),
        (inverted, len(found) / 2 + 0.5, "look inverted, with a lesion around the skin: the lesion is the bright part"),
    ):
        if len(bad) >= most:
            sentence = f"{len(bad)} of {len(found)} {split} masks, {bad[0]} first, {what}"
            if split == "training":
                raise InputError(f"{sentence}; replace the masks")
            print(sentence)


def check_data(config, what, paths, look, misfits=lambda found: {}):
    """Find the files of the data set that can be decoded, before any work starts.

    Args:
        config: the settings.
        what: what the files are, for example "training image".
        paths: dictionary from image id to path.
        look: function that decodes a file, see `data.images.check_images`.
        misfits: function from what was found to a dictionary of further bad files, from image id to `InputError`.

    Returns:
        Dictionary from the id of each good file to what `look` found, in the order of `paths`.

    Raises:
        InputError: about every bad file that is not left out, see `leave_out`; or if no file is good.
    """
    found, bad = look_at(config, paths, look)
    bad = misfits(found) | bad
    leave_out(config, what, bad)
    good = {image_id: found[image_id] for image_id in paths if image_id not in bad}
    if not good:
        folder = os.path.commonpath([path.parent for path in paths.values()])
        raise InputError(f"no {what} in {folder} can be read: replace the files")
    return good


def look_at(config, paths, look):
    """`data.images.check_images` that decodes no file twice.

    What was found in good files is noted in decoded.json of the run folder, with their size and time.
    """
    from data.images import check_images

    notes = config.run_dir / "decoded.json"
    noted = {}
    with suppress(FileNotFoundError, ValueError, TypeError):  # a spoilt note costs the time to decode again
        noted = dict(json.loads(notes.read_text(encoding="utf-8")))
    stamps = {image_id: f"{look.__name__} {stamp(path)}" for image_id, path in paths.items()}
    found = {image_id: tuple(noted[key]) for image_id, key in stamps.items() if key in noted}
    unknown = {image_id: path for image_id, path in paths.items() if image_id not in found}
    looked, bad = check_images(unknown, config.workers, look)
    if looked:
        with whole_file(notes) as part:
            part.write_text(json.dumps(noted | {stamps[image_id]: facts for image_id, facts in looked.items()}))
    return found | looked, bad


def check_splits(config):
    """Make sure that no image of one split stands in another, whatever splits the stage works on.

    The splits are those that are there, and "extra". The same id in two of them is refused. The same picture under two
    ids passes where it is known of ISIC 2017, or with `allow_duplicates`. A picture both in "extra" and in training
    passes, unless folds are to be held out.

    Raises:
        InputError: naming the first such image.
    """
    import numpy as np

    from data import isic2017
    from data.duplicates import near_pairs
    from data.extra import data_set

    splits = {}
    for split in ("training", "validation", "test"):
        with suppress(InputError):  # a split that is not there, or a stage that works on it says what is wrong
            splits[split] = isic2017.image_paths(config.data_dir, split)
    if config.extra_data_dir:
        splits["extra"] = data_set(config.extra_data_dir).image_paths(config.extra_data_dir)
    of_id = {}
    for paths in splits.values():
        for image_id, path in paths.items():
            if image_id in of_id:
                raise InputError(
                    f"{path} has the id of {of_id[image_id]}, which is in another split: remove it from one of them"
                )
            of_id[image_id] = path
    split_of = {image_id: split for split, paths in splits.items() for image_id in paths}
    ids, copies = fingerprints(config, of_id)
    numbers = np.array([list(splits).index(split_of[image_id]) for image_id in ids])
    apart = [(ids[i], ids[k]) for i, k, _ in near_pairs(copies, splits=numbers)]
    if not config.folds:
        apart = [pair for pair in apart if {split_of[pair[0]], split_of[pair[1]]} != {"training", "extra"}]
    unknown = [pair for pair in apart if pair not in isic2017.KNOWN_DUPLICATES]
    if unknown and not config.allow_duplicates:
        (first, second), more = unknown[0], f" ({len(unknown)} such pairs)" if len(unknown) > 1 else ""
        raise InputError(
            f"{of_id[first]} ({split_of[first]}) and {of_id[second]} ({split_of[second]}) are the same picture{more}: "
            f"remove one of them, or pass --allow-duplicates"
        )
    if unknown:
        print(f"{len(unknown)} pictures stand in two splits, which --allow-duplicates lets pass")
    if known := len(apart) - len(unknown):
        print(
            f"{known} pictures stand in two splits, as ISIC 2017 was published; `python -m data.duplicates` names them"
        )


def fingerprints(config, paths):
    """Small grey copies of images, by which the same picture is found; see `data.duplicates.grey_copies`.

    No file is decoded twice for this: copies are noted in fingerprints.npz of the run folder, with size and time.

    Args:
        paths: dictionary from image id to path.

    Returns:
        List of the ids of the images that can be decoded, in the order of `paths`, and array (images, 32, 32), float16,
        of their copies.
    """
    import numpy as np

    from data.duplicates import SIDE, grey_copies

    notes, noted = config.run_dir / "fingerprints.npz", {}
    # A spoilt note costs the time to decode again.
    with suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile), np.load(notes) as kept:
        noted = dict(zip(kept["stamps"].tolist(), kept["copies"], strict=True))
    stamps = {image_id: stamp(path) for image_id, path in paths.items()}
    new = [image_id for image_id, key in stamps.items() if key and key not in noted]
    found = grey_copies([paths[image_id] for image_id in new], config.workers)
    new = {stamps[i]: copy for i, copy in zip(new, found, strict=True) if not isinstance(copy, InputError)}
    if new:
        noted |= new
        with whole_file(notes) as part:
            np.savez(part, stamps=list(noted), copies=list(noted.values()))
    readable = {image_id: noted[key] for image_id, key in stamps.items() if key in noted}
    return list(readable), np.reshape(list(readable.values()), (-1, SIDE, SIDE))


def stamp(path):
    """Text that changes when a file does; None if it cannot be looked at."""
    try:
        status = path.stat()
    except OSError:
        return None
    return f"{path} {status.st_size} {status.st_mtime_ns}"


def labels(config, split, image_ids, required=False):
    """One-hot labels of the images in use; see `data.isic2017.read_labels`."""
    from data import isic2017
    from data.extra import data_set

    if split == "extra":
        return data_set(config.extra_data_dir).read_labels(config.extra_data_dir, image_ids)
    everything = isic2017.image_paths(config.data_dir, split)
    return isic2017.read_labels(config.data_dir, split, image_ids, left_out=everything, required=required)


def folds(config, paths, labels):
    """Read which fold each training image is in; the first stage that asks makes the table, `folds.csv`.

    Args:
        config: the settings.
        paths: dictionary from image id to path.
        labels: one-hot labels of these images, in their order.

    Returns:
        Dictionary from image id to fold, 1 to `config.folds`; empty without folds.

    Raises:
        InputError: if there are too few images for so many folds.
    """
    if not config.folds:
        return {}
    import pandas as pd

    from data.folds import assign_folds
    from data.isic2017 import label_table

    file = config.run_dir / "folds.csv"
    made_from = {"images": paths.values(), "labels": [label_table(config.data_dir, "training")]}
    script = f"cls_predict.py --folds {config.folds}"
    made = Made(config, "folds", "folds", script, made_from, [file], wait=600)
    if not made.up_to_date():
        readable, copies = fingerprints(config, paths)
        if unreadable := sorted(set(paths) - set(readable)):
            raise InputError(f"{paths[unreadable[0]]} cannot be decoded: replace the file")
        assigned = assign_folds(copies, labels.argmax(axis=1), config.folds, config.seed)
        made.begin()
        with whole_file(file) as part:
            table = pd.DataFrame({"image_id": list(paths), "fold": assigned})
            table.to_csv(part, index=False, errors="surrogateescape")
        made.finish()
        print(f"read {len(paths)} training images from {config.data_dir}, wrote their folds to {file}")
    return pd.read_csv(file, index_col="image_id", encoding_errors="surrogateescape")["fold"].to_dict()


def weight_files(config, backbone_name):
    """Files of first weights of a backbone, where `Config.weights` is a folder; none for "imagenet" and "none"."""
    return Path(config.weights).glob(f"{backbone_name}_weights_*_notop.h5")


def backbone_folder(config, fold=0):
    """Folder of the network trained on all training images, or of the one that a fold was held out from."""
    folder = config.run_dir / "backbones" / config.backbone_name
    return folder / f"fold_{fold}" if fold else folder


def leave_out(config, what, bad):
    """Stop at bad files, or leave them out: with `skip_bad_images`, or where an earlier stage did so already.

    Args:
        config: the settings.
        what: what the files are, for example "training image".
        bad: dictionary from image id to what is wrong with it.

    Raises:
        InputError: about the bad files.
    """
    file = config.run_dir / "bad_files.csv"
    rows = listed_bad_files(file)
    known = {image_id for kind, image_id, _ in rows if kind == what}
    if set(bad) - known and not config.skip_bad_images:
        named = [f"{bad[image_id]}, or pass --skip-bad-images" for image_id in sorted(bad)[:NAMED]]
        more = [f"and {len(bad) - NAMED} more {what} files"] if len(bad) > NAMED else []
        raise InputError("; ".join([*named, *more]))
    if bad:
        print(f"left out {len(bad)} bad {what} files, listed in {file}")
    if set(bad) != known:
        with shared(file):
            rows = [row for row in listed_bad_files(file) if row[0] != what]
            rows += [[what, image_id, str(bad[image_id])] for image_id in sorted(bad)]
            with whole_file(file) as part, open(part, "w", **AS_BYTES) as table:
                csv.writer(table).writerows([["what", "image_id", "problem"], *rows])


def listed_bad_files(file):
    """Read the rows (what, image id, problem) of the list of bad files, of which there may be none.

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
        raise InputError(f"{file} is damaged: remove it and name the images to leave out with --skip-bad-images anew")
    return rows
