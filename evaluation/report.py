"""Parts of `report.html`, a page about a run that contains everything it shows."""

import base64
import csv
import io

import cv2
import jinja2
import numpy as np

from data.classes import positive_class, tasks_of
from evaluation.methods import METHODS
from evaluation.operating_points import at_threshold
from evaluation.overlays import heat_map, outlined
from evaluation.plots import curves, reliability, svg, training_curves
from evaluation.tables import headline

MOST_MISSED = 100  # the page holds all pictures that it shows


def render(template, classes, **values):
    """Fill a template.

    Args:
        template: path of a Jinja template of a page.
        classes: names of the classes.
        values: the values that the template uses; a missing one is an error. Texts are escaped.

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
    titles = headline(classes)
    # The mean AUC comes first, because a phone shows the others only after scrolling.
    titles = {name: titles[name] for name in sorted(titles, key="mean.auc".__ne__)}
    fixed = {"classes": classes, "tasks": tasks_of(classes), "positive": positive_class(classes)}
    fixed |= {"methods": METHODS, "headline": titles}
    return environment.get_template(template.name).render(**fixed, **values)


def figures(labels, predictions, *, unseen, shown, histories, seed, classes, groups):
    """Draw the charts of the page.

    Args:
        labels: one-hot array (images, classes).
        predictions: dictionary from method name to probabilities (images, classes).
        unseen: those of them that were not fitted on these images, which get curves.
        shown: names of the methods with a band and a reliability diagram.
        classes: names of the classes.
        histories: dictionary from network name to a data frame; see `training_curves`.
        seed: seed of the bootstrap.
        groups: see `evaluation.bootstrap.measure`.

    Returns:
        `{"roc": {task: address}, "precision_recall": {task: address}, "reliability": {method: address}, "training":
        {network: address}}`, where an address is a data URI that holds the picture.
    """

    def address(figure):
        return data_uri(svg(figure), "image/svg+xml")

    drawn = {
        kind: {
            task: address(curves(kind, labels, unseen, [task], shown, seed, classes=classes, groups=groups))
            for task in tasks_of(classes)
        }
        for kind in ("roc", "precision_recall")
    }
    drawn["reliability"] = {name: address(reliability(labels, predictions[name])) for name in shown}
    drawn["training"] = {name: address(training_curves({name: table})) for name, table in histories.items()}
    return drawn


def data_uri(content, media_type):
    """Bytes of a file, as a data URI."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def jpeg_uri(image):
    """An RGB image (height, width, 3), uint8, as a data URI of a JPEG file."""
    _, content = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])
    return data_uri(content.tobytes(), "image/jpeg")


def operating_table(labels, scores, points):
    """Measure each operating point on the images of the page.

    Args:
        labels: boolean array (images,), whether each is of the positive class.
        scores: array (images,), the probability of that class.
        points: list of `OperatingPoint`.

    Returns:
        List of dictionaries with the wanted `sensitivity`, the `threshold`, the sensitivity `reached` and the
        `specificity` on these images (see `at_threshold`), and two numbers of images whose score reaches the threshold:
        `found` of the positive class, and `suspect` of the other classes.
    """
    rows = []
    for point in points:
        reached, specificity = at_threshold(labels, scores, point.threshold)
        answers = np.asarray(scores) >= point.threshold
        rows.append(
            {
                "sensitivity": point.sensitivity,
                "threshold": point.threshold,
                "reached": reached,
                "specificity": specificity,
                "found": int(np.sum(answers & labels)),
                "suspect": int(np.sum(answers & ~labels)),
            }
        )
    return rows


