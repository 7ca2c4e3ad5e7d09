"""Reading and writing of single images and masks."""

import io
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from data.errors import InputError
from data.files import whole_file
from data.progress import progress

EXIF_ORIENTATION = 0x0112
# How an image of each EXIF orientation is brought upright: whether it is transposed, then how OpenCV flips it.
UPRIGHT = {
    **{2: (False, 1), 3: (False, -1), 4: (False, 0)},
    **{5: (True, None), 6: (True, 1), 7: (True, -1), 8: (True, 0)},
}
# The last bytes of a whole file; padding, or whatever a camera adds, may follow them. MPO is a phone's JPEG with more
# pictures behind the first, which is the one that is read.
# Masks may be PBM, a format that has no such bytes: that one is cut off shows when it is decoded.
END_MARKER = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82", "PPM": b""}
TAIL_BYTES = 1024


def image_size(path):
    """Read an image's size from its header, without decoding it.

    Returns:
        (height, width) in pixels, as `read_image` would return it: turned upright if EXIF or XMP says so.

    Raises:
        InputError: if the file is missing, closed to us, no JPEG or PNG image, or cut off.
    """
    with failures_named(path):
        (height, width), orientation, kind = header(path)
        if kind not in END_MARKER:
            raise InputError(f"{path} is neither JPEG nor PNG: convert it")
        if not is_whole(path, END_MARKER[kind]):
            raise InputError(f"{path} is cut off: replace the file")
    turned, _ = UPRIGHT.get(orientation, (False, None))
    return (width, height) if turned else (height, width)


def header(file):
    """(height, width) as stored, orientation (1 to 8, or anything if broken) and format of an image file, by Pillow."""
    with Image.open(file) as image:
        # By the base class: Pillow's PNG class would decode the pixels to look for a turn noted behind them.
        return image.size[::-1], Image.Image.getexif(image).get(EXIF_ORIENTATION), image.format


def is_whole(path, marker):
    """Whether a file holds the end of its image, most often right at its own end."""
    with open(path, "rb") as file:
        file.seek(max(0, Path(path).stat().st_size - TAIL_BYTES))
        if marker in file.read():
            return True
        file.seek(0)
        content = file.read()
    return content.find(marker, start_of_pixels(content)) >= 0


def start_of_pixels(content):
    """Where the first scan of a JPEG begins (its metadata may hold a small picture with an end of its own); 0 else."""
    if not content.startswith(b"\xff\xd8"):
        return 0
    position = 2
    while content[position + 1 : position + 2] not in (b"\xda", b""):
        position += 2 + int.from_bytes(content[position + 2 : position + 4], "big")
    return position


def check_images(paths, workers, decoding=False):
    """Look at the header and the end of every file before any work starts.

    Args:
        paths: dictionary from image id to path.
        workers: threads to use.
        decoding: decode each file as well, as coarsely as that can be done.

    Returns:
        Two dictionaries: from the id of each good file to its (height, width) in pixels, and from the id of each bad
        file to the `InputError` about it.
    """

    def look(path):
        try:
            size = image_size(path)
            if decoding:
                decode(path, cv2.IMREAD_COLOR, at_least=1)
            return size
        except InputError as error:
            return error

    with ThreadPoolExecutor(workers) as pool:
        looked = progress(pool.map(look, paths.values()), "checking", len(paths), unit="file", leave=False, delay=1)
        results = dict(zip(paths, looked, strict=True))
    bad = {image_id: result for image_id, result in results.items() if isinstance(result, InputError)}
    return {image_id: size for image_id, size in results.items() if image_id not in bad}, bad


def read_image(path, at_least=None):
    """Read an image.

    Args:
        path: a JPEG or PNG file.
        at_least: side in pixels that is enough; a larger image is then decoded at a half, a quarter or an eighth of its
            size, as long as both sides stay at least that long.

    Returns:
        RGB array (height, width, 3), uint8, upright.

    Raises:
        InputError: if the file cannot be decoded.
    """
    return cv2.cvtColor(decode(path, cv2.IMREAD_COLOR, at_least), cv2.COLOR_BGR2RGB)


def read_mask(path):
    """Read a mask.

    Returns:
        Array (height, width), uint8, 255 in the lesion and 0 elsewhere. A pixel belongs to the lesion from half of the
        largest value of the file, whatever its depth: masks of 0 and 1, of 16 bits, or with soft edges are read alike.

    Raises:
        InputError: if the file cannot be decoded.
    """
    mask = decode(path, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH)
    return cv2.threshold(mask, int(mask.max()) // 2, 255, cv2.THRESH_BINARY)[1].astype(np.uint8, copy=False)


def read_grey(path):
    """Read a grey image as it is stored; array (height, width), uint8.

    Raises:
        InputError: if the file cannot be decoded.
    """
    return decode(path, cv2.IMREAD_GRAYSCALE)


def decode(path, flags, at_least=None):
    """Decode a file with OpenCV and turn it upright, or raise an `InputError` that names it; see `read_image`.

    Python reads the bytes, as OpenCV crashes on a name that is not UTF-8; Pillow says which way is up, as OpenCV knows
    fewer ways to note it, and `image_size` has to say the same.
    """
    with failures_named(path):
        content = Path(path).read_bytes()
        size, orientation, _ = header(io.BytesIO(content))
        for factor in (2, 4, 8) if at_least is not None else ():
            if min(size) >= factor * at_least:
                flags = getattr(cv2, f"IMREAD_REDUCED_COLOR_{factor}")
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise InputError(f"{path} cannot be decoded: replace the file")
    turned, flip = UPRIGHT.get(orientation, (False, None))
    image = cv2.transpose(image) if turned else image
    return image if flip is None else cv2.flip(image, flip)


@contextmanager
def failures_named(path):
    """Make an `InputError` that names the file of what Python, Pillow and OpenCV say when it cannot be read."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path} is missing: put it there") from None
    except PermissionError:
        raise InputError(f"{path} cannot be read, permission denied: ask its owner for access") from None
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} claims a size that no dermoscope has ({error}): replace the file") from None
    except (OSError, SyntaxError, ValueError, cv2.error) as error:  # Pillow calls a broken PNG chunk a SyntaxError
        raise InputError(f"{path} cannot be read as an image ({error}): replace the file") from None


def write_image(path, image, one_bit=True):
    """Write an RGB image (height, width, 3), uint8, as PNG or JPEG, or a mask (height, width), uint8, as PNG.

    With `one_bit` a mask must be of 0 and 255, and its file is one bit deep; otherwise it may have soft edges.
    """
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        options = [cv2.IMWRITE_JPEG_QUALITY, 90] if path.suffix == ".jpg" else []
    else:
        options = [cv2.IMWRITE_PNG_BILEVEL, int(one_bit)]  # several times as fast, and read back as 0 and 255
    _, encoded = cv2.imencode(path.suffix, image, options)
    with whole_file(path, flush=False) as part:
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
