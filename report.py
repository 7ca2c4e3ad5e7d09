"""Make the report of a finished run: one page to open in a browser, which needs no other file.

    python report.py --preset isic2017_256

Reads   <run-dir>/results/metrics.json, and segmentation.json if it is there
        <run-dir>/predictions/<method>_<split>.csv
        <run-dir>/{unet,vote,backbones/<backbone>}/history.csv
        <run-dir>/{unet,masks/<split>,crops/<split>,vote,backbones/<backbone>}/config.json
        <run-dir>/vote/vote.keras, backbones/<backbone>/model.keras
        <run-dir>/{masks,crops}/<split>/*.png
        <data-dir>/ISIC-2017_*_Data/*.jpg, ISIC-2017_*_Part3_GroundTruth.csv

Writes  <run-dir>/results/report.html    about the test split if it has labels, otherwise about the validation split

What was run is read from the settings that stand beside the networks and crops. Of the command line only --data-dir,
--run-dir, --decide-by, --workers and --seed (of the bootstrap) count.
"""

from pipeline import command_line

if __name__ == "__main__":
    config = command_line.start(__doc__)

import json
import platform
import sys
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np

from config import Config
from data.errors import InputError
from data.files import whole_file
from data.images import check_images, image_size, mask_facts, read_image, read_mask, resize
from data.isic2017 import image_paths, label_table, mask_paths
from data.lesion import crop_box, without_border
from data.probabilities import read_probabilities
from data.tables import read_table
from evaluation.overlays import heat_map, outlined
from evaluation.report import confusion, figures, jpeg_uri, render, surest
from models.grad_cam import grad_cam
from pipeline import checks, inputs
from pipeline.manifest import Manifest
from pipeline.networks import load_network
from pipeline.paths import RunFolder, Trained
from pipeline.settings import SETTINGS_BY_OUTPUT, affects, as_json, as_typed, read_settings

TEMPLATE = Path(__file__).parent / "evaluation" / "report.html"
VOTES = ("mean", "stacking", "vote", "vote_on_training", "vote_on_validation", "vote_oof", "mean_folds")
GALLERY = 6  # the surest right diagnoses that are shown, and as many of the surest wrong ones
SIDE = 360  # longer side of an image there, in pixels


@dataclass(frozen=True)
class Finished:
    """A finished run as the page shows it."""

    split: str
    """The split that is shown."""
    metrics: dict
    """What metrics.json holds."""
    voted: dict
    """The settings that vote.py was run with."""
    networks: dict[str, Path]
    """From each backbone to the file of its network."""
    tables: dict[str, Path]
    """From each method to its predictions of that split."""
    used: dict[str, Path]
    """From each split to the table that says which of its images were in use."""
    ids: dict[str, list[str]]
    """From each split to the ids of these."""
    folders: dict[str, Path]
    """From what was made ("unet", "crops", a backbone ...) to its folder."""
    settings: dict[str, Path]
    """From what was made to the file of its settings, which may be missing."""


def main(config):
    run = collect(config)
    page = RunFolder(config.run_dir).report
    manifest = Manifest(config, "report", "report", "report.py", files_of(config, run), [page])
    if not manifest.up_to_date():
        values = page_values(config, run)
        manifest.begin()
        with whole_file(page) as part:
            part.write_text(render(TEMPLATE, **values), encoding="utf-8", errors="backslashreplace")
        manifest.finish()
        print(f"wrote {page} ({page.stat().st_size / 1e6:.1f} MB)")
    print(f"open {page.resolve().as_uri()} in a browser")


def collect(config, splits=("test", "validation")):
    """Find what a run has left.

    Args:
        config: the settings.
        splits: the first of these with figures is the one that is shown.

    Returns:
        A `Finished`.

    Raises:
        InputError: if something is missing.
    """
    run = RunFolder(config.run_dir)
    metrics = inputs.read_json(run.metrics, "vote.py")
    split = next((split for split in splits if "methods" in metrics.get(split, {})), None)
    if split is None:
        raise InputError(f"{run.metrics} has no figures of {' or '.join(splits)}: run `python vote.py` again")
    voted = as_json(read_settings(inputs.require_file(run.vote_settings, "vote.py")))
    networks = {
        name: inputs.require_file(run.backbone(name).network, f"training.py --backbone-name {name}")
        for name in voted["backbones"]
    }
    methods = [name for name in metrics[split]["methods"] if name in voted["backbones"] or name in VOTES]
    if config.decide_by not in methods:
        raise InputError(f"{run.metrics} has no figures of {config.decide_by}: take another --decide-by")
    tables = {name: inputs.require_file(run.predictions(name, split), "vote.py") for name in methods}
    # Which images of a split were in use is what any network's predictions of it say.
    used = {s: run.predictions(voted["backbones"][0], s) for s in ("training", "validation", "test")}
    ids = {s: list(read_table(path, ["image_id"]).index) for s, path in used.items() if path.exists()}
    if gone := sorted(set(ids[split]) - set(image_paths(config.data_dir, split))):
        raise InputError(
            f"{gone[0]} ({len(gone)} such images) is in {tables[methods[0]]} but no longer among the {split} images of "
            f"{config.data_dir}: put it back, or run all stages from resize.py on without it"
        )
    folders = {"unet": run.unet.folder, "masks": run.masks(split), "crops": run.crops(split)}
    folders |= {name: path.parent for name, path in networks.items()} | {"vote": run.vote}
    settings = {name: Trained(folder).settings for name, folder in folders.items()}
    settings |= {f"predictions of {name}": run.predictions_settings(name) for name in networks}
    inputs.require_file(settings["crops"], "resize.py")
    return Finished(split, metrics, voted, networks, tables, used, ids, folders, settings)


