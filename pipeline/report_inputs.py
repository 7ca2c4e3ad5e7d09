"""Find and read what the report of a finished run shows."""

import json
import platform
import sys
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np

from config import Config
from data.images import check_images, image_size, mask_facts, read_mask
from data.lesion import image_view
from data.tables import read_table
from evaluation.methods import METHODS
from models.grad_cam import grad_cam
from pipeline import checks, inputs
from pipeline.data_sets import data_set, label_files
from pipeline.manifest_files import digest_of
from pipeline.networks import load_network
from pipeline.paths import RunFolder, Trained, no_run
from pipeline.settings import SETTINGS_BY_OUTPUT, affects, as_json, as_option_text, read_settings
from pipeline.upstream import RunRecords
from pipeline.vote_results import files_of_labels
from utils.errors import InputError
from utils.progress import numbered


@dataclass(frozen=True)
class ReportInputs:
    """The files of a finished run that the report is made from."""

    split: str
    """The split that is shown."""
    metrics: dict
    """The content of metrics.json."""
    voted: dict
    """The settings that vote.py was run with."""
    networks: dict[str, Path]
    """From each backbone to the file of its network."""
    tables: dict[str, Path]
    """From each method to its predictions of that split."""
    used: dict[str, Path]
    """From each split to a table with a row for each image in use."""
    ids: dict[str, list[str]]
    """From each split to the ids of these images."""
    folders: dict[str, Path]
    """From each output ("unet", "crops", a backbone ...) to its folder."""
    settings: dict[str, Path]
    """From each output to the file of its settings, which may be missing."""

    @property
    def crop_settings(self):
        """The settings that the crops of the split were made with."""
        return read_settings(self.settings["crops"])


def find_report_inputs(config, splits=("test", "validation")):
    """Find the files of a finished run.

    Args:
        config: the settings.
        splits: splits in order of preference; the first one with figures is shown.

    Returns:
        A `ReportInputs`.

    Raises:
        InputError: if something is missing.
    """
    run = RunFolder(config.run_dir)
    if not run.metrics.exists() and not run.vote.exists():
        raise InputError(f"{no_run(run.path)}, or run `python vote.py`")
    metrics = inputs.read_json(run.metrics, "vote.py")
    split = next((split for split in splits if "methods" in metrics.get(split, {})), None)
    if split is None:
        raise InputError(f"{run.metrics} has no figures of {' or '.join(splits)}: run `python vote.py` again")
    voted = as_json(read_settings(inputs.require_file(run.vote_settings, "vote.py")))
    backbones = voted["backbones"]
    networks = {
        name: inputs.require_file(run.backbone(name).network, f"training.py --backbone-name {name}")
        for name in backbones
    }
    with_table = {*backbones, *METHODS} - {"prior"}
    methods = [name for name in metrics[split]["methods"] if name in with_table]
    if config.decide_by not in methods:
        raise InputError(f"{run.metrics} has no figures of {config.decide_by}: take another --decide-by")
    tables = {name: inputs.require_file(run.predictions(name, split), "vote.py") for name in methods}
    # The images in use are those in the predictions of any network.
    used = {s: run.predictions(backbones[0], s) for s in ("training", "validation", "test")}
    ids = {s: list(read_table(path, ["image_id"]).index) for s, path in used.items() if path.exists()}
    if gone := sorted(set(ids[split]) - set(data_set(config).images(split))):
        raise InputError(
            f"{gone[0]} ({len(gone)} such images) is in {tables[methods[0]]} but no longer among the {split} images of "
            f"{config.data_dir}: put it back, or run all stages from resize.py on without it"
        )
    folders = {"unet": run.unet.folder, "masks": run.masks(split), "crops": run.crops(split)}
    folders |= {name: path.parent for name, path in networks.items()} | {"vote": run.vote}
    settings = {name: Trained(folder).settings for name, folder in folders.items()}
    settings |= {f"predictions of {name}": run.predictions_settings(name) for name in networks}
    inputs.require_file(settings["crops"], "resize.py")
    inputs.require_file(run.vote_network("vote"), "vote.py")
    return ReportInputs(
        split=split,
        metrics=metrics,
        voted=voted,
        networks=networks,
        tables=tables,
        used=used,
        ids=ids,
        folders=folders,
        settings=settings,
    )


def check_labels_of_vote(config, run):
    """Check that the labels are those with which `vote.py` measured the run.

    Raises:
        InputError: if they changed.
    """
    records = RunRecords(config)
    labels = digest_of(records.stamps(files_of_labels(replace(config, splits=run.voted["splits"]))))
    if "vote" in records.records and records.records["vote"]["inputs"].get("labels") != labels:
        raise InputError(f"{RunFolder(config.run_dir).metrics} was made with other labels: run `python vote.py`")


