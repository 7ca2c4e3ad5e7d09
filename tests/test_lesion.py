import cv2
import numpy as np
import pytest

from data.images import read_image, resize, write_image
from data.lesion import CropRule, crop_box, cut, image_view, lesion_box, lesion_mask, read_crop, without_border


def probability(shape=(32, 48), **regions):
    """Map of 0 with a value in each region, given as name=(value, rows, columns)."""
    values = np.zeros(shape, np.float32)
    for value, rows, columns in regions.values():
        values[slice(*rows), slice(*columns)] = value
    return values


def mask_of(shape, rows, columns):
    mask = np.zeros(shape, np.uint8)
    mask[slice(*rows), slice(*columns)] = 255
    return mask


LESION = (0.9, (8, 20), (10, 30))


def test_largest_component_is_kept_even_where_a_speck_is_more_probable():
    found = lesion_mask(probability(speck=(1.0, (2, 5), (40, 43)), lesion=LESION), 32, 48, 0, 0.5)
    np.testing.assert_array_equal(found, mask_of((32, 48), (8, 20), (10, 30)))
    assert found.dtype == np.uint8


def test_hole_is_filled_and_an_open_bay_is_not():
    found = lesion_mask(
        probability(lesion=LESION, hole=(0.1, (11, 15), (13, 18)), bay=(0.1, (8, 12), (22, 26))), 32, 48, 0, 0.5
    )
    expected = mask_of((32, 48), (8, 20), (10, 30))
    expected[8:12, 22:26] = 0
    np.testing.assert_array_equal(found, expected)


def test_mask_takes_the_images_own_size():
    # Three times as wide, twice as high: the edges land on whole pixels.
    found = lesion_mask(probability(lesion=LESION), 64, 144, 0, 0.5)
    # Linear growth rounds the four corners off.
    expected = mask_of((64, 144), (16, 40), (30, 90))
    assert found.shape == (64, 144)
    assert set(np.unique(found)) == {0, 255}
    assert np.count_nonzero(found != expected) <= 4
    np.testing.assert_array_equal(found[28], expected[28])
    np.testing.assert_array_equal(found[:, 60], expected[:, 60])


@pytest.mark.parametrize("value", [0.0, 0.49, np.nan])
def test_mask_is_empty_where_nothing_reaches_the_threshold(value):
    found = lesion_mask(np.full((16, 16), value), 20, 30, 2, 0.5)
    np.testing.assert_array_equal(found, np.zeros((20, 30)))


def test_pixel_at_the_threshold_belongs_to_the_lesion():
    assert lesion_mask(np.full((16, 16), 0.5), 16, 16, 0, 0.5).all()
    assert not lesion_mask(np.full((16, 16), 0.5), 16, 16, 0, 0.51).any()


def test_smoothing_takes_away_a_spike_and_bridges_a_gap():
    spike = probability(spike=(1.0, (10, 11), (10, 11)))
    assert np.count_nonzero(lesion_mask(spike, 32, 48, 0, 0.5)) == 1
    assert not lesion_mask(spike, 32, 48, 2, 0.5).any()
    # Two halves of 10 columns with a gap of one between them: apart without smoothing, one lesion with it.
    halves = probability(left=(1.0, (8, 20), (10, 20)), right=(1.0, (8, 20), (21, 31)))
    assert not lesion_mask(halves, 32, 48, 0, 0.5)[14, 20:].any()
    assert lesion_mask(halves, 32, 48, 2, 0.5)[14, 12:29].all()


