"""Image files and folders that belong to no data set."""

from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

from data.images import SUFFIXES
from utils.errors import InputError

ONE_COLOUR = 8  # an image counts as of one colour if brightest and darkest pixel differ by at most this, of 255
GREY = 8  # an image counts as grey if the channels of its pixels differ by at most this (JPEG makes such differences)
SAMPLED = 10_000  # pixels that are used to decide both; the most extreme 0.1 % are ignored, because of spots
TINY = 100  # pixels; an image with a shorter side is tiny
MASK = "_segmentation"  # end of a mask's name, before its suffix
NAMED = 20  # a line names at most this many files


def find_images(paths):
    """Find image files.

    Args:
        paths: files with any names, and folders, all images of which are taken (see `images_in`).

    Returns:
        List of paths; the files of a folder are sorted by name. A file that is named twice is listed once.

    Raises:
        InputError: if there is no path, one does not exist, or a folder holds no image.
    """
    if not paths:
        raise InputError("no image is named: give at least one image or folder of images")
    images = {}
    for path in paths:
        if not path.exists():
            raise InputError(f"{path} does not exist: name an image or a folder of images")
        files = [path]
        if path.is_dir():
            files, _ = images_in(path)
            if not files:
                raise InputError(f"{path} holds no {', '.join(SUFFIXES)}: name the folder in which the images lie")
        for file in files:
            images.setdefault(file.resolve(), file)
    return list(images.values())


def images_in(folder):
    """List the images (by their suffixes) and the other files of a folder, sorted by name.

    Returns:
        Two lists of paths: the images; and other files, masks and subfolders. Both lists are without hidden files,
        README files, and ISIC's superpixel maps and tables of metadata.
    """
    images, others = [], []
    for path in sorted(folder.iterdir()):  # unlike `glob`, this raises an error without permission
        stem, suffix = path.stem.lower(), path.suffix.lower()
        if (
            stem.startswith((".", "readme"))
            or stem.endswith("_superpixels")
            or path.name.lower().endswith("_metadata.csv")
        ):
            continue
        (images if suffix in SUFFIXES and not stem.endswith(MASK) else others).append(path)
    return images, others


def standing(folder, name):
    """Find a file or folder of a data set by its name, in upper or lower case.

    If it holds a folder of the same name and no files, that folder is returned. (Programs that unpack an archive make
    such an outer folder.) If nothing is found, the path with the given name is returned.
    """
    path = Path(folder) / name
    if not path.exists():
        with suppress(FileNotFoundError, NotADirectoryError):
            path = next((other for other in path.parent.iterdir() if other.name.lower() == name.lower()), path)
    inner = path / path.name
    if inner.is_dir() and not any(file.is_file() for file in path.iterdir() if not file.name.startswith(".")):
        return inner
    return path


def masks_in(folder):
    """Find masks: image files with the name `<image id>_segmentation`, which may be in upper case.

    Returns:
        Dictionary from image id to path.

    Raises:
        InputError: if two files are masks of one image.
    """
    masks = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES and path.stem.lower().endswith(MASK) and not path.name.startswith("."):
            image_id = path.stem[: -len(MASK)]
            if image_id in masks:
                raise InputError(f"{path} and {masks[image_id].name} are masks of one image: remove one")
            masks[image_id] = path
    return masks


def print_passed_over(folders):
    """Print the files of folders that are no images."""
    others = [path.name for folder in folders for path in images_in(folder)[1]]
    if others:
        first = ", ".join(others[:NAMED]) + (", ..." if len(others) > NAMED else "")
        print(f"ignored {len(others)} files of {', '.join(map(str, folders))}, no {'/'.join(SUFFIXES)}: {first}")


def distinct_names(paths):
    """Name each file by its stem. A number is added if an earlier file has that name, in upper or lower case."""
    names = {}
    for path in paths:
        name, number = path.stem, 1
        while name.lower() in names:
            number += 1
            name = f"{path.stem}_{number}"
        names[name.lower()] = name
    return list(names.values())


def file_remarks(path):
    """List of remarks on a file that can be read, but differs from the images that the networks were trained on."""
    with Image.open(path) as image:
        transparent = image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] < 255
    return ["transparent parts: their colours are read as if they were opaque"] * transparent


def picture_remarks(image, size):
    """List of remarks on an image that is hard to classify.

    Args:
        image: RGB array (height, width, 3), uint8, perhaps smaller than the file.
        size: (height, width) of the file in pixels.
    """
    remarks, pixels = [], image.reshape(-1, 3)[:: max(1, image.size // 3 // SAMPLED)]
    darkest, brightest = np.percentile(pixels, (0.1, 99.9), axis=0)
    if (brightest - darkest).max() <= ONE_COLOUR:
        remarks.append("all of one colour: there is nothing to see")
    elif np.percentile(np.ptp(pixels, axis=1), 99.9) <= GREY:
        remarks.append("grey: the networks have learnt from colour images only")
    if min(size) < TINY:
        remarks.append(f"tiny, {size[1]}x{size[0]} pixels: details are missing")
    return remarks
