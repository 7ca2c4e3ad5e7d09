"""Pictures of a run, drawn with matplotlib."""

import matplotlib

matplotlib.use("Agg")  # files only: a machine without a screen draws them too

import numpy as np
from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from sklearn.metrics import roc_auc_score, roc_curve

from data.files import whole_file
from data.images import resize
from data.isic2017 import CLASSES
from evaluation.metrics import TASKS


def save(figure, path):
    """Write a figure as a PNG file and close it."""
    with whole_file(path) as part:
        figure.savefig(part, dpi=120)
    pyplot.close(figure)
    print(f"drew {path}")


def crop_examples(examples, path):
    """Draw images with the outline of their mask and their box, and below each its crop.

    Args:
        examples: list of (name, image, scale, mask or None, box, crop); the image may be smaller than its mask and box,
            by the factor `scale`.
        path: PNG file to write.
    """
    figure, axes = pyplot.subplots(
        2, len(examples), figsize=(2.2 * len(examples), 4.6), squeeze=False, layout="constrained"
    )
    for (upper, lower), (name, image, scale, mask, box, crop) in zip(axes.T, examples, strict=True):
        show_lesion(upper, image, scale, mask, box)
        upper.set_title(name, fontsize=8)
        lower.imshow(crop)
    for axis in axes.flat:
        axis.set_axis_off()
    figure.suptitle("mask (cyan), box (yellow) and crop", fontsize=9)
    save(figure, path)


def show_lesion(axis, image, scale, mask, box):
    """Show an image with the outline of its mask and its box; see `crop_examples`."""
    top, bottom, left, right = (edge * scale for edge in box)
    axis.imshow(image)
    if mask is not None and mask.any():
        axis.contour(resize(mask, *image.shape[:2]), levels=[127], colors="cyan", linewidths=1)
    axis.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, color="yellow", linewidth=1))


def opinions(example, methods, footnote):
    """Draw one image with the outline of its mask and its box, its crop, and what every method says about it.

    Args:
        example: (name, image, scale, mask or None, box, crop) as in `crop_examples`.
        methods: dictionary from method name to probabilities (3,), the one that decides first.
        footnote: text below.

    Returns:
        A `matplotlib.figure.Figure`. It is none of pyplot's, so thousands of them need no closing.
    """
    name, image, scale, mask, box, crop = example
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    whole, close, bars = figure.subplots(1, 3, width_ratios=[1.35, 1, 1.35])
    show_lesion(whole, image, scale, mask, box)
    title = "mask (cyan) and box (yellow)" if mask is not None and mask.any() else "no lesion segmented: whole frame"
    whole.set_title(title, fontsize=9)
    close.imshow(crop)
    close.set_title("crop", fontsize=9)
    for axis in (whole, close):
        axis.set_axis_off()
    left = np.zeros(len(methods))
    for k, (diagnosis, color) in enumerate(zip(CLASSES, ("#d55e00", "#e69f00", "#56b4e9"), strict=True)):
        widths = np.array([probabilities[k] for probabilities in methods.values()])
        drawn = bars.barh(list(methods), widths, left=left, label=diagnosis.replace("_", " "), color=color)
        bars.bar_label(drawn, [f"{w:.2f}" if w >= 0.1 else "" for w in widths], label_type="center", fontsize=8)
        left += widths
    bars.invert_yaxis()
    bars.get_yticklabels()[0].set_fontweight("bold")
    bars.set(xlim=(0, 1), xlabel="probability")
    bars.spines[["top", "right"]].set_visible(False)
    bars.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(CLASSES), fontsize=8, frameon=False)
    shown = name if len(name) <= 100 else f"{name[:48]}...{name[-49:]}"
    figure.suptitle(shown, fontsize=10, parse_math=False)  # a file name may hold two dollar signs
    figure.supxlabel(footnote, fontsize=9)
    return figure


def training_curves(histories, path):
    """Draw training and validation loss by epoch.

    Args:
        histories: dictionary from network name to a data frame with columns epoch, loss and val_loss.
        path: PNG file to write.
    """
    columns = min(4, len(histories))
    rows = -(-len(histories) // columns)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(3.2 * columns, 2.6 * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(histories) :]:
        axis.set_axis_off()
    for axis, (name, table) in zip(axes.flat, histories.items(), strict=False):
        axis.plot(table["epoch"], table["loss"], label="training")
        axis.plot(table["epoch"], table["val_loss"], label="validation")
        axis.set(title=name, xlabel="epoch", ylabel="loss", ylim=(0, None))
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes.flat[0].legend()
    save(figure, path)


def roc_curves(labels, methods, path):
    """Draw the ROC curves of both challenge tasks, with their areas.

    Args:
        labels: one-hot array (images, 3).
        methods: dictionary from method name to probabilities (images, 3).
        path: PNG file to write.
    """
    figure, axes = pyplot.subplots(1, len(TASKS), figsize=(5 * len(TASKS), 5.4), layout="compressed")
    for k, (axis, task) in enumerate(zip(axes, TASKS, strict=True)):
        axis.plot([0, 1], [0, 1], color="0.8", linewidth=1)
        axis.set(xlabel="1 - specificity", ylabel="sensitivity", title=f"{task.replace('_', ' ')} against the rest")
        axis.set_aspect("equal")
        if not 0 < labels[:, k].mean() < 1:
            continue
        for name, probabilities in methods.items():
            false_positive, true_positive, _ = roc_curve(labels[:, k], probabilities[:, k])
            area = roc_auc_score(labels[:, k], probabilities[:, k])
            width = 2.5 if name == "vote" else 1
            axis.plot(false_positive, true_positive, label=f"{name} ({area:.3f})", linewidth=width)
        axis.legend(title="method (AUC)", fontsize=8, loc="lower right")
    save(figure, path)
