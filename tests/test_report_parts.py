"""evaluation/report.py: the parts of the page."""

import numpy as np

from data.lesion import ImageView
from evaluation.overlays import heat_map
from evaluation.report import confusion, gallery, jpeg_uri, most_confident

LABELS = np.eye(3)[[0, 1, 2, 2]]
PROBABILITIES = np.array([[0.5, 0.3, 0.2], [0.9, 0.1, 0.0], [0.1, 0.2, 0.7], [0.2, 0.3, 0.5]])


def test_the_most_confident_are_ranked_by_the_probability_of_the_answer():
    rows = most_confident(LABELS, PROBABILITIES, 2)
    assert rows["right"].tolist() == [2, 0]  # 0.7, then the first of two with 0.5
    assert rows["wrong"].tolist() == [1]


def test_the_gallery_has_the_diagnosis_its_probabilities_and_the_pictures_of_each_image():
    rows = most_confident(LABELS, PROBABILITIES, 2)
    grey = [np.full((20, 20, 3), value, np.uint8) for value in (50, 100, 150)]
    views = [ImageView(image, 1.0, None, (0, 20, 0, 20), image[:10, :10]) for image in grey]
    maps = {"xception": np.random.default_rng(0).random((3, 10, 10))}
    predictions = {"vote": PROBABILITIES, "mean": LABELS}
    cases = gallery(rows, list("abcd"), labels=LABELS, predictions=predictions, deciding="vote", views=views, maps=maps)
    assert [case["id"] for case in cases["right"]] == ["c", "a"]
    (wrong,) = cases["wrong"]
    assert (wrong["id"], wrong["truth"], wrong["answer"]) == ("b", 1, 0)
    assert wrong["probabilities"] == {"vote": 0.9, "mean": 0.0}
    assert wrong["crop"] == jpeg_uri(grey[2][:10, :10])
    assert wrong["maps"]["xception"] == jpeg_uri(heat_map(grey[2][:10, :10], maps["xception"][2]))


def test_confusion_counts_true_classes_in_rows():
    assert confusion(LABELS, PROBABILITIES).tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 2]]
