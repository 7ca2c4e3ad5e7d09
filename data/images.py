"""Reading and writing of single images and masks."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
from PIL import Image

from data.files import whole_file
from errors import InputError

EXIF_ORIENTATION = 0x0112
# The last bytes of a whole file; a few bytes of padding may follow them. MPO is a phone's JPEG with more pictures
# behind the first, which is the one that is read.
END_MARKER = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
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
            # Asked of a PNG without EXIF data before its pixels, Pillow would decode them to look behind them.
            may_turn = image.format != "PNG" or "exif" in image.info
            if may_turn and image.getexif().get(EXIF_ORIENTATION) in (5, 6, 7, 8):
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
    if marker is None:
        raise InputError(f"{path} is neither JPEG nor PNG: convert it")
    if marker not in tail:
        raise InputError(f"{path} is cut off: replace the file")
    return height, width


def check_images(paths, workers):
    """Look at the header and the end of every file before any work starts; nothing is decoded.

    Args:
        paths: dictionary from image id to path.
        workers: threads to use.

    Returns:
        Two dictionaries: from the id of each good file to its (height, width) in pixels, and from the id of each bad
        file to the `InputError` about it.
    """

    def look(path):
        try:
            return image_size(path)
        except InputError as error:
            return error

    with ThreadPoolExecutor(workers) as pool:
        results = dict(zip(paths, pool.map(look, paths.values()), strict=True))
    bad = {image_id: result for image_id, result in results.items() if isinstance(result, InputError)}
    return {image_id: size for image_id, size in results.items() if image_id not in bad}, bad


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
        Array (height, width), uint8, 255 in the lesion and 0 elsewhere. A pixel belongs to the lesion from half of the
        largest value of the file, whatever its depth: masks of 0 and 1, of 16 bits, or with soft edges are read alike.

    Raises:
        InputError: if the file cannot be decoded.
    """
    mask = decode(path, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH)
    return cv2.compare(mask, int(mask.max()) // 2, cv2.CMP_GT)


def decode(path, flags):
    """Decode a file with OpenCV, or raise an `InputError` that names it."""
    image = cv2.imread(str(path), flags)
    if image is None:
        raise InputError(f"{path} cannot be decoded: replace the file")
    return image


def write_image(path, image):
    """Write an RGB image (height, width, 3), uint8, as PNG or JPEG, or a mask (height, width), 0 or 255, as PNG."""
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        options = [cv2.IMWRITE_JPEG_QUALITY, 90] if path.suffix == ".jpg" else []
    else:
        options = [cv2.IMWRITE_PNG_BILEVEL, 1]  # several times as fast, and read back as 0 and 255
    _, encoded = cv2.imencode(path.suffix, image, options)
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
