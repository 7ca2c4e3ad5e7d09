"""Pictures of a run, drawn with matplotlib."""

import matplotlib

matplotlib.use("Agg")  # files only: a machine without a screen draws them too

from matplotlib import pyplot
from matplotlib.patches import Rectangle
from sklearn.metrics import roc_auc_score, roc_curve

from data.files import whole_file
from data.images import resize
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
        top, bottom, left, right = (edge * scale for edge in box)
        upper.imshow(image)
        if mask is not None and mask.any():
            mask = resize(mask, *image.shape[:2])
            upper.contour(mask, levels=[127], colors="cyan", linewidths=1)
        upper.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, color="yellow", linewidth=1))
        upper.set_title(name, fontsize=8)
        lower.imshow(crop)
    for axis in axes.flat:
        axis.set_axis_off()
    figure.suptitle("mask (cyan), box (yellow) and crop", fontsize=9)
    save(figure, path)


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