def report_files(config, run):
    """All files of a `ReportInputs` and of the data set that the report is made from, by group; see `Manifest`."""
    files = RunFolder(config.run_dir)
    return {
        "figures": [files.metrics, files.segmentation, files.operating_points],
        "predictions": [*run.tables.values(), *run.used.values()],
        "labels": [file for split in run.ids for file in label_files(config, split)],
        "settings": run.settings.values(),
        "histories": [Trained(folder).history for folder in run.folders.values()],
        "networks": [*run.networks.values(), files.vote_network("vote")],
        "images": data_set(config).images(run.split).values(),
        "masks": sorted(run.folders["masks"].glob("*.png")),
        "crops": inputs.crop_paths(config, run.split, run.ids[run.split]),
    }


def image_views(config, split, image_ids, *, crop_settings, shorter_side):
    """Read images with the mask and the box that they were cropped by.

    Args:
        config: the settings.
        split: the split.
        image_ids: some of its ids.
        crop_settings: the settings that its crops were made with.
        shorter_side: of the images that are shown, in pixels; see `data.lesion.image_view`.

    Yields:
        A `data.lesion.ImageView` for each image.
    """
    paths, rule = data_set(config).images(split), inputs.crop_rule(crop_settings)
    masks = used_masks(config, split, {i: paths[i] for i in image_ids}, crop_settings.masks)
    for image_id, crop_file in zip(image_ids, inputs.crop_paths(config, split, image_ids), strict=True):
        mask = read_mask(masks[image_id]) if image_id in masks else None
        yield image_view(paths[image_id], mask, rule, shorter_side=shorter_side, crop_file=crop_file)


def used_masks(config, split, images, kind):
    """Find the masks that images were cropped by.

    Args:
        config: the settings.
        split: the split.
        images: dictionary from image id to path.
        kind: which masks; see `Config.masks`.

    Returns:
        Dictionary from image id to path, without the masks that resize.py left out.
    """
    if kind == "predicted":
        run = RunFolder(config.run_dir)
        return {i: inputs.require_file(run.mask(split, i), "seg_predict.py") for i in images}
    if kind == "none":
        return {}
    paths = data_set(config).masks(split, images)
    facts, _ = check_images(paths, config.workers, mask_facts)
    return {i: paths[i] for i in facts if facts[i][:2] == image_size(images[i])}


def heat_maps(config, run, *, image_ids, crops, answers):
    """Grad-CAM: for some crops, where every network sees a given class; see `models.grad_cam`.

    Args:
        config: the settings.
        run: a `ReportInputs`.
        image_ids: some ids of its split.
        crops: list of their crops.
        answers: dictionary from backbone name to the index of the class to explain, for each image.

    Yields:
        Each network's name and its maps (images, side, side), 0 to 1.

    Raises:
        InputError: if a network is missing or damaged, or takes crops of another size.
    """
    files = inputs.crop_paths(config, run.split, image_ids)
    as_cropped = replace(config, crop_border=run.crop_settings.crop_border)
    for name in numbered(list(run.networks), "heat maps of network"):  # five networks at once may not fit into memory
        file = run.networks[name]
        network = load_network(file, f"training.py --backbone-name {name}", name)
        checks.check_crops(files, network.input_shape[1], as_cropped)
        yield name, grad_cam(network, np.stack(crops), answers[name])
        keras.utils.clear_session()


def settings_table(run):
    """The settings that a run was made with.

    Args:
        run: a `ReportInputs`.

    Returns:
        List of (setting, value, default), all texts. The default is that of the published protocol, or None if the
        value is the same. If outputs were made with different values, the text names the outputs of each value.
    """
    saved = {name: as_json(read_settings(file)) for name, file in run.settings.items() if file.exists()}
    kinds = {name: name.split()[0] if name.split()[0] in SETTINGS_BY_OUTPUT else "classifier" for name in saved}
    rows = []
    for setting, default in as_json(Config()).items():
        if setting in ("backbone_name", "config", "overwrite"):  # `backbones` names the networks
            continue
        affected = {name: values for name, values in saved.items() if affects(setting, kinds[name])}
        names_by_value = {}
        for name, values in (affected or {"vote": saved["vote"]}).items():
            names_by_value.setdefault(as_option_text(values[setting]), []).append(name)
        value = "; ".join(
            f"{value} ({', '.join(names)})" if len(names_by_value) > 1 else value
            for value, names in names_by_value.items()
        )
        rows.append((setting, value, None if value == as_option_text(default) else as_option_text(default)))
    return rows


def software(network_file):
    """Dictionary of texts: the Keras version and date with which a network was saved, and the software of this page."""
    with zipfile.ZipFile(network_file) as archive:
        saved = json.loads(archive.read("metadata.json"))
    backend = keras.backend.backend()
    return {
        "date": saved["date_saved"].split("@")[0],
        "keras": saved["keras_version"],
        "here": f"Keras {keras.__version__} on {backend} {sys.modules[backend].__version__}, "
        f"Python {platform.python_version()}",
    }
