"""Metrics as Markdown."""

from data.classes import ISIC_2017, tasks_of
from evaluation.metrics import SENSITIVITIES
from utils.files import atomic_write, write_json

ALL_CLASSES = {"macro_f1": "macro F1", "macro_auc": "macro AUC", "calibration_error": "expected calibration error"}
INTERVALS = (
    "In brackets 95 % confidence intervals, by bootstrap over the images within each class. Images of one lesion or "
    "patient are drawn together, if these are known.\n"
)
NOTES = """
Readings of accuracy: the paper's 0.909 can be no plain accuracy over the 600 test images, as 545 right are 0.908 and
546 are 0.910. It can be the mean of the two tasks' accuracies (1091 of 1200 answers), or of the three one-vs-rest
accuracies (1636 of 1800; a wrong image is wrong for two classes, so these are 518 images right, a three-way accuracy of
0.863).
"""
IN_SAMPLE = "In-sample: the backbones were trained on these images, so these figures say little about others."
SELECTED = "Each network keeps the epoch that is best on these images, so these figures are slightly too good."
OUT_OF_FOLD = (
    "Out-of-fold predictions (training_oof): each image by a classifier that was trained without it, but on a crop by "
    "a U-Net that may have been trained with its mask."
)
RANKED = {
    "auc": "AUC",
    "average_precision": "average precision",
    **{f"specificity_at_{100 * s:.0f}": f"specificity at {100 * s:.0f} % sensitivity" for s in SENSITIVITIES},
}
DECIDED = ("accuracy", "sensitivity", "specificity", "precision", "f1")
# The challenge's metrics of a task: of the scores, and of the decisions by each rule.
CHALLENGE = {
    "scores": RANKED,
    "decisions above a probability of 0.5": {f"threshold.{f}": f for f in DECIDED},
    "decisions by argmax": {f"argmax.{f}": f for f in DECIDED},
}


def headline(classes):
    """The metrics of the first table, from name to title."""
    return {
        "accuracy": "three-way accuracy" if len(classes) == 3 else "accuracy",
        "balanced_accuracy": "balanced accuracy",
        **{f"{task}.auc": f"AUC {task}" for task in tasks_of(classes)},
        **({"mean.auc": "mean AUC"} if len(tasks_of(classes)) > 1 else {}),
    }


def readings(classes):
    """Metrics that the paper may call accuracy, from name to title; empty for other classes than those of ISIC 2017."""
    return (
        {
            "accuracy": "three-way accuracy",
            "accuracy_two_tasks": "two tasks, probability above 0.5",
            "accuracy_two_tasks_argmax": "two tasks, argmax",
            "accuracy_one_vs_rest": "three one-vs-rest, argmax",
        }
        if tuple(classes) == ISIC_2017
        else {}
    )


def compared(classes):
    """The metrics whose differences between methods are shown, from name to title."""
    return {"mean.auc": "mean AUC", "accuracy": headline(classes)["accuracy"]}


def classes_of(measured):
    """The classes of a split's metrics; files of an older version do not name them and have those of ISIC 2017."""
    return tuple(measured.get("classes", ISIC_2017))


def write_metrics(splits, json_file, tables_file):
    """Write metrics as JSON and as Markdown; see `metrics_tables`."""
    write_json(json_file, splits)
    with atomic_write(tables_file) as part:
        part.write_text(metrics_tables(splits), encoding="utf-8")


def metrics_tables(splits):
    """Write metrics as Markdown.

    Args:
        splits: dictionary from split to what `evaluation.bootstrap.measure` returns.

    Returns:
        For each split: a table of the headline metrics; one of the further metrics of all classes; for ISIC 2017, one
        of the readings of the paper's accuracy; tables of the challenge's metrics for each task and for their mean;
        with several seeds, one of the votes over seeds; with a reference, one of the differences from it; and one for
        each column of subgroups.
    """
    # The training split last: readers look for validation and test.
    ordered = sorted(splits.items(), key=lambda item: item[0].startswith("training"))
    parts = [part for split, measured in ordered for part in split_tables(split, measured)]
    notes = INTERVALS + (NOTES if ISIC_2017 in map(classes_of, splits.values()) else "")
    return "\n".join([*parts, notes]) if parts else ""


def headlines(splits):
    """The first table of each split, which predictions each fitted method was fitted on, and the notes on the split."""
    parts = []
    for split, measured in splits.items():
        fitted = [f"{method} on the {table} predictions" for method, table in measured.get("fitted_on", {}).items()]
        note = f"\nFitted: {', '.join(fitted)}.\n" if fitted else ""
        note += "".join(f"\n{sentence}\n" for sentence in measured.get("notes", []))
        titles = headline(classes_of(measured))
        parts.append(f"## {split} ({measured['images']} images)\n\n{with_intervals(measured, titles)}{note}")
    return "\n".join(parts)


