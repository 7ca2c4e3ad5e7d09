"""Predict the diagnosis of one's own dermoscopy images. This is research software: it is no medical device, and its
output is no diagnosis.

    python predict.py photo.jpg folder_of_photos                                    # the networks in models/trained
    python predict.py photo.jpg folder_of_photos --run-dir runs/fine_tuned          # those of a finished run

It segments the lesion, crops the image to it, classifies the crop with every backbone and combines their predictions,
as the stages do. Without --run-dir, --preset and --config it takes the run in runs/isic2017 if there is a finished one,
and otherwise the networks in models/trained. It prints which. The settings are those of the run's config.json. Options
can change them, but a setting that contradicts those that made the run is refused.

In a folder, it takes all JPEG, PNG, BMP, PPM, TIFF and WebP files, but not those of subfolders. It names the files that
it skips because they have another format or cannot be read. A file that you name yourself must be readable. If the
output folder already has a table, it is overwritten only if all of its images are named again.

Reads   <run-dir>/unet/unet.keras, backbones/<backbone>/{model.keras,classes.json}
        <run-dir>/vote/{vote.keras,stacking.json,temperature.json}
        <run-dir>/config.json, manifests/ or SHA256SUMS   the settings that made the run, and whether it is unchanged
        <run-dir>/results/operating_points.json           thresholds for 82, 89 and 95 % melanoma sensitivity

Writes  <output>/predictions.csv             one row for each image: probabilities by the method of `decide_by`, mean of
                                     the backbones, whether it is suspect, decision, remarks, box
        <output>/predictions_before.csv      the former table, until the new one is finished
        <output>/pictures/<image_id>.png     image with mask and box, crop, and the probabilities of every network
        <output>/masks/<image_id>_segmentation.png
        <output>/NO_DIAGNOSIS.txt            what the columns mean, and what they do not
"""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from config import Config
from pipeline import command_line
from pipeline.paths import default_run


@dataclass(frozen=True)
class Settings(Config):
    """The settings of all stages, the images, and where to write."""

    paths: Positional[tuple[Path, ...]] = ()
    """Images, and folders of images."""
    output: Path | None = None
    """Folder for the table and the pictures. Without it, a folder with the name of the first path, in own/ of the run
    folder, or in runs/own for the networks in models/trained."""
    sensitivity: float | None = None
    """Decide by the operating point of this melanoma sensitivity, 0.82, 0.89 or 0.95. Without it, the largest
    probability decides, and the column `suspect` uses the threshold for 0.89."""
    explain: bool = False
    """Add Grad-CAM to every picture: where in the crop each network sees the decision."""
    pictures: bool = True
    """Write pictures and masks; --no-pictures is faster for large folders."""


if __name__ == "__main__":
    config = command_line.start(__doc__, Settings, default_run())

from collections import Counter

import pandas as pd

from data.classes import positive_class
from data.images import check_images, image_facts, write_image
from data.own_images import distinct_names, find_images, print_passed_over
from pipeline.finished_run import WARNING, Run
from pipeline.settings import is_given
from utils.errors import InputError
from utils.files import atomic_write
from utils.progress import progress

EXPLANATION = f"""{WARNING}

Made by predict.py with the networks in {{run_dir}}: {{networks}}. The columns of predictions.csv:

{{classes}}
                                        output of {{method}}, the method that decides here. It orders images from less
                                        to more suspect. It is not the chance of having the disease.{{range}}
mean_*                                  mean of the backbones' probabilities
suspect                                 yes or no: {{point}}
decision                                {{rule}}
remarks                                 what is unusual about the image or the networks
top, bottom, left, right                box that was cropped, in pixels of the upright image; bottom and right exclusive
segmented                               whether a lesion was segmented; otherwise the whole frame was classified
image_id                                name of the file without its suffix (with a number if two are the same), and of
                                        its files in pictures/ and masks/
"""
VOTE_RANGE = " A voting\n" + " " * 40 + "network of three classes always gives values between 0.155 and 0.576."
SHOWN = 20  # rows of the table that are printed, if there are no more
WIDTH = 36  # letters of a file's name in it, so that a row has less than 100
CHUNK = 64  # images that are checked and predicted together, and rows that are written together


