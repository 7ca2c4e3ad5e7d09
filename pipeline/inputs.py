"""What a stage works with: the files of the data set, what earlier stages wrote, and the rule of its crops."""

import json
from pathlib import Path

import pandas as pd

from data.folds import read_folds
from data.images import check_images, image_facts, mask_facts
from data.lesion import CropRule
from data.official import masks_of
from data.own_images import print_passed_over
from evaluation.operating_points import OperatingPoint
from pipeline import checks
from pipeline.data_sets import data_set
from pipeline.manifest_files import read_record
from pipeline.paths import RunFolder
from pipeline.upstream import RunRecords
from utils.errors import InputError


def require_file(path, script):
    """Check that the file of an earlier stage exists, and return its path.

    Raises:
        InputError: naming the script that makes it.
    """
    if not Path(path).exists():
        raise InputError(f"{path} is missing: run `python {script}` first")
    return Path(path)


def read_json(path, script):
    """Read a JSON object that an earlier stage wrote.

    Raises:
        InputError: if it is missing or damaged, naming the script that makes it.
    """
    try:
        content = json.loads(require_file(path, script).read_text(encoding="utf-8"))
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise InputError(f"{path} is damaged: remove it and run `python {script}` again")
    return content


def read_histories(files):
    """Read the losses by epoch of several trainings.

    Args:
        files: dictionary from the name of a network to its file, which may be missing.

    Returns:
        Dictionary from name to data frame.

    Raises:
        InputError: if one is damaged.
    """
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
    run, script = RunFolder(config.run_dir), "resize.py"
    if split not in (*config.splits, "extra"):
        script += f" --splits {' '.join(needed_splits(config))}"
    return [require_file(run.crop(split, image_id), script) for image_id in image_ids]


def needed_splits(config):
    """List of the splits of a call, and of training and validation, which every run needs."""
    return sorted({*config.splits, "training", "validation"})


def extra_split(config):
    """The further images for training as a list of one split, "extra"; empty if there are none."""
    return ["extra"] if config.extra_data_dir else []


def images(config, split):
    """Find the images of a split that can be read. The split "extra" holds the images of `Config.extra_data_dir`.

    Returns:
        Two dictionaries, sorted by image id: from id to path, and from id to (height, width) in pixels.

    Raises:
        InputError: about every bad image that is not left out; see `pipeline.checks.refuse_or_skip`.
    """
    source = data_set(config, split)
    paths = source.images(split)
    print_passed_over(source.image_folders(split))
    if split == "extra" and source.left_out:
        counts = ", ".join(f"{count} {label}" for label, count in source.left_out.items())
        print(f"left out {sum(source.left_out.values())} images of {source.folder}, of no class here: {counts}")
    facts = checks.good_files(config, f"{split} image", paths, image_facts, lambda facts: source.absent(paths))
    sizes = {image_id: (height, width) for image_id, (height, width, _) in facts.items()}
    return {image_id: paths[image_id] for image_id in facts}, sizes


def masks(config, split, sizes, predicted=False):
    """Find the masks of some images that can be read and have their image's size.

    Args:
        sizes: dictionary from image id to (height, width) in pixels.
        predicted: take the masks of `seg_predict.py`, not the ground truth. For the split "extra", the ground truth is
            the masks in `Config.extra_mask_dir`.

    Returns:
        Dictionary from image id to path, without the images for which the data set names no mask.

    Raises:
        InputError: if there are no masks; about every bad mask (bad masks of the ground truth can be skipped, see
            `pipeline.checks.refuse_or_skip`); or if the masks of the training split cannot be right, see
            `pipeline.checks.check_lesions`.
    """
    if not predicted:
        source = data_set(config, split)
        if split != "extra":
            paths = source.masks(split, sizes)
        elif Path(config.extra_mask_dir).is_dir():
            paths = masks_of(config.extra_mask_dir, sizes)
        else:
            raise InputError(f"{config.extra_mask_dir} is missing: point --extra-mask-dir at masks of further images")
        image_paths = source.images(split)
        facts_of_images, _ = checks.decode_once(config, {i: image_paths[i] for i in paths}, image_facts)

        def misfits(facts):
            turned = checks.turned_otherwise(paths, facts, facts_of_images)
            return checks.of_another_size(paths, facts, sizes) | turned | source.absent(paths)

        facts = checks.good_files(config, f"{split} mask", paths, mask_facts, misfits)
        checks.check_lesions(split, paths, facts)
        return {image_id: paths[image_id] for image_id in facts}
    run = RunFolder(config.run_dir)
    paths = {image_id: require_file(run.mask(split, image_id), "seg_predict.py") for image_id in sizes}
    facts, bad = check_images(paths, config.workers)
    bad |= checks.of_another_size(paths, facts, sizes)
    if bad:
        error = next(iter(bad.values()))
        raise InputError(f"{error}, or remove it and run `python seg_predict.py` ({len(bad)} bad masks)")
    return paths


