"""Images from anywhere: files and folders that know nothing of a data set."""

from PIL import Image

from data.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png")
GREY_MODES = ("1", "L", "LA", "I", "I;16", "F")


def find_images(paths):
    """Find image files.

    Args:
        paths: files, taken whatever their names, and folders, of which every .jpg, .jpeg and .png is taken but not what
            lies in their subfolders, nor hidden files and the superpixel maps of an ISIC folder.

    Returns:
        List of paths, those of a folder sorted by name; a file that is named twice comes once.

    Raises:
        InputError: if there is no path, one does not exist, or a folder holds no image.
    """
    if not paths:
        raise InputError("no image is named: give at least one image or folder of images")
    found = {}
    for path in paths:
        if not path.exists():
            raise InputError(f"{path} does not exist: name an image or a folder of images")
        files = [path]
        if path.is_dir():
            files = [file for file in sorted(path.iterdir()) if is_image_name(file.name)]
            if not files:
                raise InputError(f"{path} holds no {', '.join(SUFFIXES)}: name the folder in which the images lie")
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def is_image_name(name):
    """Whether a file in a folder of images is one of them, by its name."""
    name = name.lower()
    return name.endswith(SUFFIXES) and not name.startswith(".") and not name.endswith("_superpixels.png")


def distinct_names(paths):
    """Name each file by its stem; a number follows where another has that name, whatever its folder, suffix or case."""
    names = {}
    for path in paths:
        name, n = path.stem, 1
        while name.lower() in names:
            n += 1
            name = f"{path.stem}_{n}"
        names[name.lower()] = name
    return list(names.values())


def oddities(paths):
    """Find what can be read but is not what the networks have learnt from, by the files' headers.

    Returns:
        Dictionary from a description to the paths it is true of.
    """
    found = {}
    for path in paths:
        with Image.open(path) as image:
            if image.mode in GREY_MODES:
                found.setdefault("are grey, and the networks know colour images only", []).append(path)
            if image.has_transparency_data:
                found.setdefault("have transparent parts, of which the hidden colours are read", []).append(path)
    return found
