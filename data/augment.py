"""Augmentation: one affine warp a sample, the same for an image and its mask."""

import cv2
import numpy as np


def random_affine(rng, height, width, flips=True, rotation=180.0, shift=0.1):
    """Draw a random flip, rotation and shift about the image's centre.

    Args:
        rng: `numpy.random.Generator`.
        height, width: size of the image in pixels.
        flips: flip left-right and up-down, each with probability one half.
        rotation: largest angle in degrees, either way.
        shift: largest shift as a share of the side, either way.

    Returns:
        Matrix (2, 3), float64, that takes a source pixel (x, y, 1) to its new place.
    """
    mirror = rng.choice([-1.0, 1.0], size=2) if flips else np.ones(2)
    angle = np.deg2rad(rng.uniform(-rotation, rotation))
    move = rng.uniform(-shift, shift, size=2) * (width, height)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = turn * mirror
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    return np.column_stack([linear, centre + move - linear @ centre])


def random_warp(rng, image, mask=None, **ranges):
    """Warp an image, and its mask alike, by one random affine map.

    Args:
        rng: `numpy.random.Generator`; the same state gives the same warp.
        image: array (height, width, channels), uint8.
        mask: array (height, width), uint8, or None.
        ranges: `flips`, `rotation` and `shift` of `random_affine`.

    Returns:
        Warped image and mask (None if there was none). What comes in from outside the frame is its mirror image, so
        that no black corner gives the warp away and a lesion cut by the frame stays a lesion in both.
    """
    height, width = image.shape[:2]
    matrix = random_affine(rng, height, width, **ranges)
    image = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    if mask is not None:
        mask = cv2.warpAffine(mask, matrix, (width, height), flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT_101)
    return image, mask
