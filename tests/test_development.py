"""The recipes of docs/development.md, followed to the letter on a copy of the code."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from data.classes import ISIC_2017 as CLASSES
from data.images import write_image
from tests.conftest import REPOSITORY
from tests.test_rooms import ROOMS

NAMES = "abcdefghijkl"
PAGE = (REPOSITORY / "docs/development.md").read_text(encoding="utf-8")
# What the changed code says of itself, in one process, as TensorFlow takes seconds to start.
ASK = """
import json
import sys
from dataclasses import replace

import numpy as np

import seg_train
import training
from config import PRESETS
from data.classes import ISIC_2017
from evaluation.metrics import diagnosis_metrics, resampled_metrics
from pipeline import inputs
from pipeline.settings import affects, parse_args

options = ["--preset", "sample", "--backbones", "xception", "mobilenet_v2", "--backbone-name", "mobilenet_v2"]
config = parse_args("", options=[*options, "--image-size", "32", "--extra-data-dir", sys.argv[1]])
plain = training.build_classifier(config)
network = training.PriorCorrected(plain.input, plain.output, name=plain.name)
training.compile_network(network, config)
network.run_eagerly = True  # a graph would take longer to build
rng = np.random.default_rng(0)
crops, labels = rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8), np.eye(3)[[0, 1, 2, 2]]
loss = network.train_on_batch(crops, labels)[0]

decayed, plain = (seg_train.compiled_unet(replace(config, unet_weight_decay=decay)) for decay in (0.25, 0.0))

focal = seg_train.compiled_unet(replace(config, unet_loss="focal")).loss
mask = np.zeros((2, 4, 4, 1), np.float32)
mask[0, :2] = 1

scores = rng.dirichlet(np.ones(3), 4)
resampled = resampled_metrics(labels, scores, np.ones((1, 4)), ISIC_2017)

images, _ = inputs.images(config, "extra")
print(json.dumps({
    "backbones": config.backbones,
    "network": network.name,
    "gates": sum("_se" in layer.name for layer in network.layers),
    "loss": float(loss),
    "decay": [decayed.optimizer.weight_decay, plain.optimizer.weight_decay],
    "losses": [float(loss) for loss in focal(mask, (mask + mask[::-1]) / 2)],
    "counts": [affects("unet_weight_decay", "unet"), affects("unet_weight_decay", "classifier")],
    "figures": diagnosis_metrics(labels, scores, ISIC_2017),
    "resampled": {name: float(values[0]) for name, values in resampled.items()},
    "labels": inputs.labels(config, "extra", images).tolist(),
}))
"""


def blocks():
    """The changes on the page: for each whether the file is new, its name, and the lines."""
    for block in re.findall(r"^```diff\n(.*?)^```", PAGE, re.M | re.S):
        yield from re.findall(r"^(---|\+\+\+) (\S+)\n((?:(?!--- |\+\+\+ ).*\n)+)", block, re.M)


def without_signs(lines):
    return re.sub(r"^[-+ ]", "", lines, flags=re.M)


def follow(folder):
    """Make all changes; lines that go or stay name the place of those that come."""
    for sign, name, lines in blocks():
        if sign == "+++":
            assert not (folder / name).exists()
            (folder / name).write_text(without_signs(lines))
            continue
        text = (folder / name).read_text(encoding="utf-8")
        for before, added in re.findall(r"((?:^[- ].*\n)+)((?:^\+.*\n)+)", lines, re.M):
            assert text.count(without_signs(before)) == 1, f"{name} does not hold this once:\n{before}"
            text = text.replace(without_signs(before), without_signs(re.sub(r"^-.*\n", "", before, flags=re.M) + added))
        (folder / name).write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Function that runs Python in a copy of the code in which all recipes were followed."""
    folder = tmp_path_factory.mktemp("developed")
    for path in (path for room in (".", *ROOMS) for path in (REPOSITORY / room).glob("*.py")):
        (folder / path.relative_to(REPOSITORY)).parent.mkdir(exist_ok=True)
        shutil.copy(path, folder / path.relative_to(REPOSITORY))
    follow(folder)

    def run(*arguments):
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)

    return run


