"""Compute the lesion's mask, box and crop from a probability map."""

from dataclasses import dataclass

import cv2
import numpy as np

from data.images import image_size, read_image, resize


@dataclass(frozen=True)
class CropRule:
    """How an image is cropped to its lesion."""

    size: int
    """Side of the crop in pixels, without its border."""
    margin_px: int = 0
    """Margin on each side of the lesion's bounding box, in pixels of the image."""
    margin_ratio: float = 0.0
    """Further margin on each side, as a share of the bounding box's longer side."""
    square: bool = False
    """Widen the shorter side of the box to the length of the longer side, as far as the image allows."""
    border: float = 0.0
    """Context on each side of the crop, as a share of `size`."""


@dataclass(frozen=True)
class ImageView:
    """An image as it is shown, with its mask, its box and its crop."""

    image: np.ndarray
    """(height, width, 3), uint8 RGB, upright; it may be smaller than the file."""
    scale: float
    """Width of `image` divided by the width of the file."""
    mask: np.ndarray | None
    """(height, width) of `image`, uint8, 0 or 255; None if the crop is the whole frame."""
    box: tuple[int, int, int, int]
    """Top, bottom, left, right of the crop, in pixels of the upright file; bottom and right exclusive."""
    crop: np.ndarray
    """(side, side, 3), uint8 RGB, without its border: what the classifiers see."""


def image_view(path, mask, rule, *, shorter_side, crop_file=None):
    """Read one image as it is shown.

    Args:
        path: the image file.
        mask: array (height, width), uint8, 0 or 255, of the file's own size; None if the crop is the whole frame.
        rule: a `CropRule`.
        shorter_side: shorter side of the image that is shown, in pixels. A smaller file is not enlarged.
        crop_file: file of the crop, which may have a border. Without it, the image is cropped by the rule.

    Returns:
        An `ImageView`.

    Raises:
        InputError: if a file cannot be decoded.
    """
    size = image_size(path)
    box = crop_box(mask, size, rule)
    scale = min(1, shorter_side / min(size))
    image = resize(read_image(path, at_least=shorter_side), *(max(1, round(edge * scale)) for edge in size))
    if mask is not None:  # resized like the image, so that memory does not depend on the file's size
        mask = np.where(resize(mask, *image.shape[:2]) > 127, np.uint8(255), np.uint8(0))
    if crop_file is None:
        crop = read_crop(path, box, rule.size, border_pixels(rule.size, rule.border))
    else:
        crop = read_image(crop_file)
    return ImageView(image, scale, mask, box, without_border(crop, rule.size))


