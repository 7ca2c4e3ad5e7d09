"""Score tables of predictions against the ground truth: ours, or another group's.

    python evaluate.py theirs.csv runs/isic2017/predictions/vote_test.csv --reference vote_test --output comparison \\
        --labels data/isic2017/ISIC-2017_Test_v2_Part3_GroundTruth.csv

Reads   tables `image_id,melanoma,seborrheic_keratosis,nevus`, probabilities that sum to 1, or in the challenge's form:
        an id (image_id, image, image_name or isic_id) and two independent scores from 0 to 1, with or without a header,
        ids with or without `.jpg`; as `data/tables.py` reads them: gzip, semicolons and decimal commas are understood
        the challenge's Part 3 ground truth

Writes  <output>/evaluation.json, evaluation.md    what `results/metrics.json` and `metrics.md` of a run folder are
        <output>/roc.png                           ROC curves of the tables, that of the reference with its 95 % band

Prints the figures as Markdown. Every table must hold the images of the labels, no more and no fewer; several tables are
compared on the same images. `--leave-out ISIC_0012127` measures without some of them, say those of which `python -m
data.duplicates` finds a twin in the training split. Two independent scores make no three-way answer: figures that need
one are left out (-).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from pipeline import command_line


@dataclass(frozen=True)
class Settings:
    predictions: Annotated[tuple[Path, ...], Positional]
    """Tables to score; each is called by its name without `.csv`, or by its path where two have one name."""
    labels: Path
    """The images' diagnoses, in the form of the challenge's Part 3 ground truth."""
    names: tuple[str, ...] = ()
    """What to call the tables instead, in their order."""
    leave_out: tuple[str, ...] = ()
    """Ids of images that are not to count."""
    reference: str | None = None
    """Name of the table that the others are compared with; the first if none is given."""
    repetitions: Annotated[int, ">= 1"] = 1000
    """Resamples of the bootstrap."""
    seed: Annotated[int, ">= 0", "< 4294967296"] = 0
    """Seed of the bootstrap."""
    output: Path | None = None
    """Folder for the files; without it the figures are printed only."""


if __name__ == "__main__":
    settings = command_line.start(__doc__, Settings)

import json
from pathlib import Path

from data.isic2017 import label_rows
from data.probabilities import read_scores
from evaluation.bootstrap import measure
from evaluation.plots import curves, save
from evaluation.tables import metrics_tables
from utils.errors import InputError
from utils.files import atomic_write


def main(settings):
    paths = [str(path) for path in settings.predictions]
    stems = [Path(path.name.removesuffix(".gz")).stem for path in settings.predictions]
    if settings.names and len(settings.names) != len(paths):
        raise InputError(f"--names {' '.join(settings.names)}: give one name to each of the {len(paths)} tables")
    names = list(settings.names) or (stems if len(set(stems)) == len(stems) else paths)
    if not names or len(set(names)) < len(names):
        raise InputError("name at least one table of predictions, each once")
    reference = settings.reference or names[0]
    if reference not in names:
        raise InputError(f"--reference {reference} is none of the tables: choose from {', '.join(names)}")

    labels = label_rows(settings.labels)
    if labels.empty:
        raise InputError(f"{settings.labels} holds no image: put the table there")
    if strangers := sorted(set(settings.leave_out) - set(labels.index)):
        raise InputError(
            f"--leave-out {strangers[0]}: {settings.labels} has no such image: leave it out of the command"
        )
    counted = ~labels.index.isin(settings.leave_out)
    if not counted.any():
        raise InputError(f"--leave-out names every image of {settings.labels}: name fewer")
    methods = {
        name: read_scores(path, labels.index)[counted] for name, path in zip(names, settings.predictions, strict=True)
    }
    measured = measure(labels.to_numpy()[counted], methods, reference, settings.repetitions, settings.seed)
    splits = {settings.labels.stem: measured | {"left_out": list(settings.leave_out)}}
    text = metrics_tables(splits)
    if settings.leave_out:
        text = f"Without {', '.join(settings.leave_out)}.\n\n{text}"
    if settings.output is not None:
        with atomic_write(settings.output / "evaluation.json") as part:
            part.write_text(json.dumps(splits, indent=2) + "\n")
        with atomic_write(settings.output / "evaluation.md") as part:
            part.write_text(text, encoding="utf-8", errors="surrogateescape")
        figure = curves("roc", labels.to_numpy()[counted], methods, banded=[reference], seed=settings.seed)
        save(figure, settings.output / "roc.png")
    print(text)


if __name__ == "__main__":
    command_line.run(main, settings)
