"""Predict the diagnosis of one's own dermoscopy images with a finished run. This is research software: it is no medical
device, and its output is no diagnosis.

    python predict.py photo.jpg folder_of_photos --run-dir runs/isic2017_256

Segments the lesion, crops the image to it, asks every backbone and combines their answers, as the stages do. The
settings are those of the run folder's config.json, or whatever options give; others than the run was made with are
refused. Of a folder, all JPEG, PNG, BMP, TIFF and WebP files are taken, but not those of its subfolders; what is passed
over is named. A table that stands in the output folder already is written over only where all of its images are named
again.

Reads   <run-dir>/unet/unet.keras, backbones/<backbone>/model.keras, vote/{vote.keras,stacking.json}
        <run-dir>/config.json, manifests/     the settings that made the run, and what was made from what

Writes  <output>/predictions.csv             a row an image: probabilities by the method of `decide_by`, mean of the
                                     backbones, decision, box
        <output>/pictures/<name>.png         image with mask and box, crop, and what every network says
        <output>/masks/<name>_segmentation.png
        <output>/NO_DIAGNOSIS.txt            what the columns mean, and what they do not
"""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from config import Config
from pipeline import command_line


@dataclass(frozen=True)
class Settings(Config):
    """The settings of all stages, the images, and where to write."""

    paths: Positional[tuple[Path, ...]] = ()
    """Images, and folders of images."""
    output: Path | None = None
    """Folder for the table and the pictures; without it, own/ of the run folder."""


if __name__ == "__main__":
    config = command_line.start(__doc__, Settings)

import pandas as pd

from data.images import check_images, image_facts, write_image
from data.own_images import distinct_names, find_images, oddities, print_passed_over
from evaluation.plots import draw_probabilities
from pipeline.finished_run import CHUNK, Run
from pipeline.paths import RunFolder
from utils.errors import InputError
from utils.files import atomic_write
from utils.progress import progress

WARNING = "Research software, no medical device: this is no diagnosis. Show a lesion that worries you to a doctor."
EXPLANATION = f"""{WARNING}

Manifest by predict.py with the networks in {{run_dir}}. The columns of predictions.csv:

{{classes}}
                                        output of the method that decides here, {{method}}. It orders images from less
                                        to more suspect; it is not the chance of having the disease. (That of a voting
                                        network of three classes always lies between 0.155 and 0.576.)
mean_*                                  mean of the backbones' probabilities
decision                                the class of the largest output
top, bottom, left, right                box that was cropped, in pixels of the upright image; bottom and right exclusive
segmented                               whether a lesion was segmented; otherwise the whole frame was classified
name                                    of the files in pictures/ and masks/
"""
SHOWN = 20  # rows of the table that are printed, if there are no more


def main(config):
    paths = find_images(config.paths)
    print_passed_over([path for path in config.paths if path.is_dir()])
    run = Run(config)
    output = config.output or RunFolder(config.run_dir).own_images
    refuse_overwrite(output / "predictions.csv", paths)
    paths = readable(config, paths)
    print(WARNING)
    run.load_networks()
    rows = diagnose(run, dict(zip(paths, distinct_names(paths), strict=True)), output)

    with atomic_write(output / "NO_DIAGNOSIS.txt") as part:
        text = EXPLANATION.format(run_dir=config.run_dir, method=config.decide_by, classes=", ".join(run.classes))
        part.write_text(text, encoding="utf-8", errors="surrogateescape")
    if len(paths) <= SHOWN:
        print(
            pd.DataFrame(rows)[["file", *run.classes, "decision"]].to_string(index=False, float_format="{:.3f}".format)
        )
    print(f"wrote predictions.csv, pictures/, masks/ and NO_DIAGNOSIS.txt to {output}")