def methods_once(methods):
    """The names of the methods without "best single (name)", because the network `name` has its own row."""
    return [name for name in methods if not name.startswith("best single")]


def aligned_table(measured):
    """The most important metrics of every method on a split, as an aligned table of plain text."""
    tasks = tasks_of(classes_of(measured))
    columns = {"mean.auc": "mean AUC"} if len(tasks) > 1 else {}
    # More than four classes do not fit into a line.
    short = [task.rpartition("_")[2] for task in tasks]
    titles = [last if short.count(last) == 1 else task for task, last in zip(tasks, short, strict=True)]
    columns |= {f"{task}.auc": title[:10] for task, title in zip(tasks[:4], titles, strict=False)}
    columns["accuracy"] = "accuracy"
    methods = {name: measured["methods"][name] for name in methods_once(measured["methods"])}
    width = max(map(len, methods)) + 2
    lines = ["".join([" " * width, *(f"{title:>11}" for title in columns.values())])]
    lines += ["".join([name.ljust(width), *(f"{cell(v[f]):>11}" for f in columns)]) for name, v in methods.items()]
    return "\n".join([*lines, ""])


def with_intervals(measured, columns):
    """A Markdown table of some metrics of every method. `columns` is a dictionary from metric to title."""
    rows = {
        method: [cell(figures[f], measured["intervals"][method][f]) for f in columns]
        for method, figures in measured["methods"].items()
    }
    return table(columns.values(), rows)


def split_tables(split, measured):
    """Markdown of one split, as a list of tables with headings."""
    reference, classes = measured["reference"], classes_of(measured)
    number = {2: "two", 3: "three"}.get(len(classes), len(classes))
    parts = [headlines({split: measured}), f"### {split}: {number} classes\n\n{with_intervals(measured, ALL_CLASSES)}"]
    if readings(classes):
        parts.append(f"### {split}: readings of accuracy\n\n{with_intervals(measured, readings(classes))}")
    tasks, titles = tasks_of(classes), headline(classes)
    for task in (*tasks, *(["mean"] if len(tasks) > 1 else [])):
        against = (
            f"mean of the {'two' if len(tasks) == 2 else len(tasks)} tasks"
            if task == "mean"
            else f"{task} against the rest"
        )
        for rule, columns in CHALLENGE.items():
            figures = with_intervals(measured, {f"{task}.{f}": title for f, title in columns.items()})
            parts.append(f"### {split}: {against}, {rule}\n\n{figures}")
    if spreads := measured.get("seeds"):
        rows = {
            vote: [mean_and_deviation(spread.get(f)) for f in compared(classes)] for vote, spread in spreads.items()
        }
        seeds = max(spread["seeds"] for spread in spreads.values())
        title = f"### {split}: the votes from {seeds} seeds, mean and standard deviation"
        parts.append(f"{title}\n\n{table(compared(classes).values(), rows)}")
    if measured["differences"]:
        rows = {
            m: [cell(figures[f]["difference"], figures[f]["interval"], "+z.3f") for f in compared(classes)]
            for m, figures in measured["differences"].items()
        }
        parts.append(
            f"### {split}: difference from {reference} on the same images\n\n{table(compared(classes).values(), rows)}"
        )
    for column, groups in measured.get("subgroups", {}).items():
        rows = {
            f"{name} ({group['images']} images): {method}": [
                cell(figures[f], group["intervals"][method][f]) for f in titles
            ]
            for name, group in groups.items()
            for method, figures in group["methods"].items()
        }
        parts.append(f"### {split}: by {column}\n\n{table(titles.values(), rows)}")
    return parts


def table(header, rows):
    """A Markdown table with a row for each method: its name, then its cells."""
    header = ["method", *header]
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *([name, *cells] for name, cells in rows.items())]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def mean_and_deviation(pair):
    """A mean with its standard deviation, if it has one; a dash where there is neither."""
    if pair is None:
        return "-"
    return f"{pair[0]:.3f}" if pair[1] is None else f"{pair[0]:.3f} ± {pair[1]:.3f}"


def cell(value, interval=None, form=".3f"):
    """A metric with its interval as text; a dash if it is not defined."""
    if value is None:
        return "-"
    return f"{value:{form}}" + (f" [{interval[0]:{form}}, {interval[1]:{form}}]" if interval else "")
