from collections import Counter

import cv2
import numpy as np
import pytest

from data.augment import random_affine, random_blur, random_colors, random_cutout, random_view, random_warp

HEIGHT, WIDTH = 80, 120
CENTRE = np.array([59.5, 39.5])


def matrices(count=200, **ranges):
    rng = np.random.default_rng(0)
    return np.array([random_affine(rng, HEIGHT, WIDTH, **ranges) for _ in range(count)])


def textured_image():
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def lopsided_mask():
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[20:60, 30:50] = 255
    mask[45:60, 50:90] = 255
    return mask


def test_same_seed_gives_the_same_warp_and_another_seed_another():
    image, mask = textured_image(), lopsided_mask()
    first, again, other = (random_warp(np.random.default_rng(seed), image, mask) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[0] != other[0]).mean() > 0.5
    assert (first[1] != other[1]).mean() > 0.05


@pytest.mark.parametrize("seed", range(5))
def test_image_and_mask_get_the_same_map(seed):
    mask = lopsided_mask()
    image, warped = random_warp(np.random.default_rng(seed), np.dstack([mask] * 3), mask)
    # Where the interpolated image is neither black nor white, an edge passes and the nearest pixel decides.
    certain = (image[..., 0] == 0) | (image[..., 0] == 255)
    assert certain.mean() > 0.9
    np.testing.assert_array_equal(image[..., 0][certain], warped[certain])


@pytest.mark.parametrize("seed", range(5))
def test_warp_takes_a_spot_to_where_the_matrix_says(seed):
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    cv2.circle(image, (70, 30), 4, (255, 255, 255), cv2.FILLED)
    warped, _ = random_warp(np.random.default_rng(seed), image, shift=0.05)
    matrix = random_affine(np.random.default_rng(seed), HEIGHT, WIDTH, shift=0.05)
    moments = cv2.moments(warped[..., 0])
    centroid = moments["m10"] / moments["m00"], moments["m01"] / moments["m00"]
    np.testing.assert_allclose(centroid, matrix @ (70, 30, 1), atol=0.3)


def test_nothing_changes_when_all_is_switched_off():
    image, mask = textured_image(), lopsided_mask()
    warped, warped_mask = random_warp(np.random.default_rng(0), image, mask, flips=False, rotation=0, shift=0)
    np.testing.assert_array_equal(warped, image)
    np.testing.assert_array_equal(warped_mask, mask)


def test_flip_left_right_mirrors_the_pixels_exactly():
    image = textured_image()
    results = [random_warp(np.random.default_rng(seed), image, rotation=0, shift=0)[0].tobytes() for seed in range(20)]
    mirrored = [image, image[:, ::-1], image[::-1], image[::-1, ::-1]]
    assert set(results) == {flipped.tobytes() for flipped in mirrored}


def test_both_flips_happen_half_of_the_time_and_independently():
    signs = Counter(tuple(np.sign(np.diag(matrix[:, :2]))) for matrix in matrices(400, rotation=0, shift=0))
    assert set(signs) == {(1, 1), (1, -1), (-1, 1), (-1, -1)}
    assert all(70 < count < 130 for count in signs.values())


def test_rotation_and_flips_keep_the_centre():
    for matrix in matrices(shift=0):
        np.testing.assert_allclose(matrix @ (*CENTRE, 1), CENTRE, atol=1e-9)


@pytest.mark.parametrize("rotation", [30, 180])
def test_rotation_fills_its_range_either_way_and_stays_within(rotation):
    drawn = matrices(flips=False, rotation=rotation)
    angles = np.rad2deg(np.arctan2(drawn[:, 1, 0], drawn[:, 0, 0]))
    assert np.abs(angles).max() <= rotation
    assert angles.min() < -0.9 * rotation
    assert angles.max() > 0.9 * rotation


def test_shift_is_a_share_of_each_side():
    x, y = matrices(flips=False, rotation=0, shift=0.1)[:, :, 2].T
    for shifts, limit in ((x, 12), (y, 8)):
        assert np.abs(shifts).max() <= limit
        assert shifts.min() < -0.9 * limit
        assert shifts.max() > 0.9 * limit


def test_map_neither_scales_nor_shears():
    linear = matrices()[:, :, :2]
    np.testing.assert_allclose(linear @ linear.transpose(0, 2, 1), np.tile(np.eye(2), (200, 1, 1)), atol=1e-12)
    assert set(np.round(np.linalg.det(linear), 9)) == {1, -1}


def test_type_shape_and_binary_mask_are_kept():
    image, mask = random_warp(np.random.default_rng(0), textured_image(), lopsided_mask())
    assert (image.dtype, image.shape) == (np.uint8, (HEIGHT, WIDTH, 3))
    assert (mask.dtype, mask.shape) == (np.uint8, (HEIGHT, WIDTH))
    assert set(np.unique(mask)) == {0, 255}
    assert random_warp(np.random.default_rng(0), textured_image())[1] is None


def test_what_comes_in_from_outside_is_not_black():
    image = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
    mask = np.full((HEIGHT, WIDTH), 255, np.uint8)
    for seed in range(10):
        warped, warped_mask = random_warp(np.random.default_rng(seed), image, mask, shift=0.3)
        assert (warped == 200).all()
        assert (warped_mask == 255).all()