def files_of(config, run):
    """All files that the page is made from, as `Manifest` takes them."""
    files = RunFolder(config.run_dir)
    return {
        "figures": [files.metrics, files.segmentation],
        "predictions": [*run.tables.values(), *run.used.values()],
        "labels": [label_table(config.data_dir, split) for split in run.ids],
        "settings": run.settings.values(),
        "histories": [Trained(folder).history for folder in run.folders.values()],
        "networks": [*run.networks.values(), files.vote_network("vote")],
        "images": image_paths(config.data_dir, run.split).values(),
        "masks": sorted(run.folders["masks"].glob("*.png")),
        "crops": inputs.crop_paths(config, run.split, run.ids[run.split]),
        "template": [TEMPLATE],
    }


def page_values(config, run):
    """What the template of the page asks for, as a dictionary."""
    split, ids, deciding = run.split, run.ids, config.decide_by
    labels = {s: inputs.labels(config, s, ids[s], required=s == split) for s in ids}
    predictions = {name: read_probabilities(path, ids[split]) for name, path in run.tables.items()}
    histories = inputs.read_histories({name: Trained(folder).history for name, folder in run.folders.items()})
    settings = {name: as_json(read_settings(file)) for name, file in run.settings.items() if file.exists()}
    overlaps = RunFolder(config.run_dir).segmentation
    confused = {n: confusion(labels[split], predictions[n]).tolist() for n in dict.fromkeys((deciding, "mean"))}
    return {
        "split": split,
        "images": {s: len(ids[s]) for s in ids},
        "counts": {s: labels[s].sum(axis=0).astype(int).tolist() for s in ids if labels[s] is not None},
        "preset": run.voted["preset"],
        "metrics": run.metrics,
        "backbones": run.voted["backbones"],
        "segmentation": inputs.read_json(overlaps, "seg_predict.py") if overlaps.exists() else {},
        "deciding": deciding,
        "confusions": confused,
        "figures": figures(labels[split], predictions, deciding, histories, config.seed),
        "gallery": gallery(config, split, ids[split], labels[split], predictions, run.networks, settings),
        "settings": settings_table(settings),
        "software": software(RunFolder(config.run_dir).vote_network("vote")),
    }


def gallery(config, split, image_ids, labels, predictions, networks, settings):
    """Pictures of the images whose diagnosis the method that decides is surest of.

    Args:
        config: the settings.
        split: the split.
        image_ids: its ids.
        labels: one-hot array (images, 3).
        predictions: dictionary from method name to probabilities (images, 3).
        networks: dictionary from backbone name to the file of its network.
        settings: dictionary from "crops" and the like to the settings that they were made with.

    Returns:
        {"right": [...], "wrong": [...]}, for each image a dictionary of its id, `truth` and `answer` (indices of the
        true class and of the method's), `probabilities` (by method, of that answer), and `image`, `crop` and `maps`
        (by backbone): pictures as addresses for a page.
    """
    deciding = predictions[config.decide_by]
    right, wrong = surest(labels, deciding, GALLERY)
    rows = [*right, *wrong]
    shown, answers = [image_ids[row] for row in rows], deciding[rows].argmax(axis=1)
    views = list(views_of(config, split, shown, settings["crops"], SIDE))
    cases = [
        {
            "id": image_ids[row],
            "truth": int(labels[row].argmax()),
            "answer": int(answer),
            "probabilities": {name: values[row, answer] for name, values in predictions.items()},
            "image": jpeg_uri(outlined(*view)),
            "crop": jpeg_uri(crop),
            "maps": {},
        }
        for row, answer, (*view, crop) in zip(rows, answers, views, strict=True)
    ]
    crops = [crop for *_, crop in views]
    asked = dict.fromkeys(networks, answers)
    for name, heats in heats_of(config, split, shown, crops, asked, networks, settings["crops"]):
        for case, crop, heat in zip(cases, crops, heats, strict=True):
            case["maps"][name] = jpeg_uri(heat_map(crop, heat))
    return {"right": cases[: len(right)], "wrong": cases[len(right) :]}


