"""Make the report of a finished run: one page to open in a browser, which needs no other file.

    python report.py --preset isic2017_256

Reads   <run-dir>/results/metrics.json, and segmentation.json if it is there
        <run-dir>/predictions/<method>_<split>.csv
        <run-dir>/{unet,vote,backbones/<backbone>}/history.csv
        <run-dir>/{unet,masks/<split>,crops/<split>,vote,backbones/<backbone>}/config.json
        <run-dir>/vote/vote.keras, backbones/<backbone>/model.keras
        <run-dir>/{masks,crops}/<split>/*.png
        <data-dir>/ISIC-2017_*_Data/*.jpg, ISIC-2017_*_Part3_GroundTruth.csv

Writes  <run-dir>/results/report.html    about the test split if it has labels, otherwise about the validation split

The settings on the page are read from the files beside the networks and crops. Of the command line only --data-dir,
--run-dir, --decide-by, --workers and --seed (of the bootstrap) count.
"""

from pathlib import Path

from pipeline import command_line, inputs
from pipeline.made import Made

TEMPLATE = Path(__file__).parent / "evaluation" / "report.html"
GALLERY = 6  # the most confident right diagnoses that are shown, and as many of the most confident wrong ones
SHORTER_SIDE = 270  # of an image there, in pixels


def main(config):
    from pipeline.report_inputs import find_report_inputs, report_files

    run = find_report_inputs(config)
    page = config.run_dir / "results" / "report.html"
    made = Made(config, "report", "report", "report.py", report_files(config, run) | {"template": [TEMPLATE]}, [page])
    if not made.up_to_date():
        from data.files import whole_file
        from evaluation.report import render

        values = page_values(config, run)
        made.begin()
        with whole_file(page) as part:
            part.write_text(render(TEMPLATE, **values), encoding="utf-8", errors="backslashreplace")
        made.finish()
        print(f"wrote {page} ({page.stat().st_size / 1e6:.1f} MB)")
    print(f"open {page.resolve().as_uri()} in a browser")


def page_values(config, run):
    """Everything that the template of the page shows, as a dictionary."""
    from data.probabilities import read_probabilities
    from evaluation.report import confusion, figures, gallery, most_confident
    from pipeline.report_inputs import heat_maps, image_views, settings_table, software

    split, ids, deciding = run.split, run.ids[run.split], config.decide_by
    labels = {s: inputs.labels(config, s, run.ids[s], required=s == split) for s in run.ids}
    predictions = {name: read_probabilities(path, ids) for name, path in run.tables.items()}
    histories = inputs.read_histories({name: folder / "history.csv" for name, folder in run.folders.items()})
    overlaps = config.run_dir / "results" / "segmentation.json"
    rows = most_confident(labels[split], predictions[deciding], GALLERY)
    shown = [ids[row] for kind in rows.values() for row in kind]
    answers = [predictions[deciding][row].argmax() for kind in rows.values() for row in kind]
    views = list(image_views(config, split, shown, crop_settings=run.crop_settings, shorter_side=SHORTER_SIDE))
    crops, answers = [view.crop for view in views], dict.fromkeys(run.networks, answers)
    maps = dict(heat_maps(config, run, image_ids=shown, crops=crops, answers=answers))
    return {
        "split": split,
        "images": {s: len(run.ids[s]) for s in run.ids},
        "counts": {s: labels[s].sum(axis=0).astype(int).tolist() for s in run.ids if labels[s] is not None},
        "preset": run.voted["preset"],
        "metrics": run.metrics,
        "backbones": run.voted["backbones"],
        "segmentation": inputs.read_json(overlaps, "seg_predict.py") if overlaps.exists() else {},
        "deciding": deciding,
        "confusions": {n: confusion(labels[split], predictions[n]).tolist() for n in dict.fromkeys((deciding, "mean"))},
        "figures": figures(labels[split], predictions, deciding=deciding, histories=histories, seed=config.seed),
        "gallery": gallery(
            rows, ids, labels=labels[split], predictions=predictions, deciding=deciding, views=views, maps=maps
        ),
        "settings": settings_table(run),
        "software": software(config.run_dir / "vote" / "vote.keras"),
    }


if __name__ == "__main__":
    command_line.run(main, __doc__)
