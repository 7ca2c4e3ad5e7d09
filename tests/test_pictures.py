"""The README's pictures are drawn from any finished run."""

import cv2
from PIL import Image

from data.official import OfficialFolders
from tests.test_stages import fails


def test_pictures_are_drawn_of_the_image_that_is_asked_for(run_script, finished, tiny_sample, tmp_path):
    command = ["docs/pictures.py", "--run-dir", finished, "--data-dir", tiny_sample, "--output", tmp_path]
    assert fails(run_script(*command, "--image-id", "ISIC_9999999"), "ISIC_9999999", "test images", "--image-id")
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