@pytest.fixture(scope="module")
def clinic(tmp_path_factory):
    """The new data set: a dozen photos."""
    folder = tmp_path_factory.mktemp("clinic")
    for name in NAMES:
        write_image(folder / "photos" / f"{name}.jpg", np.full((40, 60, 3), 128, np.uint8))
    table = {"image_id": list(NAMES), "diagnosis": CLASSES * 4}
    pd.DataFrame(table).to_csv(folder / "diagnoses.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def found(python, clinic):
    prepared = python("-m", "data.prepare", "clinic", clinic)
    assert prepared.returncode == 0, prepared.stderr
    result = python("-c", ASK, clinic)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_a_backbone_is_taken_by_the_command_line_and_trains(found):
    assert found["backbones"] == ["xception", "mobilenet_v2"]
    assert found["network"] == "mobilenet_v2"
    assert found["gates"] == 5
    assert 0 < found["loss"] < 10


def test_a_setting_is_explained_bounded_and_used(python, found):
    page = " ".join(python("seg_train.py", "--help").stdout.replace("│", " ").split())
    assert "--unet-weight-decay" in page
    assert "Decoupled weight decay of the U-Net (AdamW); 0 is Adam." in page
    refused = python("seg_train.py", "--unet-weight-decay", -1)
    sentence = "seg_train.py: error: unet_weight_decay = -1.0: it must be >= 0\n"
    assert (refused.returncode, refused.stderr) == (2, sentence)
    assert found["decay"] == [0.25, None]
    assert found["counts"] == [True, False]


def test_a_loss_of_the_unet_is_one_figure_an_image(python, found):
    # Half of the pixels have a probability of 0.5, in an image with and in one without a lesion; the others are right.
    assert found["losses"] == pytest.approx([np.log(2) * 0.5**2 / 2] * 2, abs=1e-4)
    assert "focal" in python("seg_train.py", "--help").stdout


def test_a_data_set_is_read_by_the_stages_and_a_setting_is_kept(python, found, clinic, tiny_sample, tmp_path):
    assert found["labels"] == np.eye(3)[[0, 1, 2] * 4].tolist()
    options = ["--preset", "sample", "--data-dir", tiny_sample, "--splits", "validation", "--masks", "none"]
    options += ["--extra-data-dir", clinic, "--run-dir", tmp_path, "--unet-weight-decay", 0.5]
    result = python("resize.py", *options)
    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in (tmp_path / "crops/extra").glob("*.png")) == [f"{name}.png" for name in NAMES]
    assert json.loads((tmp_path / "config.json").read_text())["unet_weight_decay"] == 0.5


def test_a_figure_of_merit_stands_in_the_tables_with_its_interval(python, found, tmp_path):
    ours = {name: value for name, value in found["figures"].items() if name.endswith("negative_predictive_value")}
    assert len(ours) == 6
    for name, value in ours.items():
        assert found["resampled"][name] == pytest.approx(np.nan if value is None else value, nan_ok=True)
    rng = np.random.default_rng(1)
    ids, classes = [f"ISIC_{k:07}" for k in range(40)], rng.integers(0, 3, 40)
    truth = pd.DataFrame({"image_id": ids, **{name: (classes == k) * 1.0 for k, name in enumerate(CLASSES[:2])}})
    scores = rng.dirichlet(np.ones(3), 40)
    truth.to_csv(tmp_path / "truth.csv", index=False)
    pd.DataFrame({"image_id": ids, **dict(zip(CLASSES, scores.T, strict=True))}).to_csv(tmp_path / "p.csv", index=False)
    result = python("evaluate.py", tmp_path / "p.csv", "--labels", tmp_path / "truth.csv", "--output", tmp_path)
    assert result.returncode == 0, result.stderr
    (measured,) = json.loads((tmp_path / "evaluation.json").read_text()).values()
    expected = (classes != 0)[scores[:, 0] <= 0.5].mean()
    assert measured["methods"]["p"]["melanoma.threshold.negative_predictive_value"] == pytest.approx(expected)
    low, high = measured["intervals"]["p"]["melanoma.threshold.negative_predictive_value"]
    assert low < expected < high
    assert f"{expected:.3f} [{low:.3f}, {high:.3f}]" in result.stdout
    assert "| precision | negative_predictive_value | f1 |" in result.stdout
