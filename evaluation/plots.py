"""Draw pictures of a run with matplotlib. Some functions draw a figure; `save` and `svg` write it.

The figures are not registered with pyplot, so thousands of them need no closing.
"""

import io
import os
from contextlib import contextmanager
from itertools import cycle

if not os.environ.get("MPLBACKEND", "").startswith("module://"):  # backends of notebooks begin so
    os.environ["MPLBACKEND"] = "agg"  # draw to files only, never to a screen

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.figure import Figure

from data.classes import tasks_of
from evaluation.bootstrap import curve_bands, one_group
from evaluation.methods import METHODS
from evaluation.metrics import (
    CALIBRATION_BINS,
    calibration_bins,
    count_positives,
    curve_points,
    ranking_metrics,
)
from evaluation.overlays import outlined
from utils.files import atomic_write

# Colours of the classes in bars: the palette of Okabe and Ito, then others.
CLASS_COLORS = ("#d55e00", "#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#0072b2", "#f0e442", "#999999", "#8c564b")
COLORS = {name: method.color for name, method in METHODS.items() if method.color}


@contextmanager
def style():
    """Use the style of this repository within the block, and ignore the user's matplotlibrc there."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "font.size": 9,
                "axes.titlesize": 10,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.prop_cycle": cycler(color=["#7f7f7f", "#b8860b", "#56b4e9", "#8e6bbf", "#6b8e23"]),
                "legend.frameon": False,
                "svg.hashsalt": "report",  # the same figure is the same file
            }
        )
        yield


class Drawing(Figure):
    """A figure that a notebook shows without pyplot. It is saved in the style in which it was drawn."""

    @style()
    def savefig(self, *args, **options):
        super().savefig(*args, **options)

    def _repr_jpeg_(self):
        content = io.BytesIO()
        self.savefig(content, format="jpeg", dpi=80)
        return content.getvalue()


def save(figure, path):
    """Write a figure as a PNG or JPEG file."""
    jpeg = {"quality": 85, "subsampling": 0}  # at half the resolution, thin lines would lose their colour
    with atomic_write(path) as part:
        # "tight" includes a legend of many lines below a plot, which lies outside the figure.
        figure.savefig(part, dpi=120, bbox_inches="tight", pil_kwargs=jpeg if str(path).endswith(".jpg") else None)
    print(f"drew {path}")


def svg(figure):
    """The bytes of a figure as SVG."""
    content = io.BytesIO()
    figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None}, bbox_inches="tight")
    return content.getvalue()


@style()
def crop_examples(views):
    """Draw images with the outline of their mask and their box, and below each its crop.

    Args:
        views: dictionary from name to a `data.lesion.ImageView`.

    Returns:
        The figure.
    """
    figure = Drawing(figsize=(2.2 * len(views), 4.6), layout="constrained")
    axes = figure.subplots(2, len(views), squeeze=False)
    for (upper, lower), (name, view) in zip(axes.T, views.items(), strict=True):
        upper.imshow(outlined(view))
        upper.set_title(printable(name), fontsize=8, parse_math=False)
        lower.imshow(view.crop)
    for axis in axes.flat:
        axis.set_axis_off()
    figure.suptitle("mask (cyan), box (yellow) and crop", fontsize=9)
    return figure


def printable(name):
    """Replace bytes of a name that cannot be drawn. The name may hold `$`, so draw it with `parse_math=False`."""
    return name.encode(errors="backslashreplace").decode()


@style()
def draw_probabilities(name, view, methods, *, classes, footnote, maps=None):
    """Draw one image with the outline of its mask and its box, its crop, and the probabilities of every method.

    Args:
        name: title of the figure.
        view: a `data.lesion.ImageView`.
        methods: dictionary from method name to probabilities (classes,). The first method is the one that decides.
        classes: names of the classes.
        footnote: text below.
        maps: dictionary from title to further pictures, RGB arrays, for a second row.

    Returns:
        The figure.
    """
    figure = upper = Drawing(figsize=(13.3, 7) if maps else (12, 4.2), layout="constrained")
    if maps:
        upper, lower = figure.subfigures(2, 1, height_ratios=[4.2, 2.8])
        for axis, (title, picture) in zip(np.ravel(lower.subplots(1, len(maps))), maps.items(), strict=True):
            axis.imshow(picture)
            axis.set_title(title, fontsize=9)
            axis.set_axis_off()
    whole, close, bars = upper.subplots(1, 3, width_ratios=[1.35, 1, 1.35])
    whole.imshow(outlined(view))
    segmented = view.mask is not None and view.mask.any()
    title = "mask (cyan) and box (yellow)" if segmented else "no lesion segmented: whole frame"
    whole.set_title(title, fontsize=9)
    close.imshow(view.crop)
    close.set_title("crop", fontsize=9)
    for axis in (whole, close):
        axis.set_axis_off()
    left = np.zeros(len(methods))
    for k, (diagnosis, color) in enumerate(zip(classes, cycle(CLASS_COLORS), strict=False)):
        widths = np.array([probabilities[k] for probabilities in methods.values()])
        drawn = bars.barh(list(methods), widths, left=left, label=diagnosis.replace("_", " "), color=color)
        bars.bar_label(drawn, [f"{w:.2f}" if w >= 0.1 else "" for w in widths], label_type="center", fontsize=8)
        left += widths
    bars.invert_yaxis()
    bars.get_yticklabels()[0].set_fontweight("bold")
    bars.set(xlim=(0, 1), xlabel="probability")
    bars.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=min(4, len(classes)), fontsize=8)
    shown = name if len(name) <= 100 else f"{name[:48]}...{name[-49:]}"
    figure.suptitle(printable(shown), fontsize=10, parse_math=False)
    figure.supxlabel(footnote, fontsize=9)
    return figure


def panels(count, width, height):
    """An empty figure with some panels, at most four in a row.

    Args:
        count: number of panels.
        width, height: size of a panel in inches.

    Returns:
        The figure and the list of its axes.
    """
    columns = min(4, count)
    rows = -(-count // columns)
    figure = Drawing(figsize=(width * columns, height * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[count:]:
        axis.set_axis_off()
    return figure, axes[:count]


@style()
def training_curves(histories):
    """Draw training and validation loss by epoch, with one panel for each network.

    If a history has these columns, the cross-entropy (the loss without penalty and smoothing) is drawn dashed, and the
    mean AUC of the tasks on the validation split is drawn dotted, on the right axis.

    Args:
        histories: dictionary from network name to a data frame with columns epoch, loss and val_loss, perhaps
            cross_entropy, val_cross_entropy and val_auc.

    Returns:
        The figure.
    """
    figure, axes = panels(len(histories), width=3.2, height=2.6)
    for axis, (name, table) in zip(axes, histories.items(), strict=True):
        for prefix, color, label in (("", COLORS["mean"], "training"), ("val_", COLORS["vote"], "validation")):
            axis.plot(table["epoch"], table[f"{prefix}loss"], ".-", color=color, label=label)
            if "cross_entropy" in table:
                axis.plot(table["epoch"], table[f"{prefix}cross_entropy"], "--", color=color, linewidth=1)
        if "val_auc" in table:
            right = axis.twinx()
            right.plot(table["epoch"], table["val_auc"], ":", color=COLORS["stacking"])
            right.set(ylim=(min(0.5, table["val_auc"].min()), 1))
            right.set_ylabel("validation AUC (dotted)", fontsize=8)
        axis.set(title=name, xlabel="epoch", ylabel="loss", ylim=(0, None))
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0].legend()
    return figure


@style()
def curves(kind, labels, methods, tasks=None, banded=(), seed=0, *, classes, groups=None):
    """Draw ROC or precision-recall curves, with one panel for each task. The legend gives the area under each curve.

    Args:
        kind: "roc" or "precision_recall".
        labels: one-hot array (images, classes).
        methods: dictionary from method name to probabilities (images, classes).
        classes: names of the classes.
        tasks: the classes to draw; None for those of `data.classes.tasks_of`. One without positive or without negative
            images gets an empty panel.
        banded: names of the methods to draw with their pointwise 95 % bootstrap band.
        seed: seed of the bootstrap.
        groups: see `evaluation.bootstrap.measure`.

    Returns:
        The figure.
    """
    tasks = tasks_of(classes) if tasks is None else tasks
    figure, axes = panels(len(tasks), width=4.4, height=5.8)
    for axis, task in zip(axes, tasks, strict=True):
        truth = labels[:, classes.index(task)] == 1
        axis.set(title=f"{task.replace('_', ' ')} against the rest", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
        axis.set_box_aspect(1)
        # There are five colours; further methods are dashed, then dotted.
        axis.set_prop_cycle(cycler(linestyle=["-", "--", ":"]) * matplotlib.rcParams["axes.prop_cycle"])
        if kind == "roc":
            axis.set(xlabel="1 - specificity", ylabel="sensitivity")
            axis.plot([0, 1], [0, 1], color="0.7", linestyle=":", linewidth=1)
        else:
            axis.set(xlabel="recall (sensitivity)", ylabel="precision")
            axis.axhline(truth.mean(), color="0.7", linestyle=":", linewidth=1)
        if truth.all() or not truth.any():
            continue
        lines = []
        for name, probabilities in methods.items():
            scores = probabilities[:, classes.index(task)]
            style = {"linewidth": 1, "zorder": 2}
            if name in COLORS:
                style = {"color": COLORS[name], "linewidth": 1.8, "linestyle": "-"}
            ones = np.ones((1, len(truth)))
            ((x,), (y,)) = curve_points(kind, *count_positives(truth, scores, ones))
            if kind == "precision_recall":
                x, first = np.unique(x, return_index=True)  # the first threshold that reaches a recall
                y = y[first]
                style["drawstyle"] = "steps-pre"
            (area,) = ranking_metrics(truth, scores, ones)["auc" if kind == "roc" else "average_precision"]
            (line,) = axis.plot(x, y, label=f"{printable(name)} {area:.3f}", **style)
            lines.append(line)
            if name in banded and not one_group(groups):
                grid, _, low, high = curve_bands(truth, scores, kind, seed=seed, groups=groups)
                axis.fill_between(grid, low, high, color=line.get_color(), alpha=0.18, linewidth=0)
        legend = axis.legend(  # with labels of its own: matplotlib leaves out a line whose label begins with _
            lines,
            [line.get_label() for line in lines],
            title={"roc": "area under the curve", "precision_recall": "average precision"}[kind],
            loc="upper center",
            bbox_to_anchor=(0.5, -0.13),
            ncols=2,
            fontsize=8,
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
    return figure


@style()
def reliability(labels, probabilities):
    """Draw a reliability diagram: the accuracy in each bin of the largest probability, above the number of images.

    The bins are those of `evaluation.metrics.calibration_error`.

    Args:
        labels: one-hot array (images, classes).
        probabilities: array (images, classes).

    Returns:
        The figure.
    """
    confidence, right, bins = calibration_bins(labels, probabilities)
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    counts = np.bincount(bins, minlength=CALIBRATION_BINS)
    filled = np.unique(bins)
    accuracy = np.array([right[bins == k].mean() for k in filled])
    predicted = np.array([confidence[bins == k].mean() for k in filled])
    figure = Drawing(figsize=(4.4, 4.8), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.plot([0, 1], [0, 1], color="0.7", linestyle=":", linewidth=1)
    upper.vlines(predicted, predicted, accuracy, color=COLORS["vote"], linewidth=1.5)
    upper.plot(predicted, accuracy, "o", color=COLORS["mean"], markersize=5)
    upper.set(ylabel="share of right diagnoses", xlim=(0, 1), ylim=(-0.02, 1.02))
    bars = lower.bar(edges[:-1], counts, 1 / CALIBRATION_BINS, align="edge", color="0.65", edgecolor="white")
    lower.bar_label(bars, [count or "" for count in counts], fontsize=7)
    lower.margins(y=0.3)
    lower.set(xlabel="probability of the most probable class", ylabel="images")
    return figure
