"""The paper's comparisons. Each command makes a table; the first two also run the stages that are missing for it.

    python paper_tables.py segmentation --preset isic2017          crops by predicted masks, no masks, ground truth
    python paper_tables.py squeeze_excitation --preset isic2017    with and without squeeze-and-excitation blocks
    python paper_tables.py tasks --preset isic2017                 the challenge's two tasks, method by method
    python paper_tables.py literature --preset isic2017            beside published results

The variants have the settings of the run, except for the one that varies. The settings are those of the run's
config.json. Options can change them, but a setting that contradicts those that made the run is refused.

Reads   the data set and <run-dir> after stage 5 (segmentation, squeeze_excitation) or 6 (tasks, literature)

Writes  <run-dir>/ablations/<variant>/         a run folder of stages 3 to 5 for each variant
        <run-dir>/results/table_<name>.md      the table, with 95 % intervals and differences paired by image
"""

from dataclasses import dataclass
from typing import Literal

from tyro.conf import Positional

from config import Config
from pipeline import command_line


@dataclass(frozen=True)
class Settings(Config):
    """The settings of all stages, and which table."""

    table: Positional[Literal["segmentation", "squeeze_excitation", "tasks", "literature"]] = "tasks"
    """What to compare."""


if __name__ == "__main__":
    config = command_line.start(__doc__, Settings)

import os
import subprocess
import sys
from dataclasses import replace
from itertools import compress, product
from pathlib import Path

import numpy as np

from data.classes import ISIC_2017, tasks_of
from data.draw_sample import is_sample
from data.probabilities import read_probabilities
from evaluation.bootstrap import measure
from evaluation.tables import cell, classes_of, compared, headline, table, with_intervals
from pipeline import inputs
from pipeline.data_sets import data_set, label_files
from pipeline.paths import RunFolder, no_run
from pipeline.settings import PER_CALL_SETTINGS, affects, read_settings, write_settings
from pipeline.upstream import RunRecords
from utils.errors import InputError
from utils.files import atomic_write

# What is compared, and the setting that makes each variant; the first variant is the run itself.
ABLATIONS = {
    "segmentation": {
        "predicted masks": ("masks", "predicted"),
        "no masks": ("masks", "none"),
        "ground-truth masks": ("masks", "ground_truth"),
    },
    "squeeze_excitation": {"with SE": ("se_position", None), "without SE": ("se_position", "none")},
}
TEST_IMAGES = 600  # of ISIC 2017
# Area under the ROC curve on these: melanoma, keratosis, mean.
LITERATURE = {
    "[Matsunaga et al. 2017](https://arxiv.org/abs/1703.03108), first of the challenge": (0.868, 0.953, 0.911),
    "[González-Díaz 2017](https://arxiv.org/abs/1703.01976), second": (0.856, 0.965, 0.910),
    "[Menegola et al. 2017](https://arxiv.org/abs/1703.04819), third": (0.874, 0.943, 0.908),
    "GP-CNN-DTEL, Tang et al., IEEE J. Biomed. Health Inform. 24(10):2870-2882, 2020": (None, None, 0.926),
    "[MB-DCNN, Xie et al. 2020](https://arxiv.org/abs/1903.03313), with further data": (None, None, 0.938),
}


def main(config):
    name, files = config.table, RunFolder(config.run_dir)
    if name in ABLATIONS:
        text = ablation(config, name)
    elif name == "literature" and not files.metrics.exists():  # the published rows need no run
        print(f"{literature(None)}\n{no_run(config.run_dir)}")
        return
    else:
        measured = inputs.read_json(files.metrics, "vote.py")
        RunRecords(config).check([files.metrics])
        text = tasks(measured) if name == "tasks" else literature(measured.get("test"), drawn=is_drawn(config))
    file = files.table(name)
    with atomic_write(file) as part:
        part.write_text(text, encoding="utf-8")
    print(f"{text}\nwrote {file}")


