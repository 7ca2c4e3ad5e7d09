"""The parts of `report.html`: pictures and tables of a run, put into one page that needs nothing else."""

import base64

import cv2
import jinja2
import numpy as np

from data.isic2017 import CLASSES
from evaluation.metrics import TASKS
from evaluation.plots import curves, reliability, svg, training_curves


def render(template, **values):
    """Fill a template.

    Args:
        template: path of a Jinja template of a page.
        values: what it shows; a name that it uses and that is not here is an error. Texts are escaped.

    Returns:
        The page as HTML.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["words"] = lambda name: name.replace("_", " ")
    return environment.get_template(template.name).render(classes=CLASSES, tasks=TASKS, **values)


def figures(labels, predictions, deciding, histories, seed):
    """Draw the charts of the page.

    Args:
        labels: one-hot array (images, 3).
        predictions: dictionary from method name to probabilities (images, 3), with `mean` among them.
        deciding: name of the method whose diagnoses the page shows.
        histories: dictionary from network name to a data frame; see `training_curves`.
        seed: seed of the bootstrap.

    Returns:
        `{"roc": {task: address}, "precision_recall": {task: address}, "reliability": {method: address}, "training":
        {network: address}}`, where an address holds the picture.
    """

    def address(figure):
        return data_uri(svg(figure), "image/svg+xml")

    drawn = {
        kind: {
            task: address(curves(kind, labels, predictions, [task], banded=("mean", deciding), seed=seed))
            for task in TASKS
        }
        for kind in ("roc", "precision_recall")
    }
    drawn["reliability"] = {
        name: address(reliability(labels, predictions[name])) for name in dict.fromkeys((deciding, "mean"))
    }
    drawn["training"] = {name: address(training_curves({name: table})) for name, table in histories.items()}
    return drawn


def data_uri(content, media_type):
    """Bytes as an address that a page can hold."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def jpeg_uri(image):
    """An RGB image (height, width, 3), uint8, as such an address."""
    _, content = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])
    return data_uri(content.tobytes(), "image/jpeg")


def surest(labels, probabilities, count):
    """Find the images whose diagnosis a method is surest of.

    Args:
        labels: one-hot array (images, 3).
        probabilities: array (images, 3).
        count: images to find of each kind; fewer where there are not as many.

    Returns:
        Two integer arrays of rows, right and wrong diagnoses, the most probable first, equals in their order.
    """
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    right = (probabilities.argmax(axis=1) == labels.argmax(axis=1))[order]
    return order[right][:count], order[~right][:count]


def confusion(labels, probabilities):
    """Count the diagnoses by argmax; integer array (3 true classes, 3 predicted classes)."""
    chosen = np.eye(labels.shape[1], dtype=int)[probabilities.argmax(axis=1)]
    return labels.astype(int).T @ chosen
