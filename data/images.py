"""Read and write single images and masks."""

import io
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from utils.errors import InputError
from utils.files import atomic_write
from utils.progress import progress

EXIF_ORIENTATION = 0x0112
BITS_PER_SAMPLE = 0x0102  # TIFF's tag
# How to turn an image of each EXIF orientation upright: whether to transpose it, then OpenCV's code of the flip.
UPRIGHT = {2: (False, 1), 3: (False, -1), 4: (False, 0), 5: (True, None), 6: (True, 1), 7: (True, -1), 8: (True, 0)}
# The last bytes of a complete file. Padding or data of the camera may follow them. MPO is a JPEG file of phones with
# several pictures; only the first is read.
END_MARKER = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
TAIL_BYTES = 1024
OTHER_FORMATS = ("BMP", "PPM", "TIFF", "WEBP")  # Pillow decodes these, and refuses files that are cut off
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".pbm", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
CAMERA_BITS = (8, 10, 12, 14)  # bit depths of cameras that are stored in 16 bits
# By default, Pillow refuses a PNG whose text or colour profile is longer than 1 MiB. OpenCV reads it.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 2**28


class Header(NamedTuple):
    """The metadata of an image file."""

    size: tuple[int, int]
    """(height, width) in pixels, as stored."""
    orientation: int
    """EXIF's number, 2 to 8; 1 for an image that is stored upright."""
    format: str
    """Pillow's name of the format."""
    mode: str
    """Pillow's name of the colour mode."""
    profile: bytes | None
    """Embedded ICC profile."""


def image_size(path):
    """Read an image's size from its header, without decoding it. (Only `OTHER_FORMATS` are decoded.)

    Returns:
        (height, width) in pixels of the upright image, like that of `read_image`; EXIF or XMP give the orientation.

    Raises:
        InputError: if the file is missing, not readable, cut off, or no image of a supported format.
    """
    with failures_named(path):
        head = header(path)
        if head.format in OTHER_FORMATS:
            return decode(path, cv2.IMREAD_COLOR)[0].shape[:2]
        if not is_whole(path, END_MARKER[head.format]):
            raise InputError(f"{path} is cut off: replace the file")
    turned, _ = UPRIGHT.get(head.orientation, (False, None))
    return head.size[::-1] if turned else head.size


def header(file):
    """Read the `Header` of an image file with Pillow.

    Raises:
        OSError, SyntaxError, ValueError: if the file is damaged, or its format is not supported.
    """
    with Image.open(file, formats=("JPEG", "PNG", *OTHER_FORMATS)) as image:
        # The method of the base class, because Pillow's PNG class decodes all pixels to find EXIF data after them.
        orientation = Image.Image.getexif(image).get(EXIF_ORIENTATION)
        orientation = int(orientation) if orientation in UPRIGHT else 1
        return Header(image.size[::-1], orientation, image.format, image.mode, image.info.get("icc_profile"))


def is_whole(path, marker):
    """Whether a file holds the end marker of its image, which is usually at the end of the file."""
    with open(path, "rb") as file:
        file.seek(max(0, Path(path).stat().st_size - TAIL_BYTES))
        if marker in file.read():
            return True
        file.seek(0)
        content = file.read()
    return content.find(marker, start_of_pixels(content)) >= 0


def start_of_pixels(content):
    """Where the first scan of a JPEG begins, as a thumbnail before it may have an end marker; 0 for other formats."""
    if not content.startswith(b"\xff\xd8"):
        return 0
    position = 2
    while content[position + 1 : position + 2] not in (b"\xda", b""):
        position += 2 + int.from_bytes(content[position + 2 : position + 4], "big")
    return position


def check_images(paths, workers, look=image_size):
    """Check every file before any work starts.

    Args:
        paths: dictionary from image id to path.
        workers: threads to use.
        look: function from a path to facts about the file. `image_size` reads the header and the end; `image_facts` and
            `mask_facts` also decode the file.

    Returns:
        Two dictionaries: from the id of each good file to what `look` returns, and from the id of each bad file to the
        `InputError` about it.
    """

    def look_or_catch(path):
        try:
            return look(path)
        except InputError as error:
            return error

    with ThreadPoolExecutor(workers) as pool:
        results = pool.map(look_or_catch, paths.values())
        results = progress(results, "checking", len(paths), unit="file", leave=False, delay=1)
        results = dict(zip(paths, results, strict=True))
    bad = {image_id: result for image_id, result in results.items() if isinstance(result, InputError)}
    return {image_id: facts for image_id, facts in results.items() if image_id not in bad}, bad


def image_facts(path):
    """Decode an image at the lowest resolution. Returns its upright height and width, and its EXIF orientation.

    Raises:
        InputError: if the file cannot be decoded, or is cut off.
    """
    size = image_size(path)
    _, head = decode(path, cv2.IMREAD_COLOR, at_least=1)
    return *size, head.orientation


