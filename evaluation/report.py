"""Parts of `report.html`, a page about a run that needs no other file."""

import base64

import cv2
import jinja2
import numpy as np

from data.classes import ISIC_2017, tasks_of
from evaluation.methods import METHODS
from evaluation.overlays import heat_map, outlined
from evaluation.plots import curves, reliability, svg, training_curves
from evaluation.tables import headline, readings


def render(template, classes=ISIC_2017, **values):
    """Fill a template.

    Args:
        template: path of a Jinja template of a page.
        classes: names of the classes.
        values: what it shows; a name that the template uses and that is missing is an error. Texts are escaped.

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
    fixed = {"classes": classes, "tasks": tasks_of(classes), "methods": METHODS}
    fixed |= {"headline": headline(classes), "readings": readings(classes)}
    return environment.get_template(template.name).render(**fixed, **values)


def figures(labels, predictions, *, deciding, histories, seed, classes=ISIC_2017):
    """Draw the charts of the page.

    Args:
        labels: one-hot array (images, classes).
        predictions: dictionary from method name to probabilities (images, classes), with `mean` among them.
        classes: names of the classes.
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
            task: address(
                curves(kind, labels, predictions, [task], banded=("mean", deciding), seed=seed, classes=classes)
            )
            for task in tasks_of(classes)
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


def most_confident(labels, probabilities, count):
    """Find the images whose diagnosis has the highest probability.

    Args:
        labels: one-hot array (images, classes).
        probabilities: array (images, classes).
        count: images to find of each kind; fewer where there are not as many.

    Returns:
        {"right": rows, "wrong": rows}, integer arrays of right and of wrong diagnoses, the most probable first, equal
        ones in their order.
    """
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    right = (probabilities.argmax(axis=1) == labels.argmax(axis=1))[order]
    return {"right": order[right][:count], "wrong": order[~right][:count]}


def gallery(rows, image_ids, *, labels, predictions, deciding, views, maps):
    """Pictures of some images, with their diagnoses.

    Args:
        rows: as `most_confident` returns them.
        image_ids: ids of all images.
        labels: one-hot array (images, classes).
        predictions: dictionary from method name to probabilities (images, classes).
        deciding: name of the method whose diagnoses are shown.
        views: a `data.lesion.ImageView` for each of the rows.
        maps: dictionary from network name to maps (rows, side, side), 0 to 1, of what speaks for the diagnosis.

    Returns:
        {"right": [...], "wrong": [...]}, for each image a dictionary of its id, `truth` and `answer` (indices of the
        true class and of the diagnosis), `probabilities` (by method, of that diagnosis), and `image`, `crop` and `maps`
        (by network): pictures as addresses for a page.
    """
    cases = []
    for k, (row, view) in enumerate(zip(np.concatenate(list(rows.values())), views, strict=True)):
        answer = int(predictions[deciding][row].argmax())
        cases.append(
            {
                "id": image_ids[row],
                "truth": int(labels[row].argmax()),
                "answer": answer,
                "probabilities": {name: values[row, answer] for name, values in predictions.items()},
                "image": jpeg_uri(outlined(view)),
                "crop": jpeg_uri(view.crop),
                "maps": {name: jpeg_uri(heat_map(view.crop, heats[k])) for name, heats in maps.items()},
            }
        )
    right = len(rows["right"])
    return {"right": cases[:right], "wrong": cases[right:]}


def confusion(labels, probabilities):
    """Count the diagnoses by argmax; integer array (true classes, predicted classes)."""
    chosen = np.eye(labels.shape[1], dtype=int)[probabilities.argmax(axis=1)]
    return labels.astype(int).T @ chosen