def main(config):
    paths = find_images(config.paths)
    print_passed_over([path for path in config.paths if path.is_dir()])
    augment = config.test_time_augmentation if is_given("test_time_augmentation") else None
    run = Run(config, config.sensitivity, augment)
    output = config.output or (Path("runs/own") if run.packed else run.files.own_images) / folder_name(config.paths)
    if not config.skip_bad_images:
        named = {path.resolve() for path in config.paths}
        refuse_bad_images([path for path in paths if path.resolve() in named], config.workers)
    for table in (output / "predictions.csv", former_table(output / "predictions.csv")):
        refuse_overwrite(table, paths)
    refuse_files_of_others(output)
    print(WARNING)
    print(f"networks of {config.run_dir}: {run.described()}")
    run.load_networks()
    print(f"computing with {run.computed_with()}")
    rows, bad = diagnose(run, dict(zip(paths, distinct_names(paths), strict=True)), output, config)
    if bad:
        shown = "; ".join(map(str, list(bad.values())[:SHOWN])) + ("; ..." if len(bad) > SHOWN else "")
        print(f"passed over {len(bad)} of {len(paths)} images: {shown}")
    if not rows:
        raise InputError("none of the images can be read: replace the files")

    print_summary(run, rows)
    made = "predictions.csv, pictures/, masks/" if config.pictures else "predictions.csv"
    print(f"wrote {made} and NO_DIAGNOSIS.txt to {output}")


def folder_name(paths):
    """Name of the folder for the answers: that of the first path, and how many more there are."""
    more = f"_and_{len(paths) - 1}_more" if len(paths) > 1 else ""
    return f"{paths[0].resolve().stem or 'root'}{more}"


def refuse_bad_images(paths, workers):
    """Refuse images that were named one by one and cannot be decoded.

    Raises:
        InputError: about all of them.
    """
    _, bad = check_images({path: path for path in paths}, workers, image_facts)
    if bad:
        raise InputError("; ".join(f"{error}, or pass --skip-bad-images" for error in bad.values()))


def diagnose(run, names, output, config):
    """Predict images with a run, and write the table, its explanation, the pictures and the masks.

    Args:
        run: a `pipeline.finished_run.Run`.
        names: dictionary from path to the name of its picture and mask.
        output: folder to write to.
        config: the `Settings`.

    Returns:
        List of the rows of the table; dictionary from each image that cannot be read to its `InputError`.
    """

    def write_mask(path, mask):
        if config.pictures:
            write_image(output / "masks" / f"{names[path]}_segmentation.png", mask)

    rows, all_bad, paths = [], {}, list(names)
    with progress(total=len(paths)) as bar:
        for start in range(0, len(paths), CHUNK):
            chunk = paths[start : start + CHUNK]
            _, bad = check_images({path: path for path in chunk}, config.workers, image_facts)
            all_bad |= bad
            bar.update(len(bad))
            good, new = [path for path in chunk if path not in bad], []
            if good and not rows:  # before the first picture, see `refuse_files_of_others`
                with atomic_write(output / "NO_DIAGNOSIS.txt") as part:
                    part.write_text(explanation(run), encoding="utf-8", errors="surrogateescape")
            for diagnosis in run.diagnose_each(good, write_mask):
                if config.pictures:
                    draw(run, diagnosis, output / "pictures" / f"{names[diagnosis.path]}.png", config.explain)
                new.append(table_row(diagnosis, names[diagnosis.path]))
                bar.update()
            if new:
                add_rows(output / "predictions.csv", new, first=not rows)
            rows += new
    if rows:
        former_table(output / "predictions.csv").unlink(missing_ok=True)
    return rows, all_bad


def draw(run, diagnosis, path, explain):
    """Write the picture of a diagnosis, with Grad-CAM if asked for."""
    figure = run.explain(diagnosis) if explain else diagnosis.plot()
    with atomic_write(path, flush=False) as part:
        figure.savefig(part, dpi=100)


def explanation(run):
    """The text of NO_DIAGNOSIS.txt."""
    return EXPLANATION.format(
        run_dir=run.config.run_dir,
        networks=run.described(),
        classes=", ".join(run.classes),
        method=run.config.decide_by,
        range=VOTE_RANGE if run.config.decide_by.startswith("vote") and len(run.classes) == 3 else "",
        point=run.point or f"not known. {without_points(run)}",
        rule=f"{positive_class(run.classes)} where an image is suspect, otherwise the most probable other class"
        if run.decide_by_point
        else "the class of the largest output",
    )