# In a frame of 100 x 200 pixels.
@pytest.mark.parametrize(
    ("rows", "columns", "settings", "box"),
    [
        ((40, 60), (50, 90), {}, (40, 60, 50, 90)),
        ((40, 41), (50, 51), {}, (40, 41, 50, 51)),
        ((40, 60), (50, 90), {"margin_px": 5}, (35, 65, 45, 95)),
        ((40, 60), (50, 90), {"margin_ratio": 0.25}, (30, 70, 40, 100)),
        ((40, 60), (50, 90), {"margin_px": 5, "margin_ratio": 0.25}, (25, 75, 35, 105)),
        ((20, 80), (50, 90), {"margin_ratio": 0.1}, (14, 86, 44, 96)),
        ((4, 20), (3, 90), {"margin_px": 5}, (0, 25, 0, 95)),
        ((40, 97), (50, 196), {"margin_px": 5}, (35, 100, 45, 200)),
        ((0, 100), (0, 200), {"margin_px": 5, "square": True}, (0, 100, 0, 200)),
        ((40, 60), (50, 90), {"square": True}, (30, 70, 50, 90)),
        ((20, 80), (50, 90), {"square": True}, (20, 80, 40, 100)),
        ((40, 60), (50, 90), {"square": True, "margin_px": 5}, (25, 75, 45, 95)),
        ((0, 20), (50, 90), {"square": True}, (0, 40, 50, 90)),
        ((80, 100), (50, 90), {"square": True}, (60, 100, 50, 90)),
        ((20, 80), (190, 200), {"square": True}, (20, 80, 140, 200)),
        ((40, 60), (20, 180), {"square": True}, (0, 100, 20, 180)),
    ],
)
def test_box_with_its_margin_stays_within_the_image(rows, columns, settings, box):
    assert lesion_box(mask_of((100, 200), rows, columns), **settings) == box