def mask_facts(path):
    """Decode a mask.

    Returns:
        Upright height and width, EXIF orientation, and share of the lesion in all pixels and in the pixels at the edge.

    Raises:
        InputError: if the file cannot be decoded, or is cut off.
    """
    size = image_size(path)
    mask = read_mask(path) > 0
    edge = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    with failures_named(path):
        return *size, header(path).orientation, float(mask.mean()), float(edge.mean())


def read_image(path, at_least=None):
    """Read an image.

    Colours are converted to sRGB if the file has an ICC profile. If an image of 16 bits uses fewer bits (see
    `significant_bits`), its values are scaled to the full range.

    Args:
        path: a JPEG or PNG file, or one of `OTHER_FORMATS`.
        at_least: side in pixels that is enough. A JPEG is then decoded at a half, a quarter or an eighth of its size if
            both sides are still at least so long. (Decoders of other formats would skip pixels.)

    Returns:
        RGB array (height, width, 3), uint8, upright.

    Raises:
        InputError: if the file cannot be decoded.
    """
    image, head = decode(path, cv2.IMREAD_COLOR, at_least)
    if image.dtype == np.uint16:
        image = (image >> (significant_bits(path, image) - 8)).astype(np.uint8)
    image = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB if image.ndim == 2 else cv2.COLOR_BGR2RGB)
    return to_srgb(image, head.profile) if head.profile and head.mode != "CMYK" else image


def significant_bits(path, image):
    """Number of bits that are used in an image of 16 bits per sample: 8 to 16.

    The chunk sBIT of a PNG may state this number. Otherwise it is the smallest of `CAMERA_BITS` that fits the largest
    sample: a picture that uses only a quarter of the range is taken for one by a camera with fewer bits, not for a dark
    one.
    """
    before, chunk, after = Path(path).read_bytes().partition(b"IDAT")[0].partition(b"sBIT")
    # sBIT has one byte for each channel. The last byte of its length is just before its name.
    stated = max(after[: before[-1]], default=16) if chunk else None
    usual = [min(16, max(8, stated))] if stated else CAMERA_BITS
    return next((bits for bits in usual if image.max() < 2**bits), 16)


def to_srgb(image, profile):
    """Convert an RGB image (height, width, 3), uint8, from the colours of an ICC profile to sRGB.

    As in browsers, a profile is ignored if it is damaged or does not fit the channels of the image.
    """
    try:
        space, transform = srgb_transform(profile)
    except (ImageCms.PyCMSError, OSError):
        return image
    if space == "GRAY" and not (image == image[..., :1]).all():
        return image
    image = np.ascontiguousarray(image[..., 0]) if space == "GRAY" else image
    return np.array(ImageCms.applyTransform(Image.fromarray(image), transform))


@lru_cache(maxsize=16)
def srgb_transform(profile):
    """Colour space of an ICC profile ("RGB" or "GRAY"), and Pillow's transform from it to sRGB.

    Raises:
        PyCMSError, OSError: if there is no such transform.
    """
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = source.profile.xcolor_space.strip()
    mode = {"GRAY": "L"}.get(space, "RGB")
    return space, ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")


def read_mask(path):
    """Read a mask.

    In a mask of 8 bits, a pixel belongs to the lesion if it is above 128, as for the challenge's scorer; in a mask of 0
    and 1, if it is 1. Masks of 16 bits are written with different largest values, so there the limit is half of the
    largest value. Transparent pixels do not belong to the lesion. If the colour is the same everywhere, the alpha
    channel is the mask.

    Returns:
        Array (height, width), uint8, 255 in the lesion and 0 elsewhere.

    Raises:
        InputError: if the file cannot be decoded.
    """
    mask, _ = decode(path, cv2.IMREAD_UNCHANGED)
    if mask.ndim == 3:
        alpha = mask[..., 3] if mask.shape[2] == 4 else None
        mask = cv2.cvtColor(np.ascontiguousarray(mask[..., :3]), cv2.COLOR_BGR2GRAY)
        if alpha is not None and np.ptp(alpha):
            mask = np.minimum(mask, alpha) if np.ptp(mask) else alpha
    largest = int(mask.max())
    threshold = 128 if mask.dtype == np.uint8 and largest > 1 else largest // 2
    return cv2.threshold(mask, threshold, 255, cv2.THRESH_BINARY)[1].astype(np.uint8, copy=False)


def read_grey(path):
    """Read a grey image as it is stored; array (height, width), uint8.

    Raises:
        InputError: if the file cannot be decoded.
    """
    return decode(path, cv2.IMREAD_GRAYSCALE)[0]


