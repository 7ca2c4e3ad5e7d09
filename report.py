"""Write the report of a finished run: one page for a browser, which needs no other file.

    python report.py --preset fine_tuned

Reads   <run-dir>/results/metrics.json, operating_points.json, and segmentation.json if it is there
        <run-dir>/predictions/<method>_<split>.csv
        <run-dir>/{unet,vote,backbones/<backbone>}/history.csv
        <run-dir>/{unet,masks/<split>,crops/<split>,vote,backbones/<backbone>}/config.json
        <run-dir>/vote/vote.keras, backbones/<backbone>/{model.keras,classes.json}
        <run-dir>/{masks,crops}/<split>/*.png
        images and labels in <data-dir>, see data/dataset.py

Writes  <run-dir>/results/report.html    about the test split if it has labels, otherwise about the validation split

The settings on the page are read from the files beside the networks and crops. From the command line, only --data-dir,
--run-dir, --decide-by, --workers and --seed (of the bootstrap) are used.
"""

from pipeline import command_line

if __name__ == "__main__":
    config = command_line.start(__doc__)

from pathlib import Path

import numpy as np

from data.classes import positive_class
from data.draw_sample import is_sample
from data.probabilities import read_probabilities
from evaluation.methods import unseen_methods
from evaluation.operating_points import SUSPECT_SENSITIVITY
from evaluation.report import (
    choose_cases,
    confusion,
    csv_uri,
    figures,
    gallery,
    image_rows,
    operating_table,
    render,
)
from evaluation.tables import methods_once
from pipeline import inputs
from pipeline.data_sets import data_set
from pipeline.manifest import Manifest
from pipeline.paths import RunFolder, Trained
from pipeline.report_inputs import (
    check_labels_of_vote,
    find_report_inputs,
    heat_maps,
    image_views,
    report_files,
    settings_table,
    software,
)
from utils.files import atomic_write

TEMPLATE = Path(__file__).parent / "evaluation" / "report.html"
CASES = 3  # images of each class that are shown for its most confident right answers, and for its wrong ones
SHORTER_SIDE = 480  # of an image there, in pixels


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
    check_labels_of_vote(config, run)
    predictions = {name: read_probabilities(path, run.ids[split], classes) for name, path in run.tables.items()}
    points = list(inputs.read_operating_points(RunFolder(config.run_dir), deciding).values())
    known = labels[split].any(axis=1)  # images with a label
    ids, labels[split] = np.array(run.ids[split], object)[known].tolist(), labels[split][known]
    predictions = {name: probabilities[known] for name, probabilities in predictions.items()}
    shown = [deciding, "mean" if deciding == "vote" else "vote"]
    histories = inputs.read_histories({name: Trained(folder).history for name, folder in run.folders.items()})
    overlaps = RunFolder(config.run_dir).segmentation
    positive = classes.index(positive_class(classes))
    is_positive = labels[split][:, positive] == 1
    point_rows = operating_table(is_positive, predictions[deciding][:, positive], points)
    main_point = next((point for point in point_rows if point["sensitivity"] == SUSPECT_SENSITIVITY), None)
    rows = image_rows(ids, labels[split], predictions[deciding], classes)
    return {
        "classes": classes,
        "split": split,
        "images": {s: len(run.ids[s]) for s in run.ids},
        "counts": {s: labels[s].sum(axis=0).astype(int).tolist() for s in run.ids if labels[s] is not None},
        "preset": run.voted["preset"],
        "drawn": run.voted["preset"] == "sample" or is_sample(config.data_dir),
        "masks": run.crop_settings.masks,
        "metrics": run.metrics,
        "rows": {s: methods_once(measured["methods"]) for s, measured in run.metrics.items()},
        "backbones": run.voted["backbones"],
        "segmentation": inputs.read_json(overlaps, "seg_predict.py") if overlaps.exists() else {},
        "deciding": deciding,
        "shown": shown,
        "points": point_rows,
        "chosen_on": points[0].split if points else None,
        "main_point": main_point,
        "positives": int(is_positive.sum()),
        "confusions": {name: confusion(labels[split], predictions[name]).tolist() for name in shown},
        "figures": figures(
            labels[split],
            predictions,
            unseen=unseen_methods(predictions, run.metrics[split]["fitted_on"], split),
            shown=shown,
            histories=histories,
            seed=config.seed,
            classes=classes,
            groups=data_set(config).groups_of(split, ids),
        ),
        "gallery": cases(config, run, ids, labels[split], predictions, main_point and main_point["threshold"], classes),
        "all_images": rows,
        "csv": csv_uri(rows, classes),
        "settings": settings_table(run),
        "software": software(RunFolder(config.run_dir).vote_network("vote")),
    }


def cases(config, run, ids, labels, predictions, threshold, classes):
    """Pictures of the images that `choose_cases` chooses; see `evaluation.report.gallery`."""
    deciding = config.decide_by
    chosen = choose_cases(labels, predictions[deciding], CASES, threshold, classes=classes)
    shown = [ids[row] for rows in chosen.values() for row in rows]
    answers = [predictions[deciding][row].argmax() for rows in chosen.values() for row in rows]
    views = list(image_views(config, run.split, shown, crop_settings=run.crop_settings, shorter_side=SHORTER_SIDE))
    crops, answers = [view.crop for view in views], dict.fromkeys(run.networks, answers)
    maps = dict(heat_maps(config, run, image_ids=shown, crops=crops, answers=answers))
    return gallery(
        chosen,
        ids,
        labels=labels,
        predictions=predictions,
        deciding=deciding,
        views=views,
        maps=maps,
        classes=classes,
    )


if __name__ == "__main__":
    command_line.run(main, config)