def test_box_spans_all_parts_of_the_mask():
    mask = mask_of((100, 200), (10, 20), (30, 40)) | mask_of((100, 200), (70, 75), (150, 160))
    assert lesion_box(mask) == (10, 75, 30, 160)
    assert lesion_box(mask // 255) == (10, 75, 30, 160)


@pytest.mark.parametrize("square", [False, True])
def test_box_of_an_empty_mask_is_the_whole_frame(square):
    assert lesion_box(np.zeros((100, 200), np.uint8), 55, 0.1, square) == (0, 100, 0, 200)


@pytest.fixture(scope="module")
def photograph(tmp_path_factory):
    """A large JPEG file: smooth colours under a texture of a few pixels."""
    rng = np.random.default_rng(0)
    coarse = cv2.resize(rng.uniform(60, 200, (8, 10, 3)).astype(np.float32), (2000, 1500))
    fine = cv2.resize(rng.normal(0, 6, (375, 500)).astype(np.float32), (2000, 1500))[..., np.newaxis]
    path = tmp_path_factory.mktemp("photograph") / "photograph.jpg"
    write_image(path, np.clip(coarse + fine, 0, 255).astype(np.uint8))
    return path


@pytest.mark.parametrize(
    "box",
    [(0, 1500, 0, 2000), (301, 1303, 403, 1707), (333, 1500, 777, 2000), (3, 1499, 1001, 1403), (700, 901, 950, 1177)],
)
@pytest.mark.parametrize("size", [48, 100, 224])
def test_crop_is_close_to_the_one_cut_from_the_fully_decoded_image(photograph, box, size):
    top, bottom, left, right = box
    exact = resize(read_image(photograph)[top:bottom, left:right], size, size)
    crop = read_crop(photograph, box, size)
    assert crop.shape == (size, size, 3)
    assert crop.dtype == np.uint8
    assert np.abs(crop.astype(float) - exact).mean() < 1


def test_crop_of_a_small_image_is_exact(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    write_image(tmp_path / "image.png", image)
    np.testing.assert_array_equal(read_crop(tmp_path / "image.png", (10, 42, 30, 62), 32), image[10:42, 30:62])


@pytest.mark.parametrize("box", [(301, 1203, 403, 1507), (700, 901, 950, 1177)])
def test_border_surrounds_the_same_crop(photograph, box):
    size, border = 100, 25
    crop = read_crop(photograph, box, size, border)
    assert crop.shape == (150, 150, 3)
    top, bottom, left, right = box
    high, wide = (bottom - top) // 4, (right - left) // 4
    around = (slice(top - high, bottom + high), slice(left - wide, right + wide))
    exact = resize(read_image(photograph)[around], 150, 150).astype(float)
    assert np.abs(crop - exact).mean() < 1.5  # the border of the exact one is rounded to whole pixels
    inner = without_border(crop, size)
    assert np.abs(inner.astype(float) - read_crop(photograph, box, size)).mean() < 1.5


def test_border_beyond_the_frame_is_its_mirror_image(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    write_image(tmp_path / "image.png", image)
    crop = read_crop(tmp_path / "image.png", (0, 32, 0, 32), 32, border=8)
    np.testing.assert_array_equal(crop, np.pad(image, ((8, 8), (8, 8), (0, 0)), mode="reflect"))
    np.testing.assert_array_equal(without_border(crop, 32), image)


@pytest.mark.parametrize("border", [0, 48])
@pytest.mark.parametrize("side", [185, 190, 192, 200])
def test_lines_of_two_pixels_are_still_there_in_a_crop_of_about_their_size(tmp_path, side, border):
    lines = np.tile(np.repeat(np.array([0, 255], np.uint8), 2), 128)
    write_image(tmp_path / "image.png", np.repeat(np.tile(lines, (512, 1))[..., np.newaxis], 3, axis=-1))
    crop = read_crop(tmp_path / "image.png", (151, 151 + side, 161, 161 + side), 192, border)[..., 0].astype(int)
    windows = np.lib.stride_tricks.sliding_window_view(crop, 5, axis=1)  # a period of the lines, and a pixel more
    assert (windows.max(axis=-1) - windows.min(axis=-1)).min() > 0.9 * 255


@pytest.mark.parametrize("box", [(0, 12, 0, 20), (3, 5, 17, 19), (11, 12, 0, 1)])
def test_border_larger_than_the_image_is_mirrored_again_and_again(tmp_path, box):
    image = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    write_image(tmp_path / "image.png", image)
    top, bottom, left, right = box
    around = [(30 - top, 30 - (12 - bottom)), (30 - left, 30 - (20 - right)), (0, 0)]
    found = cut(image, top - 30, bottom + 30, left - 30, right + 30)
    np.testing.assert_array_equal(found, np.pad(image, around, mode="reflect"))
    crop = read_crop(tmp_path / "image.png", box, 10, border=15)
    assert crop.shape == (40, 40, 3)


RULE = CropRule(size=40, margin_px=5, margin_ratio=0.1, square=True, border=0.25)


def test_box_follows_the_rule_and_is_the_whole_frame_without_a_mask():
    mask = mask_of((100, 200), (40, 60), (50, 90))
    assert crop_box(mask, (100, 200), RULE) == lesion_box(mask, margin_px=5, margin_ratio=0.1, square=True)
    assert crop_box(None, (100, 200), RULE) == (0, 100, 0, 200)


def test_view_of_an_image_is_smaller_and_has_the_crop_of_the_file(photograph, tmp_path):
    mask = mask_of((1500, 2000), (400, 900), (500, 1300))
    view = image_view(photograph, mask, RULE, shorter_side=300)
    assert view.image.shape == (300, 400, 3)
    assert view.scale == 0.2
    assert np.abs(view.image.astype(float) - resize(read_image(photograph), 300, 400)).mean() < 2
    np.testing.assert_array_equal(view.mask, mask_of((300, 400), (80, 180), (100, 260)))
    assert view.box == lesion_box(mask, margin_px=5, margin_ratio=0.1, square=True)
    np.testing.assert_array_equal(view.crop, without_border(read_crop(photograph, view.box, 40, border=10), 40))
    crop = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    write_image(tmp_path / "crop.png", crop)
    again = image_view(photograph, mask, RULE, shorter_side=300, crop_file=tmp_path / "crop.png")
    np.testing.assert_array_equal(again.crop, crop[10:50, 10:50])


def test_view_of_a_small_image_is_not_enlarged(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    write_image(tmp_path / "image.png", image)
    view = image_view(tmp_path / "image.png", None, RULE, shorter_side=300)
    np.testing.assert_array_equal(view.image, image)
    assert (view.scale, view.mask, view.box) == (1, None, (0, 60, 0, 80))
