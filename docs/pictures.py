"""Draw the README's pictures, from a finished run.

    python docs/pictures.py --run-dir runs/fine_tuned --data-dir data/isic2017_256 --split test

Reads   what report.py reads of <run-dir> and <data-dir>, of one split

Writes  docs/pictures/two_stages.jpg    an image with the outline of its mask and its box; its crop; what every method
                                        says of it; and where in the crop each network sees its answer (Grad-CAM)
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
    """Image to show; without it, the first melanoma of the split that the method of decide_by gets right."""
    output: Path = REPOSITORY / "docs" / "pictures"
    """Folder for the pictures."""


if __name__ == "__main__":
    config = command_line.start(__doc__, Settings)

from data.probabilities import read_probabilities
from evaluation.methods import unseen_methods
from evaluation.overlays import heat_map
from evaluation.plots import curves, draw_probabilities, save
from pipeline import inputs
from pipeline.data_sets import data_set
from pipeline.manifest import Manifests
from pipeline.report_inputs import find_report_inputs, heat_maps, image_views, report_files
from utils.errors import InputError

SHORTER_SIDE = 480  # of the whole image, in pixels


def main(config):
    run = find_report_inputs(config, [config.split])
    ids, classes = run.ids[config.split], data_set(config).classes
    Manifests(config).check(path for paths in report_files(config, run).values() for path in paths)
    labels = inputs.labels(config, config.split, ids, required=True)
    predictions = {name: read_probabilities(path, ids, classes) for name, path in run.tables.items()}
    row = choose(config, ids, labels, predictions[config.decide_by])
    probabilities = {name: values[row] for name, values in predictions.items()}
    figure = two_stages(config, run, ids[row], truth=labels[row].argmax(), probabilities=probabilities)
    save(figure, config.output / "two_stages.jpg")
    unseen = unseen_methods(predictions, run.metrics[config.split]["fitted_on"], config.split)
    roc = curves("roc", labels, unseen, banded=[config.decide_by], seed=config.seed, classes=classes)
    save(roc, config.output / "roc.png")


def choose(config, ids, labels, decided):
    """Row of the image to show.

    Args:
        config: the settings.
        ids: image ids of the split.
        labels: their one-hot labels (images, classes).
        decided: the deciding method's probabilities (images, classes).

    Raises:
        InputError: if the image that is asked for is not there, or no melanoma is recognised.
    """
    if config.image_id is not None:
        if config.image_id not in ids:
            raise InputError(f"{config.image_id} is not among the {config.split} images: choose another --image-id")
        return ids.index(config.image_id)
    melanoma = data_set(config).classes.index("melanoma")
    for row, (label, probabilities) in enumerate(zip(labels, decided, strict=True)):
        if label.argmax() == probabilities.argmax() == melanoma:
            return row
    raise InputError(f"{config.decide_by} recognises no melanoma of the {config.split} split: choose an --image-id")


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
