"""The README's pictures are drawn from any finished run."""

from dataclasses import replace

import cv2
import numpy as np
from PIL import Image

import vote
from config import PRESETS
from data.isic2017 import image_paths
from evaluation.plots import curves, save
from tests.test_stages import fails


def test_pictures_are_drawn_of_the_image_that_is_asked_for(run_script, finished, tiny_sample, tmp_path):
    command = ["docs/pictures.py", "--run-dir", finished, "--data-dir", tiny_sample, "--output", tmp_path]
    assert fails(run_script(*command, "--image-id", "ISIC_9999999"), "ISIC_9999999", "test images", "--image-id")
    assert not list(tmp_path.iterdir())
    image_id, *_ = image_paths(tiny_sample, "test")
    result = run_script(*command, "--image-id", image_id)
    assert result.returncode == 0, result.stderr
    for name, width in (("two_stages.jpg", 1600), ("roc.png", 1000)):
        file = tmp_path / name
        assert file.stat().st_size < 400_000
        with Image.open(file) as picture:
            assert abs(picture.width - width) < 200
            assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    blue, green, red = cv2.imread(str(tmp_path / "two_stages.jpg")).reshape(-1, 3).T
    assert ((red > 230) & (green > 200) & (blue < 60)).any(), "the box is not drawn"


def test_the_curves_of_a_split_leave_out_what_was_fitted_on_it(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(vote, "curves", lambda kind, labels, methods: drawn.append(set(methods)))
    monkeypatch.setattr(vote, "training_curves", lambda histories: None)
    monkeypatch.setattr(vote, "save", lambda figure, path: None)
    methods = dict.fromkeys(("resnet50", "mean", "vote", "vote_on_validation"), np.eye(3))
    splits = ("training", "validation", "test")
    vote.draw(
        replace(PRESETS["sample"], run_dir=tmp_path), dict.fromkeys(splits, np.eye(3)), dict.fromkeys(splits, methods)
    )
    assert drawn == [methods.keys() - {"vote_on_validation"}, set(methods)], "of training all would be in-sample"


def test_many_methods_have_a_line_of_their_own_each_and_a_legend_that_is_not_cut_off(tmp_path):
    labels = np.eye(3)[np.arange(12) % 3]
    figure = curves("roc", labels, {name: labels for name in (*map(str, range(14)), "mean", "vote")})
    looks = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(looks) == 1 + 16
    save(figure, tmp_path / "roc.png")
    picture = cv2.imread(str(tmp_path / "roc.png"), cv2.IMREAD_GRAYSCALE)
    assert len(picture) > figure.get_size_inches()[1] * 120, "the legend does not fit into the figure"
    assert (picture[-5:] > 200).all()
