"""Pack a finished run for a repository: its networks, small enough for git, and figures of the packed networks.

    python -m pipeline.pack runs/fine_tuned models/trained

The packed run opens like any finished run, with `pipeline.finished_run.load_run`. Its large kernels are 16-bit floats,
its arithmetic is float32 on every processor, and it predicts without test-time augmentation. So everything that depends
on predictions (predictions, figures and thresholds) is made again here, with the packed networks, on the validation
split.

Reads   <run>/    a finished run, for example of the preset `fine_tuned`; the networks of its vote are packed
        images and labels of the validation split, in the `data_dir` of the run's config.json

Writes  <to>/unet/unet.keras, backbones/<backbone>/{model.keras,classes.json}, vote/    the networks
        <to>/config.json, about.json    settings; numbers of training images, and how much packing changed outputs
        <to>/predictions/<method>_validation.csv
        <to>/results/operating_points.json, metrics.json, metrics.md
        <to>/README.md    only the part between the two comment lines with `figures`
        <to>/SHA256SUMS    of all these files but README.md; they are checked whenever the run is opened
"""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from pipeline import command_line
from pipeline.paths import TRAINED, RunFolder


@dataclass(frozen=True)
class Settings:
    """Pack a finished run."""

    run: Positional[Path]
    """Folder of the finished run."""
    to: Positional[Path] = TRAINED
    """Folder to write to."""
    data_dir: Path | None = None
    """Folder of the data set, if it is no longer where the run's settings say."""


if __name__ == "__main__":
    settings = command_line.start(__doc__, Settings)
    command_line.choose_backend()

import json
import re
from dataclasses import replace
from itertools import compress

import numpy as np

from config import PRESETS
from data.images import read_square
from data.probabilities import write_probabilities
from evaluation.methods import measure_split
from evaluation.operating_points import points_by_method
from evaluation.tables import headlines, write_metrics
from models.compact import SMALL_KERNEL, compact
from pipeline import inputs
from pipeline.checksums import write_sums
from pipeline.data_sets import data_set
from pipeline.finished_run import load_run
from pipeline.inference import filled
from pipeline.networks import load_network
from pipeline.settings import PER_CALL_SETTINGS, read_settings, write_settings
from utils.errors import InputError, add_to_commands
from utils.files import atomic_write, write_json

LARGEST_FILE, LARGEST_RUN = 50e6, 100e6  # bytes, for a git repository without special storage
LARGEST_DIFFERENCE = 1e-3  # that packing may make in a classifier's probabilities
SMALL_KERNELS = (SMALL_KERNEL, 5 * SMALL_KERNEL, 25 * SMALL_KERNEL)  # tried one after another
BATCH = 8
FIGURES = re.compile(r"(?<=<!-- figures -->\n).*?(?=<!-- end of figures -->)", re.DOTALL)


def main(settings):
    add_to_commands({"--run-dir": ["--run-dir", str(settings.run)]})
    refuse_other_files(RunFolder(settings.to))
    source = load_run(settings.run, **({"data_dir": settings.data_dir} if settings.data_dir else {}))
    paths, _ = inputs.images(source.config, "validation")
    labels = inputs.labels(source.config, "validation", list(paths), required=True)
    settings.to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.to.parent, prefix=".part.") as folder:
        packed = pack_networks(source, RunFolder(Path(folder) / "run"))
        about = {"drawn": source.drawn, "trained_on": trained_on(source)}
        write_json(packed.about, about)
        write_sums(packed.checksums, files_of(packed))
        crops = [diagnosis.crop for diagnosis in load_run(packed.path).diagnose_each(paths.values())]
        about["largest_difference"] = limit_differences(source, packed, list(paths.values()), np.stack(crops))
        write_json(packed.about, about)
        write_sums(packed.checksums, files_of(packed))
        diagnoses = list(load_run(packed.path).diagnose_each(paths.values()))
        figures = write_figures(source, packed, list(paths), labels, diagnoses)
        write_sums(packed.checksums, files_of(packed))
        refuse_large_files(packed)
        size = sum(file.stat().st_size for file in files_of(packed))
        replace_run(packed, RunFolder(settings.to))
    write_card(RunFolder(settings.to), figures, about)
    print(f"packed {settings.run} into {settings.to}: {size / 1e6:.1f} MB")


def files_of(run):
    """All files of a packed run, without its README and the sums."""
    files = (path for path in sorted(run.path.rglob("*")) if path.is_file())
    return [path for path in files if path not in (run.checksums, run.path / "README.md")]