def views_of(config, split, image_ids, cut, side):
    """Images as they were cropped.

    Args:
        config: the settings.
        split: the split.
        image_ids: some of its ids.
        cut: the settings that its crops were made with, a dictionary.
        side: longer side of the images in pixels.

    Yields:
        For each image what `evaluation.overlays.outlined` takes (image, scale, mask, box), and the crop.
    """
    paths = image_paths(config.data_dir, split)
    sizes = {image_id: image_size(paths[image_id]) for image_id in image_ids}
    masks = masks_of(config, split, sizes, cut["masks"])
    for image_id, file in zip(image_ids, inputs.crop_paths(config, split, image_ids), strict=True):
        mask = read_mask(masks[image_id]) if image_id in masks else None
        box = crop_box(mask, sizes[image_id], cut["crop_margin_px"], cut["crop_margin_ratio"], cut["crop_square"])
        scale = side / max(sizes[image_id])
        height, width = (max(1, round(edge * scale)) for edge in sizes[image_id])
        image = resize(read_image(paths[image_id], at_least=side), height, width)
        yield image, scale, mask, box, without_border(read_image(file), cut["image_size"])


def masks_of(config, split, sizes, kind):
    """Find the masks that images were cropped by.

    Args:
        config: the settings.
        split: the split.
        sizes: dictionary from image id to (height, width) in pixels.
        kind: which masks; see `Config.masks`.

    Returns:
        Dictionary from image id to path, without those that resize.py left out.
    """
    if kind == "predicted":
        run = RunFolder(config.run_dir)
        return {i: inputs.require_file(run.mask(split, i), "seg_predict.py") for i in sizes}
    if kind == "none":
        return {}
    paths = mask_paths(config.data_dir, split, sizes)
    found, _ = check_images(paths, config.workers, mask_facts)
    return {i: paths[i] for i in found if found[i][:2] == sizes[i]}


def heats_of(config, split, image_ids, crops, answers, networks, cut):
    """Ask every network where in some crops it sees an answer; see `models.grad_cam`.

    Args:
        config, split, image_ids, cut: see `views_of`.
        crops: list of their crops.
        answers: dictionary from backbone name to the index of the class to explain, for each image.
        networks: dictionary from backbone name to the file of its network.

    Yields:
        Each name and its maps (images, side, side), 0 to 1.

    Raises:
        InputError: if a network is missing or damaged, or takes crops of another size.
    """
    files = inputs.crop_paths(config, split, image_ids)
    for name, file in networks.items():  # one after another: five at once may not fit into memory
        network = load_network(file, f"training.py --backbone-name {name}", name)
        checks.check_crops(files, network.input_shape[1], replace(config, crop_border=cut["crop_border"]))
        yield name, grad_cam(network, np.stack(crops), answers[name])
        keras.utils.clear_session()


def settings_table(settings):
    """Say what the run was made with.

    Args:
        settings: dictionary from what was made ("unet", "masks", "crops", a backbone, "vote") to its settings.

    Returns:
        List of (setting, value, default), texts; the default is that of the published protocol, or None where the value
        is the same. Where networks had different values of a setting, each is named.
    """
    kinds = {name: name.split()[0] if name.split()[0] in SETTINGS_BY_OUTPUT else "classifier" for name in settings}
    rows = []
    for setting, default in as_json(Config()).items():
        read = {name: record for name, record in settings.items() if affects(setting, kinds[name])}
        users = {}
        for name, record in (read or {"vote": settings["vote"]}).items():
            users.setdefault(as_typed(record[setting]), []).append(name)
        value = "; ".join(
            f"{value} ({', '.join(names)})" if len(users) > 1 else value for value, names in users.items()
        )
        rows.append((setting, value, None if value == as_typed(default) else as_typed(default)))
    return [row for row in rows if row[0] not in ("backbone_name", "config", "overwrite")]  # `backbones` names them


def software(network_file):
    """Which Keras saved a network, and when; and what makes this page."""
    with zipfile.ZipFile(network_file) as archive:
        saved = json.loads(archive.read("metadata.json"))
    backend = keras.backend.backend()
    return {
        "date": saved["date_saved"].split("@")[0],
        "keras": saved["keras_version"],
        "here": f"Keras {keras.__version__} on {backend} {sys.modules[backend].__version__}, "
        f"Python {platform.python_version()}",
    }


if __name__ == "__main__":
    command_line.run(main, config)
