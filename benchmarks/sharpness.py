"""Measure how well sharpness separates the training crops from the further ones: images with fewer pixels are blurrier.

    python benchmarks/sharpness.py runs/fine_tuned_ham_classify

It reads crops/training and crops/extra of a run folder, and prints three AUCs of a logistic regression on the log
energy of four octaves of the grey crops: of the crops as they are, after the random warps of training, and after warps
and `augment_blur` 1. An AUC of 0.5 means that it does not separate them.
"""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data.augment import random_view

if len(sys.argv) != 2 or not Path(sys.argv[1], "config.json").is_file():
    sys.exit(__doc__)
RUN_DIR = Path(sys.argv[1])
SETTINGS = json.loads((RUN_DIR / "config.json").read_text())
RANGES = {name: SETTINGS[f"augment_{name}"] for name in ("flips", "rotation", "shift", "zoom")}
CROPS = 600  # of each of the two sets


def octaves(image):
    """Log energy of the four finest octaves of a picture (height, width, 3): array (4,)."""
    grey, energies = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float32), []
    for _ in range(4):
        smaller = cv2.pyrDown(grey)
        energies.append(np.log(np.var(grey - cv2.pyrUp(smaller, dstsize=grey.shape[::-1])) + 1e-3))
        grey = smaller
    return np.array(energies)


def features(folder, view):
    """Octaves of `CROPS` random crops of a folder, after `view` (rng, crop): array (CROPS, 4)."""
    files = np.random.default_rng(0).permutation(sorted(folder.glob("*.png")))[:CROPS]
    return np.array([octaves(view(np.random.default_rng(i), cv2.imread(str(file)))) for i, file in enumerate(files)])


def border(crop):
    return (crop.shape[0] - SETTINGS["image_size"]) // 2


def middle(rng, crop):
    """The crop without its border, as in prediction."""
    edge = border(crop)
    return crop[edge : crop.shape[0] - edge, edge : crop.shape[1] - edge]


def augmented(blur):
    return lambda rng, crop: random_view(rng, crop, border=border(crop), ranges=RANGES, blur=blur)[0]


print(f"AUC of {CROPS} training crops against {CROPS} further crops of {RUN_DIR}, out of five folds:")
for name, view in {"as they are": middle, "random warps": augmented(0.0), "warps and blur 1": augmented(1.0)}.items():
    sets = [features(RUN_DIR / "crops" / split, view) for split in ("training", "extra")]
    further = np.repeat([0, 1], list(map(len, sets)))
    scores = cross_val_predict(LogisticRegression(), np.concatenate(sets), further, cv=5, method="decision_function")
    print(f"{name:18} {roc_auc_score(further, scores):.2f}")