def readable(config, paths):
    """The images that can be decoded; says which of them are no usual dermoscopy images.

    Raises:
        InputError: about every image that cannot, unless it is to be left out; or if there are no others.
    """
    _, bad = check_images({path: path for path in paths}, config.workers, image_facts)
    if bad and not config.skip_bad_images:
        raise InputError("; ".join(f"{error}, or pass --skip-bad-images" for error in bad.values()))
    if bad:
        print(f"left out {len(bad)} bad images: {'; '.join(map(str, bad.values()))}")
    paths = [path for path in paths if path not in bad]
    if not paths:
        raise InputError("none of the images can be read: replace the files")
    for what, odd in oddities(paths).items():
        print(f"{len(odd)} of {len(paths)} images, {odd[0]} first, {what}")
    return paths


def diagnose(run, names, output):
    """Take images through a run, and write what it finds.

    Args:
        run: a `pipeline.finished_run.Run`.
        names: dictionary from path to the name of its picture and mask.
        output: folder to write to.

    Returns:
        The first rows of the table, `SHOWN` at the most.
    """

    def write_mask(path, mask):
        write_image(output / "masks" / f"{names[path]}_segmentation.png", mask)

    rows, shown, nothing = [], [], 0
    diagnoses = progress(run.diagnose(names, write_mask), total=len(names))
    for number, diagnosis in enumerate(diagnoses, 1):
        with atomic_write(output / "pictures" / f"{names[diagnosis.path]}.png", flush=False) as part:
            figure = draw_probabilities(
                diagnosis.path.name, diagnosis, diagnosis.probabilities, classes=run.classes, footnote=WARNING
            )
            figure.savefig(part, dpi=100)
        rows.append(table_row(diagnosis, names[diagnosis.path], run.classes))
        nothing += not rows[-1]["segmented"]
        shown += rows[-1:] if number <= SHOWN else []
        if number % CHUNK == 0 or number == len(names):
            add_rows(output / "predictions.csv", rows, first=number <= CHUNK)
            rows = []
    if nothing:
        print(f"no lesion segmented in {nothing} of {len(names)} images: there the whole frame was classified")
    return shown


def refuse_overwrite(file, paths):
    """Refuse to write over a table that holds other images than those that are to be predicted now.

    Raises:
        InputError: naming one of them.
    """
    if not file.exists():
        return
    try:
        before = pd.read_csv(file, usecols=["file"], encoding_errors="surrogateescape")["file"]
    except ValueError as error:
        raise InputError(f"{file} is no table of predict.py ({error}): choose another --output") from None
    now = {path.resolve() for path in paths}
    others = [name for name in before if Path(name).resolve() not in now]
    if others:
        raise InputError(
            f"{file} holds {others[0]} ({len(others)} such images), which would be lost: name it as well, or choose "
            f"another --output"
        )


def table_row(diagnosis, name, classes):
    """A row of predictions.csv, as a dictionary, from a `pipeline.finished_run.Diagnosis`."""
    deciding = next(iter(diagnosis.probabilities.values()))
    decided, mean = (p.astype(float) / p.sum(dtype=float) for p in (deciding, diagnosis.probabilities["mean"]))
    return {
        "file": str(diagnosis.path),
        **dict(zip(classes, decided.tolist(), strict=True)),
        **{f"mean_{class_name}": p for class_name, p in zip(classes, mean.tolist(), strict=True)},
        "decision": classes[decided.argmax()],
        **dict(zip(("top", "bottom", "left", "right"), diagnosis.box, strict=True)),
        "segmented": diagnosis.mask is not None and bool(diagnosis.mask.any()),
        "name": name,
    }


def add_rows(path, rows, first):
    """Add rows to the table of predictions; the first ones take the place of a table that stands there.

    Rows come with their images, so that a run that is stopped leaves what it has done, each time in one write.
    """
    text = pd.DataFrame(rows).to_csv(index=False, header=first, lineterminator="\n")
    content = text.encode(errors="surrogateescape")  # a name may hold bytes that are no UTF-8
    if first:
        with atomic_write(path) as part:
            part.write_bytes(content)
    else:
        with open(path, "ab", buffering=0) as file:
            file.write(content)


if __name__ == "__main__":
    command_line.run(main, config)