def decode(path, flags, at_least=None):
    """Decode a file and turn it upright, or raise an `InputError` that names it; see `read_image`.

    Python reads the bytes, because OpenCV crashes on a file name that is not UTF-8. Pillow reads the orientation,
    because OpenCV does not support all ways to store it, and because `image_size` must agree.

    Returns:
        Array (height, width) or (height, width, channels), uint8 or uint16, channels as OpenCV orders them; `Header`.
    """
    with failures_named(path):
        content = Path(path).read_bytes()
        head = header(io.BytesIO(content))
        if head.format in OTHER_FORMATS or (head.mode == "CMYK" and head.profile):
            return decode_by_pillow(content), head
        if head.format == "PNG" and flags == cv2.IMREAD_COLOR:
            flags |= cv2.IMREAD_ANYDEPTH
        shrunk = [
            f for f in (2, 4, 8) if at_least is not None and head.format != "PNG" and min(head.size) >= f * at_least
        ]
        if shrunk:
            flags = getattr(cv2, f"IMREAD_REDUCED_COLOR_{shrunk[-1]}")
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
        if shrunk and image is not None:
            image = without_padding(image, *(side / shrunk[-1] for side in head.size))
    if image is None:
        raise InputError(f"{path} cannot be decoded: replace the file")
    turned, flip = UPRIGHT.get(head.orientation, (False, None))
    image = cv2.transpose(image) if turned else image
    return (image if flip is None else cv2.flip(image, flip)), head


def without_padding(image, height, width):
    """Stretch an image that a JPEG decoder has shrunk, so that it covers the frame of the file and nothing else.

    Its last row and column stand for a whole number of the file's pixels, and may lie partly outside the frame.

    Args:
        image: array (rows, columns, channels).
        height, width: of the frame, in pixels of the image, with fractions.
    """
    rows, columns = round(height), round(width)
    if (rows, columns) == (height, width):
        return image
    y, x = height / rows, width / columns
    matrix = np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, matrix, (columns, rows), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def decode_by_pillow(content):
    """Decode an image whose format or CMYK profile OpenCV does not support well enough; see `decode`."""
    with Image.open(io.BytesIO(content)) as file:
        image = ImageOps.exif_transpose(file)
        profile = image.info.get("icc_profile")
        bits = max(getattr(file, "tag_v2", {}).get(BITS_PER_SAMPLE, (8,)))
    if image.mode.startswith("I;16") or (file.format, image.mode) == ("PPM", "I"):
        return np.asarray(image).astype(np.uint16)
    if bits > 8:  # Pillow would clip samples, or drop the lower half of their bits
        raise ValueError(f"a TIFF with {bits} bits per sample; more than 8 are supported only for 16-bit grey")
    if image.mode == "CMYK" and profile:
        with suppress(ImageCms.PyCMSError, OSError):  # a damaged profile counts as none
            srgb = ImageCms.createProfile("sRGB")
            image = ImageCms.profileToProfile(image, io.BytesIO(profile), srgb, outputMode="RGB")
    if image.has_transparency_data:
        return cv2.cvtColor(np.asarray(image.convert("RGBA")), cv2.COLOR_RGBA2BGRA)
    return cv2.cvtColor(np.asarray(image.convert("RGB")), cv2.COLOR_RGB2BGR)


@contextmanager
def failures_named(path):
    """Turn errors of Python, Pillow and OpenCV about an unreadable file into an `InputError` that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path} is missing: put it there") from None
    except PermissionError:
        raise InputError(f"{path} cannot be read, permission denied: ask its owner for access") from None
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} has an implausible size ({error}): replace the file") from None
    except (OSError, SyntaxError, ValueError, cv2.error) as error:  # Pillow calls a broken PNG chunk a SyntaxError
        raise InputError(
            f"{path} cannot be read as an image ({error}): replace it, or convert it to JPEG or PNG"
        ) from None


def write_image(path, image, one_bit=True):
    """Write an RGB image (height, width, 3), uint8, as PNG or JPEG, or a mask (height, width), uint8, as PNG.

    With `one_bit`, a mask must consist of 0 and 255, and its file has one bit per pixel. Otherwise any grey is kept.
    """
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        options = [cv2.IMWRITE_JPEG_QUALITY, 90] if path.suffix == ".jpg" else []
    else:
        options = [cv2.IMWRITE_PNG_BILEVEL, int(one_bit)]  # several times as fast; it is read as 0 and 255
    _, encoded = cv2.imencode(path.suffix, image, options)
    with atomic_write(path, flush=False) as part:
        part.write_bytes(encoded)  # unlike cv2.imwrite, this raises an error with the reason


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
    """Read an image and resize it to size x size pixels, whatever its shape; RGB, uint8."""
    return resize(read_image(path, at_least=size), size, size)


def read_square_mask(path, size):
    """Read a mask and resize it to size x size pixels; uint8, 0 to 255, with values in between at its edge."""
    return resize(read_mask(path), size, size)