def lesion_mask(probability, height, width, sigma, threshold):
    """Turn the U-Net's probability map into the mask of one lesion.

    The map is smoothed and thresholded, the largest connected component is kept, and its holes are filled. Then the
    mask is resized to the size of the image.

    Args:
        probability: array (rows, columns), float, 0 to 1.
        height, width: size of the image in pixels.
        sigma: standard deviation of the smoothing Gaussian in pixels of the probability map; 0 for none.
        threshold: smoothed probability from which a pixel belongs to the lesion.

    Returns:
        Array (height, width), uint8, 0 or 255; all 0 if no pixel reaches the threshold.
    """
    probability = np.asarray(probability, np.float32)
    if sigma > 0:
        probability = cv2.GaussianBlur(probability, (0, 0), sigma)
    binary = (probability >= threshold).astype(np.uint8)
    _, components, statistics, _ = cv2.connectedComponentsWithStats(binary)
    areas = statistics[1:, cv2.CC_STAT_AREA]
    lesion = np.zeros_like(binary)
    if len(areas):
        largest = (components == 1 + np.argmax(areas)).astype(np.uint8)
        outline, _ = cv2.findContours(largest, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(lesion, outline, -1, 255, cv2.FILLED)
    return np.where(resize(lesion, height, width) > 127, np.uint8(255), np.uint8(0))


def lesion_box(mask, margin_px=0, margin_ratio=0.0, square=False):
    """Find the lesion's bounding box, widened by a margin and clipped to the image.

    Args:
        mask: array (height, width), non-zero in the lesion.
        margin_px: margin on each side, in pixels.
        margin_ratio: further margin on each side, as a share of the box's longer side.
        square: widen the shorter side to the length of the longer side, as far as the image allows. At the edge of the
            image, the box is moved inwards.

    Returns:
        (top, bottom, left, right) in pixels, bottom and right exclusive; the whole frame if the mask is empty.
    """
    height, width = mask.shape
    left, top, box_width, box_height = cv2.boundingRect(mask)
    if box_width == 0:
        return 0, height, 0, width
    margin = margin_px + round(margin_ratio * max(box_width, box_height))
    top, bottom = max(0, top - margin), min(height, top + box_height + margin)
    left, right = max(0, left - margin), min(width, left + box_width + margin)
    if square:
        side = max(bottom - top, right - left)
        top, bottom = widen(top, bottom, side, height)
        left, right = widen(left, right, side, width)
    return top, bottom, left, right


def crop_box(mask, size, rule):
    """Box of an image's crop: `lesion_box`, or the whole frame of `size` (height, width) if there is no mask."""
    if mask is None:
        return 0, size[0], 0, size[1]
    return lesion_box(mask, rule.margin_px, rule.margin_ratio, rule.square)


def widen(start, end, length, limit):
    """Widen [start, end) around its centre to `length`, within [0, limit)."""
    length = min(length, limit)
    start = min(max(0, (start + end - length) // 2), limit - length)
    return start, start + length


def border_pixels(size, share):
    """Pixels of context on each side of a crop, given as a share of the crop's `size` in pixels."""
    return round(size * share)


def read_crop(path, box, size, border=0):
    """Read the crop of an image file. The file is decoded only at the resolution that the crop needs.

    Args:
        path: an image file.
        box: (top, bottom, left, right) in pixels of the full image, bottom and right exclusive.
        size: side of the crop in pixels.
        border: pixels of context on each side. Pixels outside the frame are its mirror image.

    Returns:
        RGB array (size + 2 border, size + 2 border, 3), uint8.

    Raises:
        InputError: if the file cannot be decoded.
    """
    top, bottom, left, right = box
    height, width = image_size(path)
    # Decoded at 1.5 times the resolution of the crop, it differs from the exact crop by 0.2 grey levels on average, and
    # by 0.7 in the worst of 20 full-size images. (With the crop's resolution: 0.6 and 1.4, and 10 % faster.)
    image = read_image(path, at_least=1.5 * size * min(height, width) / min(bottom - top, right - left))
    if image.shape[:2] == (height, width):
        # The border is rounded to whole pixels, because interpolation between pixels would lose the finest details.
        high, wide = round((bottom - top) * border / size), round((right - left) * border / size)
        box_image = cut(image, top - high, bottom + high, left - wide, right + wide)
        return resize(box_image, size + 2 * border, size + 2 * border)
    # The edges of the box and its border lie between pixels of the smaller image, so pixels are interpolated.
    y, x = image.shape[0] / height, image.shape[1] / width
    around = 1 + 2 * border / size
    rows, columns = round((bottom - top) * y * around), round((right - left) * x * around)
    step_y, step_x = (bottom - top) * y * around / rows, (right - left) * x * around / columns
    top, left = top - (bottom - top) * border / size, left - (right - left) * border / size
    matrix = np.array([[step_x, 0, left * x + (step_x - 1) / 2], [0, step_y, top * y + (step_y - 1) / 2]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    box_image = cv2.warpAffine(image, matrix, (columns, rows), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    return resize(box_image, size + 2 * border, size + 2 * border)


def cut(image, top, bottom, left, right):
    """Cut a box of whole pixels out of an image, bottom and right exclusive. Pixels outside are its mirror image."""
    height, width = image.shape[:2]
    beyond = [max(0, pixels) for pixels in (-top, bottom - height, -left, right - width)]
    if any(beyond):
        image = cv2.copyMakeBorder(image, *beyond, cv2.BORDER_REFLECT_101)
    above, _, before, _ = beyond
    return image[top + above : bottom + above, left + before : right + before]


def without_border(crop, size):
    """The middle of a square crop (side, side, ...): size x size pixels, the input of the classifiers."""
    border = (len(crop) - size) // 2
    return crop[border : border + size, border : border + size]
