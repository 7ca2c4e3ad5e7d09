from collections import Counter

import cv2
import numpy as np
import pytest

from data.augment import random_affine, random_warp

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