def ablation(config, name):
    """Run stages 3 to 5 of the other variants where they are not up to date, and compare all variants in Markdown.

    Raises:
        InputError: if the run itself is not finished, or was made with other settings than those given.
    """
    (reference, (setting, own)), *others = ABLATIONS[name].items()
    if getattr(config, setting) != own and (own or getattr(config, setting) == "none"):
        raise InputError(f"{setting} = {getattr(config, setting)}: the table {name} varies it: leave it out")
    if name == "segmentation" and config.extra_data_dir and not config.extra_mask_dir:
        raise InputError(
            "the table segmentation crops by true masks: name those of the further images with --extra-mask-dir"
        )
    if not any(label_files(config, split) for split in config.splits if split != "training"):
        raise InputError(f"--splits {' '.join(config.splits)}: only training has labels, or none of them: give others")
    check_run(config)
    folders = {reference: RunFolder(config.run_dir)}
    needed = replace(config, splits=tuple(inputs.needed_splits(config)), folds=0, decide_by="mean")
    for variant, (setting, value) in others:  # the crops of all first: what is missing of the data shows at once
        folders[variant] = folders[reference].ablation(f"{setting}_{value}")
        write_settings(replace(needed, **{setting: value}), folders[variant].settings, PER_CALL_SETTINGS)
        crops = folders[variant].all_crops
        if setting == "masks":
            run("resize.py", folders[variant].path)
        elif not crops.exists():  # only the networks differ
            crops.parent.mkdir(parents=True, exist_ok=True)
            crops.symlink_to(os.path.relpath(folders[reference].all_crops, crops.parent), target_is_directory=True)
    for (variant, _), backbone in product(others, config.backbones):
        for script in ("training.py", "cls_predict.py"):
            run(script, folders[variant].path, "--backbone-name", backbone)
    return side_by_side(config, folders)


def check_run(config):
    """Check that the run is up to date and was made with the given settings.

    Otherwise its variants would differ from it in more than one setting.

    Raises:
        InputError: if a file of the run is missing, is stale, or was made with other settings.
    """
    folder, files = RunFolder(config.run_dir), []
    for name, split in product(config.backbones, config.splits):
        inputs.require_file(folder.crops(split), "resize.py")
        inputs.require_file(folder.backbone(name).network, f"training.py --backbone-name {name}")
        files.append(inputs.require_file(folder.predictions(name, split), f"cls_predict.py --backbone-name {name}"))
    # Not the U-Net: its precision, augmentation and seed may have been its own.
    varied = ("crops", "classifier", "predictions")
    names = {name for name in vars(Config()) for kind in varied if affects(name, kind)}
    records = RunRecords(config)
    records.check(files, must_match=names - {"backbone_name"}, kinds=varied)
    for name in config.backbones:
        extra = "extra crops" in records.records.get(name, {"inputs": ()})["inputs"]
        if extra != (config.extra_data_dir is not None):
            way = "with further images: give" if extra else "without further images: leave out"
            raise InputError(f"{folder.backbone(name).network} was trained {way} --extra-data-dir")


def run(script, run_dir, *options):
    """Run a stage with the settings of a run folder. If it fails, exit with its code."""
    script = Path(__file__).with_name(script)
    code = subprocess.run([sys.executable, script, "--run-dir", run_dir, *options]).returncode
    if code:
        sys.exit(code)


def side_by_side(config, folders):
    """Compare run folders: Markdown of the figures of every backbone and of the mean of the backbones.

    Args:
        folders: dictionary from variant to `RunFolder`; differences are from the first.
    """
    reference = next(iter(folders))
    parts = []
    for split in config.splits:
        images, _ = inputs.images(config, split)
        labels = inputs.labels(config, split, images)
        if split == "training" or labels is None:
            continue
        known, classes = labels.any(axis=1), data_set(config).classes
        groups = data_set(config).groups_of(split, compress(images, known))
        measured = {}
        for name, of in read_predictions(config, folders, split, images).items():
            of = {variant: probabilities[known] for variant, probabilities in of.items()}
            measured[name] = measure(labels[known], of, reference, seed=config.seed, classes=classes, groups=groups)
        parts.append(f"## {split} ({known.sum()} images)\n\n{variants(measured, classes, reference)}")
    return "\n".join(parts)


