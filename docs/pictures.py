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

from data.errors import InputError
from data.isic2017 import CLASSES
from data.probabilities import read_probabilities
from evaluation.overlays import heat_map
from evaluation.plots import curves, opinions, save
from pipeline import inputs
from pipeline.manifest import Manifests
from pipeline.settings import as_json, read_settings
from report import collect, files_of, heats_of, views_of

SIDE = 640  # longer side of the whole image in pixels


def main(config):
    run = collect(config, [config.split])
    ids = run.ids[config.split]
    Manifests(config).check(path for paths in files_of(config, run).values() for path in paths)
    labels = inputs.labels(config, config.split, ids, required=True)
    predictions = {name: read_probabilities(path, ids) for name, path in run.tables.items()}
    row = choose(config, ids, labels, predictions[config.decide_by])
    said = {name: probabilities[row] for name, probabilities in predictions.items()}
    save(two_stages(config, run, ids[row], labels[row].argmax(), said), config.output / "two_stages.jpg")
    fitted_on = run.metrics[config.split]["fitted_on"]
    unseen = {name: values for name, values in predictions.items() if fitted_on.get(name) != config.split}
    roc = curves("roc", labels, unseen, banded=[config.decide_by], seed=config.seed)
    save(roc, config.output / "roc.png")


def choose(config, ids, labels, decided):
    """Row of the image to show.

    Args:
        config: the settings.
        ids: image ids of the split.
        labels: their one-hot labels (images, 3).
        decided: what the deciding method says of them, probabilities (images, 3).

    Raises:
        InputError: if the image that is asked for is not there, or no melanoma is recognised.
    """
    if config.image_id is not None:
        if config.image_id not in ids:
            raise InputError(f"{config.image_id} is not among the {config.split} images: choose another --image-id")
        return ids.index(config.image_id)
    melanoma = CLASSES.index("melanoma")
    for row, (label, probabilities) in enumerate(zip(labels, decided, strict=True)):
        if label.argmax() == probabilities.argmax() == melanoma:
            return row
    raise InputError(f"{config.decide_by} recognises no melanoma of the {config.split} split: choose an --image-id")


def two_stages(config, run, image_id, truth, said):
    """Draw what both stages make of an image.

    Args:
        config: the settings.
        run: a `report.Finished`.
        image_id: its id.
        truth: index of its class.
        said: dictionary from method to its probabilities (3,).

    Returns:
        The figure.
    """
    cut = as_json(read_settings(run.settings["crops"]))
    ((*view, crop),) = views_of(config, run.split, [image_id], cut, SIDE)
    answers = {name: said[name].argmax() for name in run.networks}
    asked = {name: [answer] for name, answer in answers.items()}
    maps = {}
    for name, (heat,) in heats_of(config, run.split, [image_id], [crop], asked, run.networks, cut):
        answer = CLASSES[answers[name]].replace("_", " ")
        maps[f"{name}: {answer} {said[name].max():.2f}"] = heat_map(crop, heat)
    shown = dict.fromkeys((config.decide_by, "mean", "vote", *run.networks))
    footnote = f"Truth: {CLASSES[truth].replace('_', ' ')}. Second row: where each network sees its answer (Grad-CAM)"
    return opinions((image_id, *view, crop), {name: said[name] for name in shown}, footnote, maps)


if __name__ == "__main__":
    command_line.run(main, config)
