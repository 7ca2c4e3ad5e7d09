"""Make the report of a finished run: one page to open in a browser, which needs no other file.

    python report.py --preset isic2017_256

Reads   <run-dir>/results/metrics.json, and segmentation.json if it is there
        <run-dir>/predictions/<method>_<split>.csv
        <run-dir>/{unet,vote,backbones/<backbone>}/history.csv
        <run-dir>/{unet,masks/<split>,crops/<split>,vote,backbones/<backbone>}/config.json
        <run-dir>/vote/vote.keras, backbones/<backbone>/model.keras
        <run-dir>/{masks,crops}/<split>/*.png
        images and labels in <data-dir>, see data/dataset.py

Writes  <run-dir>/results/report.html    about the test split if it has labels, otherwise about the validation split

The settings on the page are read from the files beside the networks and crops. Of the command line only --data-dir,
--run-dir, --decide-by, --workers and --seed (of the bootstrap) count.
"""

from pipeline import command_line

if __name__ == "__main__":
    config = command_line.start(__doc__)

from pathlib import Path

import numpy as np

from data.probabilities import read_probabilities
from evaluation.report import confusion, figures, gallery, most_confident, render
from pipeline import inputs
from pipeline.data_sets import data_set
from pipeline.manifest import Manifest
from pipeline.paths import RunFolder, Trained
from pipeline.report_inputs import (
    find_report_inputs,
    heat_maps,
    image_views,
    report_files,
    settings_table,
    software,
)
from utils.files import atomic_write

TEMPLATE = Path(__file__).parent / "evaluation" / "report.html"
GALLERY = 6  # the most confident right diagnoses that are shown, and as many of the most confident wrong ones
SHORTER_SIDE = 270  # of an image there, in pixels


def main(config):
    run = find_report_inputs(config)
    page, made_from = RunFolder(config.run_dir).report, report_files(config, run) | {"template": [TEMPLATE]}
    manifest = Manifest(config, "report", "report", "report.py", made_from, [page])
    if not manifest.up_to_date():
        values = page_values(config, run)
        manifest.begin()
        with atomic_write(page) as part:
            part.write_text(render(TEMPLATE, **values), encoding="utf-8", errors="backslashreplace")
        manifest.finish()
        print(f"wrote {page} ({page.stat().st_size / 1e6:.1f} MB)")
    print(f"open {page.resolve().as_uri()} in a browser")


def page_values(config, run):
    """Everything that the template of the page shows, as a dictionary."""
    split, classes, deciding = run.split, data_set(config).classes, config.decide_by
    labels = {s: inputs.labels(config, s, run.ids[s], required=s == split) for s in run.ids}
    predictions = {name: read_probabilities(path, run.ids[split], classes) for name, path in run.tables.items()}
    known = labels[split].any(axis=1)  # images with a label
    ids, labels[split] = np.array(run.ids[split], object)[known].tolist(), labels[split][known]
    predictions = {name: probabilities[known] for name, probabilities in predictions.items()}
    histories = inputs.read_histories({name: Trained(folder).history for name, folder in run.folders.items()})
    overlaps = RunFolder(config.run_dir).segmentation
    rows = most_confident(labels[split], predictions[deciding], GALLERY)
    shown = [ids[row] for kind in rows.values() for row in kind]
    answers = [predictions[deciding][row].argmax() for kind in rows.values() for row in kind]
    views = list(image_views(config, split, shown, crop_settings=run.crop_settings, shorter_side=SHORTER_SIDE))
    crops, answers = [view.crop for view in views], dict.fromkeys(run.networks, answers)
    maps = dict(heat_maps(config, run, image_ids=shown, crops=crops, answers=answers))
    return {
        "classes": classes,
        "split": split,
        "images": {s: len(run.ids[s]) for s in run.ids},
        "counts": {s: labels[s].sum(axis=0).astype(int).tolist() for s in run.ids if labels[s] is not None},
        "preset": run.voted["preset"],
        "metrics": run.metrics,
        "backbones": run.voted["backbones"],
        "segmentation": inputs.read_json(overlaps, "seg_predict.py") if overlaps.exists() else {},
        "deciding": deciding,
        "confusions": {n: confusion(labels[split], predictions[n]).tolist() for n in dict.fromkeys((deciding, "mean"))},
        "figures": figures(
            labels[split], predictions, classes=classes, deciding=deciding, histories=histories, seed=config.seed
        ),
        "gallery": gallery(
            rows, ids, labels=labels[split], predictions=predictions, deciding=deciding, views=views, maps=maps
        ),
        "settings": settings_table(run),
        "software": software(RunFolder(config.run_dir).vote_network("vote")),
    }


if __name__ == "__main__":
    command_line.run(main, config)