def read_predictions(config, folders, split, images):
    """Dictionary from each backbone, and "mean", to a dictionary from variant to probabilities (images, classes)."""
    found = {}
    for name in config.backbones:
        files = {variant: folder.predictions(name, split) for variant, folder in folders.items()}
        script = f"cls_predict.py --backbone-name {name}"
        found[name] = {
            v: read_probabilities(inputs.require_file(file, script), images, data_set(config).classes)
            for v, file in files.items()
        }
    return found | {"mean": {v: np.mean([of[v] for of in found.values()], axis=0) for v in folders}}


def variants(measured, classes, reference):
    """Markdown of the figures of each network's variants, as `evaluation.bootstrap.measure` returns them."""
    rows = {}
    for name, found in measured.items():
        for variant, figures in found["methods"].items():
            cells = [cell(figures[f], found["intervals"][variant][f]) for f in headline(classes)]
            if variant == reference:
                cells += [""] * len(compared(classes))
            else:
                pairs = found["differences"][variant]
                cells += [cell(pairs[f]["difference"], pairs[f]["interval"], "+z.3f") for f in compared(classes)]
            rows[f"{name}, {variant}"] = cells
    differences = [f"difference in {title} from {reference}" for title in compared(classes).values()]
    return table([*headline(classes).values(), *differences], rows)


def tasks(measured):
    """Markdown of the challenge's two tasks, each against the rest, for every method, as the paper has them."""
    figures = {"auc": "AUC"}
    figures |= {
        f"{rule}.{f}": f"{f} ({rule})"
        for rule in ("argmax", "threshold")
        for f in ("accuracy", "sensitivity", "specificity")
    }
    parts = []
    for split, figures_of in measured.items():
        for task in tasks_of(classes_of(figures_of)):
            columns = {f"{task}.{f}": title for f, title in figures.items()}
            title = f"## {split} ({figures_of['images']} images): {task} against the rest"
            parts.append(f"{title}\n\n{with_intervals(figures_of, columns)}")
    return "\n".join(parts)


def is_drawn(config):
    """Whether the data set is a built-in sample, or the run was made with its preset."""
    saved = RunFolder(config.run_dir).vote_settings
    presets = {config.preset, *([read_settings(saved).preset] if saved.exists() else [])}
    return "sample" in presets or is_sample(config.data_dir)


def literature(measured, drawn=False):
    """Markdown of published areas under the curve, and ours if they are of the same 600 images.

    Args:
        measured: the figures of the run's test split, or None.
        drawn: whether its images are drawn.
    """
    columns = [f"{task}.auc" for task in (*tasks_of(ISIC_2017), "mean")]
    rows = {source: [cell(area) for area in areas] for source, areas in LITERATURE.items()}
    if measured is None:
        note = "No run of ours is among them: no test split was measured.\n"
    elif drawn or measured["images"] != TEST_IMAGES or classes_of(measured) != ISIC_2017:
        images = f"{measured['images']} {'drawn pictures' if drawn else 'images'}"
        if classes_of(measured) != ISIC_2017:
            images += f" of {', '.join(classes_of(measured))}"
        note = (
            f"Our run is not among them: it was tested on {images}, the published systems on the {TEST_IMAGES} test "
            f"images of ISIC 2017, so the figures cannot be compared. `paper_tables.py tasks` shows ours.\n"
        )
    else:
        for method, values in measured["methods"].items():
            rows[f"ours: {method}"] = [cell(values[f], measured["intervals"][method][f]) for f in columns]
        note = f"All on the {TEST_IMAGES} test images of ISIC 2017.\n"
    return f"{table([f'AUC {task}' for task in (*tasks_of(ISIC_2017), 'mean')], rows)}\n{note}"


if __name__ == "__main__":
    command_line.run(main, config)