def choose_cases(labels, probabilities, count, threshold=None, *, classes):
    """Choose the images whose pictures are shown.

    Args:
        labels: one-hot array (images, classes).
        probabilities: array (images, classes).
        count: largest number of images with the most confident right answers for each class, and of those with the most
            confident wrong answers.
        threshold: probability from which an image counts as one of the positive class, or None.
        classes: names of the classes.

    Returns:
        Dictionary from a heading to an integer array of rows. First come the missed images of the positive class, the
        least probable first, at most `MOST_MISSED`: their answer is another class, or their probability is below the
        threshold. Then come the right and the wrong answers for each class, the most probable first, without the missed
        images.
    """
    name = positive_class(classes)
    positive = classes.index(name)
    truth, answers, confidence = labels.argmax(axis=1), probabilities.argmax(axis=1), probabilities.max(axis=1)
    below = probabilities[:, positive] < (0 if threshold is None else threshold)
    missed = np.flatnonzero((truth == positive) & ((answers != positive) | below))
    by_probability = np.argsort(probabilities[missed, positive], kind="stable")
    chosen = {f"missed: {name.replace('_', ' ')}": missed[by_probability][:MOST_MISSED]}
    order = np.argsort(-confidence, kind="stable")
    order = order[~np.isin(order, missed)]
    for k, name in enumerate(classes):
        for kind, wanted in (("right", True), ("wrong", False)):
            rows = order[(truth[order] == k) & ((answers[order] == k) == wanted)][:count]
            if wanted or k != positive:  # its wrong ones are the missed ones
                chosen[f"{name.replace('_', ' ')}, confident and {kind}"] = rows
    return chosen


def gallery(chosen, image_ids, *, labels, predictions, deciding, views, maps, classes):
    """Collect the pictures of some images, with their diagnoses.

    Args:
        chosen: as `choose_cases` returns them.
        image_ids: ids of all images.
        labels: one-hot array (images, classes).
        predictions: dictionary from method name to probabilities (images, classes).
        deciding: name of the method whose diagnoses are shown.
        views: a `data.lesion.ImageView` for each of the rows.
        maps: dictionary from network name to Grad-CAM maps (rows, side, side) of the diagnosis, from 0 to 1.
        classes: names of the classes.

    Returns:
        Dictionary from each heading of `chosen` to a list with a dictionary for each image: `id`; `truth` and `answer`,
        indices of the true class and of the diagnosis; `probabilities`, from each method to the probability of that
        diagnosis; `positive`, the deciding method's probability of the positive class; and the pictures `image`, `crop`
        and `maps` (by network), as addresses.
    """
    cases = []
    for k, (row, view) in enumerate(zip(np.concatenate(list(chosen.values())), views, strict=True)):
        answer = int(predictions[deciding][row].argmax())
        cases.append(
            {
                "id": image_ids[row],
                "truth": int(labels[row].argmax()),
                "answer": answer,
                "probabilities": {name: values[row, answer] for name, values in predictions.items()},
                "positive": predictions[deciding][row, classes.index(positive_class(classes))],
                "image": jpeg_uri(outlined(view)),
                "crop": jpeg_uri(view.crop),
                "maps": {name: jpeg_uri(heat_map(view.crop, heats[k])) for name, heats in maps.items()},
            }
        )
    remaining = iter(cases)
    return {heading: [next(remaining) for _ in rows] for heading, rows in chosen.items()}


def image_rows(image_ids, labels, probabilities, classes):
    """List of (id, true class, diagnosis, probabilities) for each image, for the table of all images."""
    return [
        (image_id, classes[label.argmax()], classes[row.argmax()], row.tolist())
        for image_id, label, row in zip(image_ids, labels, probabilities, strict=True)
    ]


def csv_uri(rows, classes):
    """A CSV file of the rows of `image_rows`, as a data URI."""
    lines = [("image_id", "truth", "diagnosis", *classes), *((*row[:3], *row[3]) for row in rows)]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return data_uri(text.getvalue().encode(errors="surrogateescape"), "text/csv")


def confusion(labels, probabilities):
    """Confusion matrix of the diagnoses by argmax; integer array (true classes, predicted classes)."""
    chosen = np.eye(labels.shape[1], dtype=int)[probabilities.argmax(axis=1)]
    return labels.astype(int).T @ chosen