def network_files(source, target):
    """Dictionary from a network's name to its files in two run folders."""
    files = {"vote": (source.files.vote_network("vote"), target.vote_network("vote"))}
    if source.config.masks != "none":
        files["unet"] = source.files.unet.network, target.unet.network
    if source.config.decide_by == "vote_oof":
        files["vote_oof"] = source.files.vote_network("vote_oof"), target.vote_network("vote_oof")
    for name in source.config.backbones:
        files[name] = source.files.backbone(name).network, target.backbone(name).network
    return files


def pack_networks(source, target):
    """Write the networks and the settings of a packed run.

    Args:
        source: the `Run`.
        target: the `RunFolder` of the packed run.

    Returns:
        `target`.
    """
    for file, packed_file in network_files(source, target).values():
        compact_with_classes(file, packed_file)
    if (fitted := source.files.fitted(source.config.decide_by)).exists():
        target.fitted(source.config.decide_by).write_bytes(fitted.read_bytes())
    # The folders of the machine that trained the networks mean nothing elsewhere.
    preset = PRESETS[source.config.preset]
    config = replace(source.config, data_dir=preset.data_dir, weights=preset.weights, test_time_augmentation=False)
    config = replace(config, extra_data_dir=None, extra_mask_dir=None, splits=("validation",))
    write_settings(config, target.settings, PER_CALL_SETTINGS)
    return target


