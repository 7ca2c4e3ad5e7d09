"""Reading and writing of single images and masks."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from data.files import whole_file
from errors import InputError

EXIF_ORIENTATION = 0x0112
# The last bytes of a whole file; a few bytes of padding may follow them.
END_MARKER = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
TAIL_BYTES = 1024


def image_size(path):
    """Read an image's size from its header, without decoding it.

    Returns:
        (height, width) in pixels, as `read_image` would return it: turned upright if EXIF says so.

    Raises:
        InputError: if the file is missing, no JPEG or PNG image, or cut off.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            if image.getexif().get(EXIF_ORIENTATION, 1) >= 5:
                width, height = height, width
            marker = END_MARKER.get(image.format)
        with open(path, "rb") as file:
            file.seek(max(0, Path(path).stat().st_size - TAIL_BYTES))
            tail = file.read()
    except FileNotFoundError:
        raise InputError(f"{path} is missing") from None
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} claims a size that no dermoscope has ({error}): replace the file") from None
    except (OSError, SyntaxError, ValueError) as error:  # Pillow calls a broken PNG chunk a SyntaxError
        raise InputError(f"{path} cannot be read as an image ({error}): replace the file") from None
    if marker is None or marker not in tail:
        raise InputError(f"{path} is cut off: replace the file")
    return height, width


def check_images(paths, workers, mask_paths=None):
    """Look at the header and the end of every file before any work starts.

    Args:
        paths: images to check.
        workers: threads to use.
        mask_paths: their masks, in the same order; each must have its image's size.

    Returns:
        List of (height, width) in pixels.

    Raises:
        InputError: about every bad file, a line each.
    """

    def look(path, mask_path=None):
        try:
            size = image_size(path)
            if mask_path is not None and (mask_size := image_size(mask_path)) != size:
                raise InputError(
                    f"{mask_path} is {mask_size[1]}x{mask_size[0]} pixels, its image {size[1]}x{size[0]}: "
                    f"replace the mask or the image"
                )
        except InputError as error:
            return error
        return size

    columns = [paths] if mask_paths is None else [paths, mask_paths]
    with ThreadPoolExecutor(workers) as pool:
        results = list(pool.map(look, *columns))
    errors = [result for result in results if isinstance(result, InputError)]
    if errors:
        raise InputError("\n".join(map(str, errors)))
    return results


def read_image(path, at_least=None):
    """Read an image.

    Args:
        path: a JPEG or PNG file.
        at_least: side in pixels that is enough; a larger image is then decoded at a half, a quarter or an eighth of its
            size, as long as both sides stay at least that long.

    Returns:
        RGB array (height, width, 3), uint8.

    Raises:
        InputError: if the file cannot be decoded.
    """
    flags = cv2.IMREAD_COLOR
    if at_least is not None:
        shorter = min(image_size(path))
        for factor in (2, 4, 8):
            if shorter >= factor * at_least:
                flags = getattr(cv2, f"IMREAD_REDUCED_COLOR_{factor}")
    return cv2.cvtColor(decode(path, flags), cv2.COLOR_BGR2RGB)


def read_mask(path):
    """Read a mask.

    Returns:
        Array (height, width), uint8, 255 in the lesion and 0 elsewhere.

    Raises:
        InputError: if the file cannot be decoded.
    """
    return np.where(decode(path, cv2.IMREAD_GRAYSCALE) > 127, np.uint8(255), np.uint8(0))


def decode(path, flags):
    """Decode a file with OpenCV, or raise an `InputError` that names it."""
    image = cv2.imread(str(path), flags)
    if image is None:
        raise InputError(f"{path} cannot be decoded: replace the file")
    return image


def write_image(path, image):
    """Write an RGB image (height, width, 3) or a mask (height, width), uint8, in the format of the path's suffix."""
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    quality = [cv2.IMWRITE_JPEG_QUALITY, 90] if path.suffix == ".jpg" else []
    _, encoded = cv2.imencode(path.suffix, image, quality)
    with whole_file(path) as part:
        part.write_bytes(encoded)  # unlike cv2.imwrite, this says why it fails


def resize(image, height, width):
    """Resize an image: each axis by pixel area where it shrinks (no aliasing), linearly where it grows.

    Args:
        image: array (any height, any width) or (any height, any width, channels).
        height, width: new size in pixels.

    Returns:
        Array of the new size, of the same dtype.
    """
    smaller = (min(width, image.shape[1]), min(height, image.shape[0]))
    image = cv2.resize(image, smaller, interpolation=cv2.INTER_AREA)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def read_square(path, size):
    """Read an image and squash it to size x size pixels; RGB, uint8."""
    return resize(read_image(path, at_least=size), size, size)


def read_square_mask(path, size):
    """Read a mask and squash it to size x size pixels; uint8, 0 to 255, in between where its edge cuts a pixel."""
    return resize(read_mask(path), size, size)
