"""Score tables of predictions, ours or another group's, against the ground truth.

    python evaluate.py theirs.csv runs/isic2017/predictions/vote_test.csv --reference vote_test --output comparison \\
        --labels data/isic2017/ISIC-2017_Test_v2_Part3_GroundTruth.csv

    python evaluate.py runs/mine/predictions/vote_test.csv --labels data/mine/dataset.csv --split test --by sex --by age

Reads   tables of `image_id` and one column for each class, probabilities that sum to 1; or the challenge's form:
        an id (image_id, image, image_name or isic_id) and two independent scores from 0 to 1, with or without a header,
        ids with or without `.jpg`. gzip, semicolons and decimal commas are understood, see `data/tables.py`
        labels: the challenge's Part 3 ground truth, `dataset.csv`, or one column of 0 and 1 for each class

Writes  <output>/evaluation.json, evaluation.md    in the form of `results/metrics.json` and `metrics.md` of a run
        <output>/roc.png                           ROC curves of the tables; the reference has a 95 % band

It prints the metrics as Markdown. Every table must hold the labelled images, and no others; images that are left out,
or without a label in `dataset.csv`, may be in it or not. Several tables are compared on the same images. Intervals draw
the images of one `group` of `dataset.csv` together.
`--leave-out ISIC_0012127` measures without some images, for example those that have a duplicate in the training split
(`python -m data.duplicates` finds them). `--by age=30,60` adds the metrics of subgroups, by a column of `dataset.csv`,
of --columns, or of the metadata table in the challenge's folder of images. Without limits, numbers are cut at their
quartiles. With two independent scores there is no three-way answer, so metrics that need one are left out (-).
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction

from pipeline import command_line


@dataclass(frozen=True)
class Settings:
    predictions: Annotated[tuple[Path, ...], Positional]
    """Tables to score; each is called by its name without `.csv`, or by its path where two have one name."""
    labels: Path
    """The images' diagnoses: the challenge's Part 3 ground truth, dataset.csv, or one column of 0 and 1 for each
    class."""
    split: Literal["training", "validation", "test"] | None = None
    """Split of dataset.csv; without it, all of its images are used."""
    by: UseAppendAction[tuple[str, ...]] = ()
    """Column whose subgroups are measured, with the edges of numbers or without: sex, age=30,60. It can be repeated."""
    columns: Path | None = None
    """Table with an image id and these columns, if they are not beside the labels."""
    names: tuple[str, ...] = ()
    """What to call the tables instead, in their order."""
    leave_out: tuple[str, ...] = ()
    """Ids of images to leave out."""
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

from data.dataset import TABLE, read_truth
from data.official import metadata_beside
from data.probabilities import read_scores
from data.tables import read_cells
from evaluation.bootstrap import measure
from evaluation.plots import curves, save
from evaluation.subgroups import measure_subgroups, subgroups
from evaluation.tables import metrics_tables
from utils.errors import InputError
from utils.files import atomic_write, write_json


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

    classes, labels, columns = read_truth(settings.labels, settings.split)
    if strangers := sorted(set(settings.leave_out) - set(labels.index)):
        raise InputError(
            f"--leave-out {strangers[0]}: {settings.labels} has no such image: leave it out of the command"
        )
    counted = labels.index[labels.any(axis=1) & ~labels.index.isin(settings.leave_out)]
    if counted.empty:
        raise InputError(f"{settings.labels} has no labelled image that is not left out: name another table or --split")
    methods = {
        name: read_scores(path, counted, classes, others=labels.index)
        for name, path in zip(names, settings.predictions, strict=True)
    }
    truth = labels.loc[counted].to_numpy()
    listed = settings.labels.name.lower() == TABLE
    lesions = columns.pop("group").loc[counted].tolist() if listed else None
    groups = read_subgroups(settings, columns, counted)
    how = {"repetitions": settings.repetitions, "seed": settings.seed, "classes": classes, "groups": lesions}
    measured = measure(truth, methods, reference, **how)
    measured["subgroups"] = {
        column: measure_subgroups(truth, methods, of_images, **how) for column, of_images in groups.items()
    }
    splits = {settings.split or settings.labels.stem: measured | {"left_out": list(settings.leave_out)}}
    text = metrics_tables(splits)
    if settings.leave_out:
        text = f"Without {', '.join(settings.leave_out)}.\n\n{text}"
    if settings.output is not None:
        write_json(settings.output / "evaluation.json", splits)
        with atomic_write(settings.output / "evaluation.md") as part:
            part.write_text(text, encoding="utf-8", errors="surrogateescape")
        banded = {"banded": [reference], "seed": settings.seed, "groups": lesions}
        figure = curves("roc", truth, methods, **banded, classes=classes)
        save(figure, settings.output / "roc.png")
    print(text)


def read_subgroups(settings, columns, image_ids):
    """Cut images by the columns of --by.

    Args:
        settings: the settings.
        columns: data frame of the columns that the labels' table has, by image id.
        image_ids: ids of the images.

    Returns:
        Dictionary from column (a repeated one with its edges: age=50) to what `evaluation.subgroups.subgroups` returns.

    Raises:
        InputError: if there is no such column, or if a column with edges holds a text that is no number.
    """
    source, groups = settings.labels, {}
    if settings.columns is not None or (settings.by and (found := metadata_beside(settings.labels))):
        source = settings.columns or found
        columns = read_cells(source, ["image_id"])
        if source.name.lower() == TABLE:  # which names files
            columns.index = columns.index.str.rpartition("/").get_level_values(2)
            if columns.index.has_duplicates:
                raise InputError(f"{source} names two files of one image: keep one row per image")
        if settings.by and not columns.index.isin(image_ids).any():
            raise InputError(f"{source} has none of the labelled images: name their own table with --columns")
    for option in settings.by:
        column, _, edges = option.partition("=")
        names = [name for name in columns if name == column] or [name for name in columns if name.startswith(column)]
        if len(names) != 1:
            raise InputError(
                f"--by {column}: {source} has the columns {', '.join(columns)}: name one, or give --columns"
            )
        texts = columns[names[0]].reindex(image_ids, fill_value="")
        try:
            limits = [float(edge) for edge in edges.split(",") if edge]
            if not all(map(math.isfinite, limits)):
                raise ValueError("a limit is not finite")
            groups[option if column in groups else column] = subgroups(column, texts, limits)
        except ValueError as error:
            raise InputError(f"--by {column}={edges}: {error}: give numbers as edges of a column of numbers") from None
    return groups


if __name__ == "__main__":
    command_line.run(main, settings)
