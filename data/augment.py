"""Augmentation: each sample gets one affine warp of image and mask, and one change of the image's colours."""

from math import ceil

import cv2
import numpy as np


def random_affine(rng, height, width, flips=True, rotation=180.0, shift=0.1, zoom=0.0):
    """Draw a random flip, rotation, zoom and shift about the image's centre.

    Args:
        rng: `numpy.random.Generator`.
        height, width: size of the image in pixels.
        flips: flip left-right and up-down, each with probability one half.
        rotation: largest angle in degrees, either way.
        shift: largest shift as a share of the side, either way.
        zoom: factors lie between 1 / (1 + zoom) and 1 + zoom, uniformly on a logarithmic scale.

    Returns:
        Matrix (2, 3), float64, that maps a source pixel (x, y, 1) to its new place.
    """
    mirror = rng.choice([-1.0, 1.0], size=2) if flips else np.ones(2)
    angle = np.deg2rad(rng.uniform(-rotation, rotation))
    move = rng.uniform(-shift, shift, size=2) * (width, height)
    scale = (1 + zoom) ** rng.uniform(-1, 1)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = scale * turn * mirror
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    return np.column_stack([linear, centre + move - linear @ centre])


def random_warp(rng, image, mask=None, border=0, **ranges):
    """Warp an image and its mask by one random affine map.

    Args:
        rng: `numpy.random.Generator`; the same state gives the same warp.
        image: array (height, width, channels), uint8.
        mask: array (height, width), uint8, or None.
        border: pixels of context on each side. The warp can move them into the frame; the result has no border.
        **ranges: `flips`, `rotation`, `shift` and `zoom` of `random_affine`.

    Returns:
        Warped image and mask (None if there was none). Pixels from outside the frame are its mirror image. So there are
        no black corners, and a lesion that is cut by the frame continues in image and mask.
    """
    height, width = (side - 2 * border for side in image.shape[:2])
    matrix = random_affine(rng, height, width, **ranges)
    matrix[:, 2] -= matrix[:, :2] @ (border, border)
    image = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    if mask is not None:
        mask = cv2.warpAffine(mask, matrix, (width, height), flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT_101)
    return image, mask


def random_colors(rng, image, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0):
    """Change an image's colours by random amounts.

    Args:
        rng: `numpy.random.Generator`.
        image: RGB array (height, width, 3), uint8.
        brightness, contrast, saturation: each draws a factor between 1 minus and 1 plus this value. Brightness
            multiplies every value, contrast the distance of a value from the image's mean grey, and saturation its
            distance from the grey of the pixel.
        hue: largest rotation of the colours about the grey axis in degrees, in both directions.

    Returns:
        RGB array of the same shape, uint8, cut off at 0 and 255.
    """
    brighter, starker, richer = 1 + rng.uniform(-1, 1, size=3) * (brightness, contrast, saturation)
    angle = np.deg2rad(rng.uniform(-hue, hue))
    # All four are affine maps of (R, G, B), so one pass over the pixels is enough.
    grey = np.full((3, 3), 1 / 3)
    axis = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)  # cross product with the grey axis
    turn = grey + np.cos(angle) * (np.eye(3) - grey) + np.sin(angle) * axis  # Rodrigues' formula
    linear = brighter * starker * (grey + richer * (np.eye(3) - grey)) @ turn
    middle = brighter * (1 - starker) * np.mean(cv2.mean(image)[:3])
    changed = cv2.transform(image.astype(np.float32), np.column_stack([linear, np.full(3, middle)]))
    return np.rint(changed).clip(0, 255).astype(np.uint8)


def random_blur(rng, image, blur):
    """With probability one half, take fine detail out of an image: shrink it, and enlarge it again.

    Args:
        rng: `numpy.random.Generator`.
        image: array (height, width, channels), uint8.
        blur: the factor lies between 1 and 1 + blur, uniformly on a logarithmic scale.

    Returns:
        Array of the same shape, uint8.
    """
    factor = (1 + blur) ** rng.random()
    if rng.random() < 0.5:
        return image
    height, width = image.shape[:2]
    small = cv2.resize(image, (ceil(width / factor), ceil(height / factor)), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def random_cutout(rng, image, side):
    """With probability one half, paint over a square of an image.

    Source: DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", 2017,
    https://arxiv.org/abs/1708.04552.

    Args:
        rng: `numpy.random.Generator`.
        image: array (height, width, channels), uint8. It is changed in place.
        side: side of the square, as a share of the image's shorter side. Its centre may be anywhere in the image.

    Returns:
        The image. The square has its mean colour.
    """
    height, width = image.shape[:2]
    half = round(side * min(height, width) / 2)
    y, x = rng.integers(height), rng.integers(width)
    if half and rng.random() < 0.5:
        image[max(0, y - half) : y + half, max(0, x - half) : x + half] = np.rint(cv2.mean(image)[: image.shape[2]])
    return image


def random_view(rng, image, mask=None, *, border=0, ranges=None, blur=0.0, colors=None, cutout=0.0):
    """Augment a sample: `random_warp`, then `random_blur`, `random_colors` and `random_cutout` of the image.

    Args:
        rng: `numpy.random.Generator`; the same state gives the same result.
        image: RGB array (height, width, 3), uint8.
        mask: array (height, width), uint8, or None.
        border: see `random_warp`.
        ranges: dictionary of arguments of `random_affine`.
        blur: see `random_blur`.
        colors: dictionary of arguments of `random_colors`. If all are 0, the colours do not change.
        cutout: see `random_cutout`.

    Returns:
        Image (without its border) and mask (None if there was none).
    """
    image, mask = random_warp(rng, image, mask, border, **(ranges or {}))
    if blur:
        image = random_blur(rng, image, blur)
    if any((colors or {}).values()):
        image = random_colors(rng, image, **colors)
    return random_cutout(rng, image, cutout) if cutout else image, mask
