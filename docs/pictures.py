"""Draw the README's pictures, from a finished run.

    python docs/pictures.py --run-dir runs/fine_tuned --data-dir data/isic2017_256 --split test

Reads   the same files of <run-dir> and <data-dir> as report.py, for one split

Writes  docs/pictures/two_stages.jpg    an image with the outline of its mask and its box; its crop; the probabilities
                                        of every method; and where each network looks (Grad-CAM)
        docs/pictures/roc.png           ROC curves of every method on the split, without those fitted on it
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

REPOSITORY = Path(__file__).parent.parent
sys.path.insert(0, str(REPOSITORY))

from config import Config
from pipeline import command_line


@dataclass(frozen=True)
class Settings(Config):
    """The settings of all stages, and what to draw."""

    split: Literal["validation", "test"] = "test"
    """Split that the pictures are of; it must have labels."""
    image_id: str | None = None
    """Image to show; without it, of the first melanomas of the split that the method of decide_by gets right, the one
    where the networks look most at the lesion."""
    output: Path = REPOSITORY / "docs" / "pictures"
    """Folder for the pictures."""


if __name__ == "__main__":
    config = command_line.start(__doc__, Settings)

import cv2
import numpy as np

from data.classes import positive_class
from data.probabilities import read_probabilities
from evaluation.methods import unseen_methods
from evaluation.overlays import heat_map
from evaluation.plots import curves, draw_probabilities, save
from pipeline import inputs
from pipeline.data_sets import data_set
from pipeline.report_inputs import find_report_inputs, heat_maps, image_views, report_files
from pipeline.upstream import RunRecords
from utils.errors import InputError

SHORTER_SIDE = 480  # of the whole image, in pixels
CANDIDATES = 12  # melanomas among which the image is chosen


def main(config):
    run = find_report_inputs(config, [config.split])
    ids, classes = run.ids[config.split], data_set(config).classes
    RunRecords(config).check(path for paths in report_files(config, run).values() for path in paths)
    labels = inputs.labels(config, config.split, ids, required=True)
    predictions = {name: read_probabilities(path, ids, classes) for name, path in run.tables.items()}
    row = choose(config, run, labels, predictions)
    probabilities = {name: values[row] for name, values in predictions.items()}
    figure = two_stages(config, run, ids[row], truth=labels[row].argmax(), probabilities=probabilities)
    save(figure, config.output / "two_stages.jpg")
    known = labels.any(axis=1)
    predictions = {name: values[known] for name, values in predictions.items()}
    unseen = unseen_methods(predictions, run.metrics[config.split]["fitted_on"], config.split)
    groups = data_set(config).groups_of(config.split, np.array(ids, object)[known])
    how = {"seed": config.seed, "classes": classes, "groups": groups}
    roc = curves("roc", labels[known], unseen, banded=[config.decide_by], **how)
    save(roc, config.output / "roc.png")


def choose(config, run, labels, predictions):
    """Row of the image to show.

    Args:
        config: the settings.
        run: a `pipeline.report_inputs.ReportInputs`.
        labels: one-hot labels of its split (images, classes).
        predictions: dictionary from method to probabilities (images, classes).

    Raises:
        InputError: if the image that is asked for is not there, or no melanoma is recognised.
    """
    ids = run.ids[config.split]
    if config.image_id is not None:
        if config.image_id not in ids or not labels[ids.index(config.image_id)].any():
            raise InputError(f"no labelled {config.split} image is called {config.image_id}: choose another --image-id")
        return ids.index(config.image_id)
    classes, decided = data_set(config).classes, predictions[config.decide_by]
    melanoma = classes.index(positive_class(classes))
    right = (labels[:, melanoma] == 1) & (decided.argmax(axis=1) == melanoma)
    rows = np.flatnonzero(right)[:CANDIDATES]
    if not len(rows):
        raise InputError(f"{config.decide_by} recognises no melanoma of the {config.split} split: choose an --image-id")
    candidates = [ids[row] for row in rows]
    crop_settings = run.crop_settings
    views = list(image_views(config, run.split, candidates, crop_settings=crop_settings, shorter_side=SHORTER_SIDE))
    answers = {name: predictions[name][rows].argmax(axis=1) for name in run.networks}
    shares = np.zeros(len(rows))
    for _, heats in heat_maps(config, run, image_ids=candidates, crops=[view.crop for view in views], answers=answers):
        shares += [share_on_lesion(view, heat) for view, heat in zip(views, heats, strict=True)]
    return int(rows[shares.argmax()])


def share_on_lesion(view, heat):
    """Share of a map over a crop that lies on the lesion; 0 without a mask, or where the map is empty.

    Args:
        view: a `data.lesion.ImageView`.
        heat: array (side, side), 0 to 1.
    """
    if view.mask is None or not heat.any():
        return 0.0
    top, bottom, left, right = (round(edge * view.scale) for edge in view.box)
    lesion = cv2.resize(view.mask[top:bottom, left:right], heat.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
    return float(heat[lesion].sum() / heat.sum())


def two_stages(config, run, image_id, *, truth, probabilities):
    """Draw the results of both stages for an image.

    Args:
        config: the settings.
        run: a `pipeline.report_inputs.ReportInputs`.
        image_id: its id.
        truth: index of its class.
        probabilities: dictionary from method to its probabilities (classes,).

    Returns:
        The figure.
    """
    crop_settings, classes = run.crop_settings, data_set(config).classes
    (view,) = image_views(config, run.split, [image_id], crop_settings=crop_settings, shorter_side=SHORTER_SIDE)
    answers = {name: [probabilities[name].argmax()] for name in run.networks}
    maps = {}
    for name, (heat,) in heat_maps(config, run, image_ids=[image_id], crops=[view.crop], answers=answers):
        answer = classes[answers[name][0]].replace("_", " ")
        maps[f"{name}: {answer} {probabilities[name].max():.2f}"] = heat_map(view.crop, heat)
    shown = {name: probabilities[name] for name in dict.fromkeys((config.decide_by, "mean", "vote", *run.networks))}
    footnote = f"Truth: {classes[truth].replace('_', ' ')}. Second row: where each network sees its answer (Grad-CAM)"
    return draw_probabilities(image_id, view, shown, classes=classes, footnote=footnote, maps=maps)


if __name__ == "__main__":
    command_line.run(main, config)
