"""evaluation/report.py: the parts of the page."""

import base64

import numpy as np
import pytest

from data.classes import ISIC_2017 as CLASSES
from data.lesion import ImageView
from evaluation import report
from evaluation.operating_points import OperatingPoint
from evaluation.overlays import heat_map
from evaluation.report import (
    choose_cases,
    confusion,
    csv_uri,
    gallery,
    image_rows,
    jpeg_uri,
    operating_table,
)
from evaluation.tables import methods_once

LABELS = np.eye(3)[[0, 1, 2, 2]]
PROBABILITIES = np.array([[0.5, 0.3, 0.2], [0.9, 0.1, 0.0], [0.1, 0.2, 0.7], [0.2, 0.3, 0.5]])


def lists(chosen):
    return {heading: rows.tolist() for heading, rows in chosen.items()}


def test_cases_are_ranked_by_the_probability_of_the_answer():
    assert lists(choose_cases(LABELS, PROBABILITIES, 1, classes=CLASSES)) == {
        "missed: melanoma": [],
        "melanoma, confident and right": [0],
        "seborrheic keratosis, confident and right": [],
        "seborrheic keratosis, confident and wrong": [1],
        "nevus, confident and right": [2],
        "nevus, confident and wrong": [],
    }


def test_every_missed_melanoma_is_a_case_and_no_case_is_there_twice(monkeypatch):
    generator = np.random.default_rng(0)
    labels, probabilities = np.eye(3)[generator.integers(0, 3, 200)], generator.dirichlet(np.ones(3), 200)
    melanoma, answers = labels[:, 0] == 1, probabilities.argmax(axis=1)
    for threshold in (None, 0.1, 0.6):
        chosen = choose_cases(labels, probabilities, 4, threshold, classes=CLASSES)
        missed = melanoma & ((answers != 0) | (probabilities[:, 0] < (threshold or 0)))
        assert sorted(chosen["missed: melanoma"]) == np.flatnonzero(missed).tolist()
        rows = np.concatenate(list(chosen.values()))
        assert len(set(rows.tolist())) == len(rows)
    monkeypatch.setattr(report, "MOST_MISSED", 2)
    few = choose_cases(labels, probabilities, 4, threshold, classes=CLASSES)
    assert lists(few) == lists(chosen) | {"missed: melanoma": chosen["missed: melanoma"][:2].tolist()}


def test_the_gallery_has_the_diagnosis_its_probabilities_and_the_pictures_of_each_image():
    chosen = choose_cases(LABELS, PROBABILITIES, 1, classes=CLASSES)
    grey = [np.full((20, 20, 3), value, np.uint8) for value in (50, 100, 150)]
    views = [ImageView(image, 1.0, None, (0, 20, 0, 20), image[:10, :10]) for image in grey]
    maps = {"xception": np.random.default_rng(0).random((3, 10, 10))}
    predictions = {"vote": PROBABILITIES, "mean": LABELS}
    shown = gallery(
        chosen,
        list("abcd"),
        labels=LABELS,
        predictions=predictions,
        deciding="vote",
        views=views,
        maps=maps,
        classes=CLASSES,
    )
    assert {heading: [case["id"] for case in cases] for heading, cases in shown.items() if cases} == {
        "melanoma, confident and right": ["a"],
        "seborrheic keratosis, confident and wrong": ["b"],
        "nevus, confident and right": ["c"],
    }
    (wrong,) = shown["seborrheic keratosis, confident and wrong"]
    assert (wrong["truth"], wrong["answer"], wrong["positive"]) == (1, 0, 0.9)
    assert wrong["probabilities"] == {"vote": 0.9, "mean": 0.0}
    assert wrong["crop"] == jpeg_uri(grey[1][:10, :10])
    assert wrong["maps"]["xception"] == jpeg_uri(heat_map(grey[1][:10, :10], maps["xception"][1]))


def test_confusion_counts_true_classes_in_rows():
    assert confusion(LABELS, PROBABILITIES).tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 2]]


def test_each_method_has_one_row():
    assert methods_once(["xception", "best single (xception)", "mean"]) == ["xception", "mean"]


def test_an_operating_point_is_measured_on_the_images_of_the_page():
    melanoma, scores = np.array([True, True, False, False, False]), np.array([0.9, 0.2, 0.5, 0.3, 0.1])
    (row,) = operating_table(melanoma, scores, [OperatingPoint("melanoma", 0.89, 0.3, "validation")])
    assert row == {
        "sensitivity": 0.89,
        "threshold": 0.3,
        "reached": 0.5,
        "specificity": pytest.approx(1 / 3),
        "found": 1,
        "suspect": 2,
    }


def test_the_table_of_all_images_can_be_downloaded():
    rows = image_rows(["a", "b,c"], LABELS[:2], PROBABILITIES[:2], CLASSES)
    assert rows[1] == ("b,c", "seborrheic_keratosis", "melanoma", [0.9, 0.1, 0.0])
    kind, content = csv_uri(rows, CLASSES).split(";base64,")
    assert kind == "data:text/csv"
    lines = base64.b64decode(content).decode().splitlines()
    assert lines == [
        f"image_id,truth,diagnosis,{','.join(CLASSES)}",
        "a,melanoma,melanoma,0.5,0.3,0.2",
        '"b,c",seborrheic_keratosis,melanoma,0.9,0.1,0.0',
    ]