def labels(config, split, image_ids, required=False):
    """One-hot labels of the images in use; see `data.dataset.ListedImages.labels`."""
    source = data_set(config, split)
    return source.labels(split, image_ids, left_out=source.images(split), required=required)


def check_images_and_labels(config):
    """Check, before hours of work, that there are images of all splits that the run needs, and their labels.

    Raises:
        InputError: if not.
    """
    for split in [*needed_splits(config), *extra_split(config)]:
        paths = data_set(config, split).images(split)
        # With skip_bad_images, an image without a row may be one that cannot be read, which only the stages find out.
        labels(config, split, [] if config.skip_bad_images else paths, required=split not in ("test", "extra"))


def origin_of_unet(config):
    """Where the U-Net of the run folder is from: "trained" there, to its end or not; "copied", finished; or None."""
    record = read_record(RunFolder(config.run_dir).manifests / "unet.jsonl")
    if record and record["kind"] == "unet":
        return "trained"
    return "copied" if record and record["finished"] else None


def crop_rule(config):
    """The `CropRule` of some settings."""
    return CropRule(
        size=config.image_size,
        margin_px=config.crop_margin_px,
        margin_ratio=config.crop_margin_ratio,
        square=config.crop_square,
        border=config.crop_border,
    )


def folds(config, images):
    """Read which fold each training image is in, as `training.py` assigned them.

    Args:
        config: the settings.
        images: ids of the training images.

    Returns:
        Dictionary from image id to fold, 1 to `config.folds`.

    Raises:
        InputError: if there are no folds of these images and settings.
    """
    script = f"training.py --backbone-name {config.backbone_name} --folds {config.folds}"
    file = require_file(RunFolder(config.run_dir).folds, script)
    RunRecords(config).check([file], must_match=["folds", "seed"])
    fold_of = read_folds(file)
    if set(fold_of) != set(images):
        raise InputError(f"{file} holds other images than {config.data_dir}: run `python {script}`")
    return fold_of


def weight_files(config, backbone_name):
    """Files of initial weights of a backbone, if `Config.weights` is a folder; none for "imagenet" and "none"."""
    return Path(config.weights).glob(f"{backbone_name}_weights_*_notop.h5")


def read_operating_points(run, method):
    """Read the operating points of a method.

    Args:
        run: a `pipeline.paths.RunFolder`.
        method: name of the method, for example "vote".

    Returns:
        Dictionary from sensitivity to `OperatingPoint`. It is empty if the run has none of the method, or if there was
        no image to choose thresholds on.

    Raises:
        InputError: if the file is damaged.
    """
    file = run.operating_points
    saved = read_json(file, "vote.py").get(method) if file.exists() else None
    if saved is None:
        return {}
    try:
        return {
            point["sensitivity"]: OperatingPoint(
                saved["class"], point["sensitivity"], point["threshold"], saved["split"]
            )
            for point in saved["points"]
        }
    except (KeyError, TypeError):
        raise InputError(f"{file} is damaged: remove it and run `python vote.py` again") from None