def test_zoom_scales_by_its_range_either_way_alike():
    linear = matrices(400, flips=False, rotation=0, shift=0, zoom=0.25)[:, 0, 0]
    assert linear.min() == pytest.approx(0.8, abs=0.01)
    assert linear.max() == pytest.approx(1.25, abs=0.01)
    assert abs(np.log(linear).mean()) < 0.03
    for matrix in matrices(shift=0, zoom=0.25):
        np.testing.assert_allclose(matrix @ (*CENTRE, 1), CENTRE, atol=1e-9)


def test_border_is_what_the_warp_draws_on_and_is_cut_off():
    whole = textured_image()
    inner, border = whole[10:-10, 10:-10], 10
    plain = {"flips": False, "rotation": 0, "shift": 0}
    np.testing.assert_array_equal(random_warp(np.random.default_rng(0), whole, border=border, **plain)[0], inner)
    # A shift of less than the border brings in what lies there, not a mirror image.
    rng = np.random.default_rng(1)
    matrix = random_affine(np.random.default_rng(1), *inner.shape[:2], flips=False, rotation=0, shift=0.1)
    x, y = matrix[:, 2]
    shifted, _ = random_warp(rng, whole, border=border, flips=False, rotation=0, shift=0.1)
    by_hand = cv2.warpAffine(whole, np.array([[1, 0, x], [0, 1, y]]), whole.shape[1::-1])[10:-10, 10:-10]
    np.testing.assert_allclose(shifted.astype(int), by_hand.astype(int), atol=8)  # OpenCV's weights have five bits
    assert shifted.shape == inner.shape


def test_colors_stay_as_they_are_when_all_is_switched_off():
    image = textured_image()
    np.testing.assert_array_equal(random_colors(np.random.default_rng(0), image), image)


def mild_image():
    """Colours so far from 0 and 255 that nothing is cut off."""
    return np.random.default_rng(0).integers(100, 150, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("what", "measure"),
    [
        ("brightness", lambda image: image.mean()),
        ("contrast", lambda image: image.mean(axis=2).std()),
        ("saturation", lambda image: (image - image.mean(axis=2, keepdims=True)).std()),
    ],
)
def test_each_colour_change_scales_what_its_name_says_within_its_range(what, measure):
    image = mild_image().astype(float)
    factors = []
    for seed in range(100):
        changed = random_colors(np.random.default_rng(seed), mild_image(), **{what: 0.2}).astype(float)
        factors.append(measure(changed) / measure(image))
    assert 0.79 < min(factors) < 0.83
    assert 1.17 < max(factors) < 1.21


def test_hue_turns_the_colours_and_keeps_the_grey():
    image = mild_image()
    third = np.clip(image.astype(int)[..., [2, 0, 1]], 0, 255)  # a turn by 120 degrees swaps the channels round
    found = set()
    for seed in range(300):
        changed = random_colors(np.random.default_rng(seed), image, hue=121.0).astype(int)
        np.testing.assert_allclose(changed.mean(axis=2), image.mean(axis=2), atol=1)
        found.add(int(np.abs(changed - third).max()))
    assert min(found) <= 2


def test_blur_moves_nothing():
    ramp = np.repeat(np.tile(np.arange(10, 250, 4, dtype=np.uint8), (60, 1))[..., None], 3, axis=2)
    for seed in range(20):
        blurred = random_blur(np.random.default_rng(seed), ramp, 1.0).astype(int)
        assert np.abs(blurred - ramp)[:, 4:-4].max() <= 1, seed
        turned = random_blur(np.random.default_rng(seed), ramp.transpose(1, 0, 2), 1.0).astype(int)
        assert np.abs(turned - ramp.transpose(1, 0, 2))[4:-4].max() <= 1, seed


def test_blur_takes_fine_detail_out_of_half_of_the_images_and_leaves_coarse_structure():
    stripes, halves = np.zeros((2, HEIGHT, WIDTH, 3), np.uint8)
    stripes[:, ::2] = 200
    halves[:, WIDTH // 2 :] = 200
    contrast = []
    for seed in range(200):
        fine, coarse = (random_blur(np.random.default_rng(seed), image, 1.0) for image in (stripes, halves))
        contrast.append(fine.std() / stripes.std())
        np.testing.assert_array_equal(coarse[:, [4, -5]], halves[:, [4, -5]])
    assert 70 < sum(value == 1 for value in contrast) < 130
    assert min(contrast) < 0.2


def test_cutout_paints_a_square_in_half_of_the_images():
    painted = []
    for seed in range(200):
        image = textured_image()
        before = image.copy()
        changed = (random_cutout(np.random.default_rng(seed), image, 0.5) != before).any(axis=2)
        if changed.any():
            rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
            assert changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].mean() > 0.98
            painted.append((len(rows), len(columns)))
    assert 70 < len(painted) < 130
    assert np.max(painted, axis=0).tolist() == [40, 40]


def test_a_view_is_a_function_of_its_seed_and_leaves_the_mask_its_values():
    options = {
        "ranges": {"zoom": 0.2},
        "blur": 1.0,
        "colors": {"brightness": 0.2, "hue": 10.0},
        "cutout": 0.4,
        "border": 4,
    }
    views = [random_view(np.random.default_rng(1), textured_image(), lopsided_mask(), **options) for _ in range(2)]
    np.testing.assert_array_equal(views[0][0], views[1][0])
    assert views[0][0].shape == (HEIGHT - 8, WIDTH - 8, 3)
    assert set(np.unique(views[0][1])) == {0, 255}