def without_points(run):
    """Sentences on a run without operating points of the method that decides."""
    return (
        f"The run keeps no operating point of {run.config.decide_by}. `python vote.py` chooses them on the validation "
        f"split, and a method that was fitted there gets none."
    )


def print_summary(run, rows):
    """Print a short table, the most suspect first, and how many images are suspect or have remarks."""
    table = pd.DataFrame(rows)
    if len(rows) <= SHOWN:
        first = positive_class(run.classes)
        shown = table[["file", *run.classes, "suspect", "decision"]].sort_values(first, ascending=False)
        shown = shown.assign(file=[f"...{file[-WIDTH:]}" if len(file) > WIDTH else file for file in shown["file"]])
        print(shown.to_string(index=False, float_format="{:.3f}".format))
    if run.point:
        print(f"suspect: {(table['suspect'] == 'yes').sum()} of {len(rows)} images ({run.point})")
    else:
        print(f"suspect: not known. {without_points(run)}")
    for remark, count in Counter(remark for text in table["remarks"] for remark in text.split("; ") if remark).items():
        first = next(row["file"] for row in rows if remark in row["remarks"])
        print(f"{count} of {len(rows)} images, {first} first: {remark}")
    if nothing := (~table["segmented"]).sum():
        print(f"no lesion segmented in {nothing} of {len(rows)} images: there the whole frame was classified")


def refuse_overwrite(file, paths):
    """Refuse to overwrite a table that holds an image that is not predicted now.

    Raises:
        InputError: naming one of them.
    """
    if not file.exists():
        return
    try:
        before = pd.read_csv(
            file, usecols=["file"], dtype=str, keep_default_na=False, encoding_errors="surrogateescape"
        )["file"]
    except ValueError as error:
        raise InputError(f"{file} is no table of predict.py ({error}): choose another --output") from None
    now = {path.resolve() for path in paths}
    others = [name for name in before if Path(name).resolve() not in now]
    if others:
        raise InputError(
            f"{file} holds {others[0]} (images that would be lost: {len(others)}): name it as well, or choose another "
            f"--output"
        )


def refuse_files_of_others(output):
    """Refuse a folder whose masks or pictures are not of predict.py, for example the true masks of a data set.

    Raises:
        InputError: naming it.
    """
    for folder in (output / "masks", output / "pictures"):
        if folder.is_dir() and any(folder.iterdir()) and not (output / "NO_DIAGNOSIS.txt").exists():
            raise InputError(
                f"{folder} holds files, but {output} no NO_DIAGNOSIS.txt of predict.py: choose another --output"
            )


def table_row(diagnosis, name):
    """A row of predictions.csv, as a dictionary, from a `pipeline.finished_run.Diagnosis`."""
    mean = diagnosis.probabilities["mean"].astype(float)
    return {
        "file": str(diagnosis.path),
        **dict(zip(diagnosis.classes, diagnosis.deciding.tolist(), strict=True)),
        **{f"mean_{name}": p for name, p in zip(diagnosis.classes, (mean / mean.sum()).tolist(), strict=True)},
        "suspect": {None: "", True: "yes", False: "no"}[diagnosis.suspect],
        "decision": diagnosis.decision,
        "remarks": "; ".join(diagnosis.remarks),
        **dict(zip(("top", "bottom", "left", "right"), diagnosis.box, strict=True)),
        "segmented": diagnosis.mask is not None and bool(diagnosis.mask.any()),
        "image_id": name,
    }


def add_rows(path, rows, first):
    """Add rows to the table of predictions. The first rows replace a table that exists already.

    Rows are written as soon as their images are predicted, in one write, so that a stopped run keeps what it has done.
    The table that was there before, which may have more rows, is kept until the end; see `former_table`.
    """
    text = pd.DataFrame(rows).to_csv(index=False, header=first, lineterminator="\n")
    content = text.encode(errors="surrogateescape")  # a name may hold bytes that are no UTF-8
    if first:
        if path.exists() and not former_table(path).exists():
            path.rename(former_table(path))
        with atomic_write(path) as part:
            part.write_bytes(content)
    else:
        with open(path, "ab") as file:
            file.write(content)


def former_table(path):
    """Name under which the former table of predictions is kept, until the new one is finished."""
    return path.with_name(f"{path.stem}_before.csv")


if __name__ == "__main__":
    command_line.run(main, config)
