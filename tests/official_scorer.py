"""A small made-up set, and the figures that the challenge's own scorer gives it; the tests hold ours to them.

    python3.13 -m venv scorer && scorer/bin/pip install isic-challenge-scoring==5.8.0
    scorer/bin/python tests/official_scorer.py > tests/official_scorer.json

That package needs Python 3.13, and an environment of its own. Source: https://github.com/ImageMarkup/isic-challenge-scoring
"""

import json

import numpy as np

CLASSES = ("melanoma", "seborrheic_keratosis", "nevus")
SIDE = 12
# Boxes (top, bottom, left, right) of the mask and of the truth.
BOXES = {
    "good": ((2, 10, 2, 10), (2, 9, 2, 10)),
    "below 0.65": ((1, 7, 1, 7), (3, 9, 2, 8)),
    "apart": ((0, 3, 0, 3), (6, 9, 6, 9)),
    "no answer": ((0, 0, 0, 0), (4, 8, 4, 8)),
    "no lesion": ((4, 8, 4, 8), (0, 0, 0, 0)),
    "both empty": ((0, 0, 0, 0), (0, 0, 0, 0)),
    "all lesion": ((0, 12, 0, 6), (0, 12, 0, 12)),
}


def masks():
    """Dictionary from name to (mask, truth), uint8 arrays of 0 and 255."""
    pairs = {name: np.zeros((2, SIDE, SIDE), np.uint8) for name in BOXES}
    for name, boxes in BOXES.items():
        for image, (top, bottom, left, right) in zip(pairs[name], boxes, strict=True):
            image[top:bottom, left:right] = 255
    return pairs


def diagnoses():
    """One-hot labels (40, 3), probabilities of three classes (40, 3), and independent scores (40, 2) with equal ones.

    No probability is 0.5 but one score, the last melanoma's: there the scorer says no, as it asks for more.
    """
    k = np.arange(40)
    labels = np.eye(3)[np.array([0, 2, 1, 2, 2, 0, 2, 1])[k % 8]]
    noise = np.stack([k * 37 % 101, k * 53 % 97, k * 71 % 103], axis=1) / 100
    raw = 0.05 + noise + 0.5 * labels
    scores = np.round(0.57 * noise[:, :2] + 0.3 * labels[:, :2], 2)
    scores[np.nonzero(labels[:, 0])[0][-1], 0] = 0.5
    return labels, raw / raw.sum(axis=1, keepdims=True), scores


def main():
    import pandas as pd
    from isic_challenge_scoring import metrics
    from isic_challenge_scoring.classification import ClassificationMetric, ClassificationScore
    from isic_challenge_scoring.confusion import create_binary_confusion_matrix

    figures = {"masks": {}}
    for name, (mask, truth) in masks().items():
        matrix = create_binary_confusion_matrix(truth > 128, mask > 128)
        measures = ("jaccard", "threshold_jaccard", "dice", "accuracy", "sensitivity", "specificity")
        figures["masks"][name] = {m: float(getattr(metrics, f"binary_{m}")(matrix)) for m in measures}
    labels, probabilities, scores = diagnoses()
    for name, values in (("probabilities", probabilities), ("scores", scores)):
        columns = list(CLASSES[: values.shape[1]])
        score = ClassificationScore(
            pd.DataFrame(labels[:, : len(columns)], columns=columns),
            pd.DataFrame(values, columns=columns),
            pd.DataFrame(1.0, index=range(len(labels)), columns=["score_weight", "validation_weight"]),
            ClassificationMetric.AUC,
        )
        figures[name] = score.to_dict(rocs=False)
        # Its forerunner of 2017 took the specificity at the first point of this curve to reach a sensitivity.
        figures[name]["specificity_at"] = {
            task: {str(s): float(1 - score.rocs[task].query(f"tpr >= {s}")["fpr"].iloc[0]) for s in (0.82, 0.89, 0.95)}
            for task in columns[:2]
        }
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
