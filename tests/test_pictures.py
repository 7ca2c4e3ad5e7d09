"""The README's pictures are drawn from any finished run."""

import runpy
from dataclasses import replace

import cv2
import numpy as np
from PIL import Image

from data.lesion import ImageView
from data.official import OfficialFolders
from tests.conftest import REPOSITORY
from tests.test_stages import fails


def test_pictures_are_drawn_of_the_image_that_is_asked_for(run_script, finished, tiny_sample, tmp_path):
    command = ["docs/pictures.py", "--run-dir", finished, "--data-dir", tiny_sample, "--output", tmp_path]
    assert fails(
        run_script(*command, "--image-id", "ISIC_9999999"), "ISIC_9999999", "no labelled test image", "--image-id"
    )
    assert not list(tmp_path.iterdir())
    image_id, *_ = OfficialFolders(tiny_sample).images("test")
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


def test_the_share_of_a_map_on_the_lesion():
    share_on_lesion = runpy.run_path(str(REPOSITORY / "docs" / "pictures.py"))["share_on_lesion"]
    mask = np.zeros((40, 60), np.uint8)
    mask[10:20, 20:40] = 255  # the upper half of the box
    image = np.zeros((40, 60, 3), np.uint8)
    view = ImageView(image, 0.5, mask, (20, 60, 40, 80), image[:10, :10])
    heat = np.zeros((10, 10))
    heat[:5] = 0.75
    heat[5:] = 0.25
    assert share_on_lesion(view, heat) == 0.75
    assert share_on_lesion(view, np.zeros((10, 10))) == 0
    assert share_on_lesion(replace(view, mask=None), heat) == 0