def compact_with_classes(file, target, **options):
    """Copy a network with `models.compact.compact`, and classes.json beside it. Returns `target`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    compact(file, target, **options)
    if (classes := file.with_name("classes.json")).exists():  # of a classifier
        shutil.copyfile(classes, target.with_name(classes.name))
    return target


def trained_on(source):
    """Dictionary from each split that the networks were trained with to its number of images."""
    config = source.config
    counts = {split: len(data_set(config, split).images(split)) for split in ("training", "validation")}
    # The networks' own settings, because the option may have been given to later stages alone.
    trained = [source.files.unet, *map(source.files.backbone, config.backbones)]
    trained = [read_settings(network.settings) for network in trained if network.settings.is_file()]
    for extra in {of.extra_data_dir for of in trained if of.extra_data_dir}:
        images = data_set(replace(config, extra_data_dir=extra), "extra").images("extra")
        counts["extra"] = max(len(images), counts.get("extra", 0))
    return counts


def limit_differences(source, packed, paths, crops):
    """Measure how much packing changed the networks' outputs on validation images, both computed in float32.

    A classifier whose probabilities change too much is packed again, with more kernels stored precisely.

    Args:
        source: the `Run`.
        packed: the `RunFolder` of the packed run.
        paths: the images.
        crops: RGB array (images, side, side, 3), uint8, of the packed run.

    Returns:
        Dictionary from network to the largest difference of a probability (for the U-Net, of a pixel).

    Raises:
        InputError: if probabilities of a classifier differ by `LARGEST_DIFFERENCE` or more all the same.
    """
    largest = {}
    for name, (file, packed_file) in network_files(source, packed).items():
        if name.startswith("vote"):
            continue
        with tempfile.TemporaryDirectory() as folder:
            copy = compact_with_classes(file, Path(folder) / file.name, half=False)
            before = load_network(copy, "-m pipeline.pack", name, quiet=True)
        images = crops if name != "unet" else np.stack([read_square(p, before.input_shape[1]) for p in paths])
        batches = [images[i : i + BATCH] for i in range(0, len(images), BATCH)]
        expected = [filled(before, batch, BATCH) for batch in batches]
        for small_kernel in SMALL_KERNELS:
            if small_kernel > SMALL_KERNEL:
                compact_with_classes(file, packed_file, small_kernel=small_kernel)
            after = load_network(packed_file, "-m pipeline.pack", name, quiet=True)
            found = [filled(after, batch, BATCH) for batch in batches]
            largest[name] = max(float(np.abs(a - b).max()) for a, b in zip(expected, found, strict=True))
            print(f"{name}: packing changes no output by more than {largest[name]:.1e}")
            if name == "unet" or largest[name] < LARGEST_DIFFERENCE:
                break
        else:
            raise InputError(f"{file} cannot be packed: its probabilities would change by {largest[name]:.1e}")
    return largest


def write_figures(source, packed, image_ids, labels, diagnoses):
    """Write the packed run's predictions of the validation split, its operating points and its metrics.

    Returns:
        The metrics.
    """
    backbones, decide_by = source.config.backbones, source.config.decide_by
    predictions = np.stack([[d.probabilities[name] for name in backbones] for d in diagnoses]).transpose(0, 2, 1)
    vote = load_network(packed.vote_network("vote"), "vote.py", "vote", source.classes, quiet=True)
    methods = {name: predictions[..., k] for k, name in enumerate(backbones)}
    methods |= {"mean": predictions.mean(axis=-1), "vote": vote.predict_on_batch(predictions)}
    methods |= {decide_by: np.stack([diagnosis.probabilities[decide_by] for diagnosis in diagnoses])}
    for name, probabilities in methods.items():
        write_probabilities(packed.predictions(name, "validation"), image_ids, probabilities, source.classes)
    known = labels.any(axis=1)  # images with a label
    labels, measured = labels[known], {name: probabilities[known] for name, probabilities in methods.items()}
    fitted_on = {"vote": read_settings(source.files.vote_settings).vote_fit_split}
    combined = {name: probabilities for name, probabilities in measured.items() if name not in backbones}
    points = points_by_method(labels, combined, classes=source.classes, split="validation", fitted_on=fitted_on)
    write_json(packed.operating_points, points)
    groups = data_set(source.config).groups_of("validation", compress(image_ids, known))
    how = {"classes": source.classes, "seed": source.config.seed, "groups": groups}
    figures = measure_split(labels, measured, by_seed={}, fitted_on=fitted_on, **how)
    figures["notes"] = ["By the packed networks, without test-time augmentation."]
    metrics = {"validation": figures}
    write_metrics(metrics, json_file=packed.metrics, tables_file=packed.metrics_page)
    print(headlines(metrics))
    return metrics


def refuse_large_files(run):
    """Refuse files that are too large for a repository.

    Raises:
        InputError: naming the file, or all of them.
    """
    sizes = {file: file.stat().st_size for file in files_of(run)}
    largest = max(sizes, key=sizes.get)
    if sizes[largest] >= LARGEST_FILE:
        raise InputError(f"{largest.relative_to(run.path)} is {sizes[largest] / 1e6:.0f} MB: pack another network")
    if sum(sizes.values()) > LARGEST_RUN:
        networks = ", ".join(f"{f.relative_to(run.path)} {s / 1e6:.1f} MB" for f, s in sizes.items() if s > 1e6)
        raise InputError(
            f"the packed run is {sum(sizes.values()) / 1e6:.0f} MB, {LARGEST_RUN / 1e6:.0f} MB at most ({networks}): "
            f"run `python vote.py` with fewer --backbones first"
        )


def refuse_other_files(target):
    """Refuse a folder that holds files, but no packed run.

    Raises:
        InputError: naming one of them.
    """
    if (files := files_of(target)) and not target.checksums.exists():
        raise InputError(f"{files[0]} is no part of a packed run: choose another folder")


def replace_run(packed, target):
    """Move a packed run to its place, in place of one that was packed there before. Other files there stay."""
    if target.checksums.exists():
        for line in target.checksums.read_text(encoding="utf-8").splitlines():
            if name := line.partition("  ")[2]:
                (target.path / name).unlink(missing_ok=True)
    for file in [*files_of(packed), packed.checksums]:
        place = target.path / file.relative_to(packed.path)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(file, place)


def write_card(run, metrics, about):
    """Write the figures into the model card, README.md of the packed run, if it has a place for them."""
    card = run.path / "README.md"
    text = card.read_text(encoding="utf-8") if card.exists() else ""
    if not FIGURES.search(text):
        return
    lines = [headlines(metrics).replace("## ", "### ", 1)]
    points = json.loads(run.operating_points.read_text(encoding="utf-8"))
    lines += ["| method | wanted sensitivity | threshold | sensitivity | specificity |", "| --- |" + " ---: |" * 4]
    columns = ("sensitivity", "threshold", "reached", "specificity")
    for method, saved in points.items():
        for point in saved["points"]:
            cells = ["-" if point[name] is None else f"{point[name]:.3f}" for name in columns]
            lines.append(f"| {method} | {' | '.join(cells)} |")
    changed = ", ".join(f"{name} {value:.1e}" for name, value in about["largest_difference"].items())
    lines += ["", f"Largest change of an output by packing: {changed}."]
    with atomic_write(card) as part:
        part.write_text(FIGURES.sub(lambda _: "\n".join(["", *lines, "", ""]), text), encoding="utf-8")


if __name__ == "__main__":
    command_line.run(main, settings)
