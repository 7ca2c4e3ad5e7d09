"""The built-in sample: small dermoscopy-like pictures in the official ISIC 2017 layout, with masks and labels.

    python -m data.sample --data-dir data/sample

The pictures are synthetic. They let every stage run end to end without the download of the challenge's data, and
their three diagnoses differ in the way the textbooks say (shape, border and colours); a score reached on them says
nothing about performance on real skin lesions.

A picture is skin lit unevenly, through which light passes into the lesion's pigments: with optical density `d` of a
colour channel, the lesion shows `skin * exp(-d)`. Hair, a ruler and a vignette may lie above. Each picture draws from
a generator of its own, seeded by (seed, number), so the same settings give the same bytes with the same libraries.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import tyro

from data.files import whole_file
from data.images import write_image
from data.isic2017 import CLASSES, OFFICIAL_NAME, image_folder, label_table, mask_folder
from errors import InputError, one_sentence_errors

SHARE = {"melanoma": 0.30, "seborrheic_keratosis": 0.25}  # the rest are nevi
SMALLEST_SIDE = 64  # pixels; below, dots and hair are thinner than one pixel

# Optical density of a unit of each pigment in (red, green, blue).
MELANIN = np.float32([0.55, 0.9, 1.1])
BLUE_VEIL = np.float32([1.3, 0.95, 0.65])
BLOOD = np.float32([0.25, 0.85, 0.8])
KERATIN = np.float32([0.25, 0.35, 0.8])


@dataclass(frozen=True)
class Outline:
    """Ranges from which a diagnosis draws the outline of a lesion."""

    size: tuple[float, float]
    """Longer side as a share of the picture's shorter side."""
    aspect: tuple[float, float]
    """Shorter axis over longer axis."""
    asymmetry: tuple[float, float]
    """Relative amplitude of slow departures from the ellipse."""
    jaggedness: tuple[float, float]
    """Relative amplitude of quick departures from the ellipse."""
    notches: tuple[int, int]
    """Number of dents, both ends included."""


OUTLINES = {
    "melanoma": Outline((0.36, 0.75), (0.6, 0.95), (0.04, 0.16), (0.02, 0.06), (0, 3)),
    "seborrheic_keratosis": Outline((0.32, 0.68), (0.6, 0.95), (0.02, 0.08), (0.004, 0.02), (0, 1)),
    "nevus": Outline((0.25, 0.58), (0.7, 1.0), (0.01, 0.05), (0.002, 0.012), (0, 0)),
}


def smooth_noise(rng, shape, grain):
    """Random field that varies over a distance of `grain` pixels: float32 of `shape`, about zero mean, unit spread."""
    coarse = rng.standard_normal((int(shape[0] / grain) + 3, int(shape[1] / grain) + 3), np.float32)
    return cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)


def lesion_shape(rng, diagnosis, height, width):
    """Draw a lesion's exact shape.

    Args:
        rng: numpy random generator.
        diagnosis: one of `CLASSES`.
        height: height of the picture in pixels.
        width: width of the picture in pixels.

    Returns:
        Mask (height, width), uint8, 255 within the lesion and 0 elsewhere.
    """
    outline = OUTLINES[diagnosis]
    angle = np.linspace(0, 2 * np.pi, 360, endpoint=False)
    aspect = rng.uniform(*outline.aspect)
    radius = 1 / np.hypot(np.cos(angle), np.sin(angle) / aspect)
    for orders, amplitude in [(range(1, 5), outline.asymmetry), (range(7, 30), outline.jaggedness)]:
        phases = rng.uniform(0, 2 * np.pi, len(orders))
        waves = np.cos(np.outer(orders, angle) + phases[:, None]) / np.sqrt(orders)[:, None]
        radius = radius * (1 + rng.uniform(*amplitude) * waves.sum(axis=0))
    for _ in range(rng.integers(*outline.notches, endpoint=True)):
        away = np.angle(np.exp(1j * (angle - rng.uniform(0, 2 * np.pi))))
        radius = radius * (1 - rng.uniform(0.1, 0.3) * np.exp(-((away / rng.uniform(0.1, 0.3)) ** 2) / 2))

    turned = angle + rng.uniform(0, 2 * np.pi)
    points = np.column_stack([radius * np.cos(turned), radius * np.sin(turned)])
    points -= (points.min(axis=0) + points.max(axis=0)) / 2
    points *= rng.uniform(*outline.size) * min(height, width) / np.ptp(points, axis=0).max()
    frame = np.array([width, height])
    free = (frame - np.ptp(points, axis=0)) / 2
    centre = frame / 2 + np.clip(rng.normal(0, 0.09, 2) * frame, -free, free)

    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [np.round(points + centre).astype(np.int32)], 255)
    return mask


def paint_skin(rng, height, width):
    """Paint bare skin: float32 array (height, width, 3), RGB in 0 to 255."""
    tone = np.float32([216, 170, 150]) * rng.uniform(0.9, 1.06) + rng.normal(0, 4, 3)
    light = 1 + 0.04 * smooth_noise(rng, (height, width), 0.6 * height)
    flush = 0.025 * smooth_noise(rng, (height, width), 0.25 * height)
    texture = 0.012 * smooth_noise(rng, (height, width), 0.02 * height)
    return (tone * light[..., None] * np.exp(-BLOOD * (flush + texture)[..., None])).astype(np.float32)


def nevus_density(rng, mask):
    """Optical density (height, width, 3), float32: one or two even shades of brown, darker at the core."""
    height = len(mask)
    melanin = rng.uniform(0.75, 1.2) + rng.uniform(0, 0.6) * np.sqrt(depth(mask))
    melanin = melanin + rng.uniform(0.05, 0.15) * smooth_noise(rng, mask.shape, 0.12 * height)
    melanin += 0.06 * smooth_noise(rng, mask.shape, 0.025 * height)
    return melanin[..., None] * MELANIN


def melanoma_density(rng, mask):
    """Optical density (height, width, 3), float32: patches of brown, black, blue-grey and red, streaks at the rim."""
    height = len(mask)
    melanin = rng.uniform(0.9, 1.4) + rng.uniform(0.2, 0.6) * smooth_noise(rng, mask.shape, 0.13 * height)
    melanin = np.maximum(melanin, 0.35) + rng.uniform(0.2, 0.7) * streaks(rng, mask)
    melanin += 0.1 * smooth_noise(rng, mask.shape, 0.025 * height)
    veil = rng.uniform(0.4, 1.0) * patches(rng, mask.shape)
    redness = rng.uniform(0.2, 0.7) * patches(rng, mask.shape)
    return (melanin * (1 - 0.5 * veil))[..., None] * MELANIN + veil[..., None] * BLUE_VEIL + redness[..., None] * BLOOD


def keratosis_density(rng, mask):
    """Optical density (height, width, 3), float32: waxy tan with pale (milia) and dark (comedo) dots."""
    height = len(mask)
    keratin = rng.uniform(0.5, 0.9) + 0.12 * smooth_noise(rng, mask.shape, 0.1 * height)
    melanin = rng.uniform(0, 0.4) + 0.12 * smooth_noise(rng, mask.shape, 0.04 * height)
    melanin += rng.uniform(0.5, 1.1) * dots(rng, mask)
    density = keratin[..., None] * KERATIN + melanin[..., None] * MELANIN
    return density * (1 - rng.uniform(0.4, 0.8) * dots(rng, mask)[..., None])


def depth(mask):
    """Distance from the lesion's border: float32 (height, width), 0 outside, 1 at the core."""
    distance = cv2.distanceTransform(mask, cv2.DIST_L2, 5)
    return distance / distance.max()


def patches(rng, shape):
    """Random patches with soft borders: float32 of `shape`, 0 to 1."""
    return 1 / (1 + np.exp(5 * (0.5 - smooth_noise(rng, shape, 0.16 * shape[0]))))


def streaks(rng, mask):
    """Radial strokes just within the lesion's border: float32 (height, width), 0 to 1."""
    border = np.concatenate(cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0])[:, 0]
    centre = border.mean(axis=0)
    layer = np.zeros(mask.shape, np.uint8)
    for end in rng.choice(border, rng.integers(6, 20)):
        start = np.round(centre + rng.uniform(0.5, 0.9) * (end - centre)).astype(int)
        cv2.line(layer, start.tolist(), end.tolist(), 255, line_width(mask, rng.uniform(0.005, 0.018)))
    return soften(layer, 0.008)


def dots(rng, mask):
    """Small round spots spread over the lesion: float32 (height, width), 0 to 1."""
    inside = np.argwhere(mask)[:, ::-1]
    layer = np.zeros(mask.shape, np.uint8)
    for centre in rng.choice(inside, rng.integers(15, 45)):
        cv2.circle(layer, centre.tolist(), line_width(mask, rng.uniform(0.007, 0.018)), 255, cv2.FILLED)
    return soften(layer, 0.004)


def line_width(image, share):
    """Whole pixels that make up a share of the picture's height, at least one."""
    return max(1, round(share * len(image)))


def soften(layer, share):
    """Turn an 8-bit layer into float32 coverage 0 to 1, blurred by a share of the picture's height."""
    return cv2.GaussianBlur(layer.astype(np.float32) / 255, (0, 0), share * len(layer))


def paint_lesion(rng, skin, mask, diagnosis):
    """Put a lesion's pigments into the skin.

    Args:
        rng: numpy random generator.
        skin: float32 array (height, width, 3), RGB in 0 to 255.
        mask: uint8 array (height, width), 0 or 255.
        diagnosis: one of `CLASSES`.

    Returns:
        Array like `skin`.
    """
    densities = {"melanoma": melanoma_density, "seborrheic_keratosis": keratosis_density, "nevus": nevus_density}
    blur = 0.003 if diagnosis == "seborrheic_keratosis" else rng.uniform(0.005, 0.012)
    coverage = soften(mask, blur)[..., None]
    return skin * np.exp(-coverage * densities[diagnosis](rng, mask))


def add_hair(rng, image):
    """Lay dark, thin, curved strokes over an image (float32 RGB); returns an array like it."""
    height, width = image.shape[:2]
    layer = np.zeros((height, width), np.uint8)
    lean = rng.uniform(0, np.pi)
    along = np.linspace(-0.5, 0.5, 30)
    for _ in range(rng.integers(3, 16)):
        turn = lean + rng.normal(0, 0.4) + rng.normal(0, 0.8) * along
        steps = np.column_stack([np.cos(turn), np.sin(turn)]) * rng.uniform(0.3, 0.9) * height / len(along)
        path = np.cumsum(steps, axis=0) - steps.sum(axis=0) / 2 + rng.uniform(0, 1, 2) * (width, height)
        # The last four bits of a coordinate are its fraction of a pixel.
        stroke = np.round(path * 16).astype(np.int32)
        cv2.polylines(layer, [stroke], False, 255, line_width(image, 0.005), cv2.LINE_AA, shift=4)
    opacity = rng.uniform(0.6, 0.9) * layer.astype(np.float32)[..., None] / 255
    return image * (1 - opacity) + opacity * np.float32([45, 32, 28])


def add_ruler(rng, image):
    """Draw a ruler's tick marks along one edge of an image (float32 RGB); returns an array like it."""
    side = int(rng.integers(4))
    layer = np.rot90(np.zeros(image.shape[:2], np.uint8), side).copy()
    spacing = rng.uniform(0.03, 0.06) * len(image)
    thickness = line_width(image, 0.005)
    for number, x in enumerate(np.arange(rng.uniform(0, spacing), layer.shape[1], spacing)):
        length = (0.08 if number % 5 == 0 else 0.045) * len(image)
        cv2.line(layer, (round(x), 0), (round(x), round(length)), 255, thickness)
    opacity = 0.75 * np.rot90(soften(layer, 0.002), -side)[..., None]
    return image * (1 - opacity) + opacity * np.float32([40, 40, 45])


def add_vignette(rng, image):
    """Darken the corners of an image (float32 RGB) as a dermoscope's tube does; returns an array like it."""
    height, width = image.shape[:2]
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    away = np.hypot(x * width, y * height) / np.hypot(width, height)
    edge, softness = rng.uniform(0.88, 1.0), rng.uniform(0.01, 0.07)
    light = 1 / (1 + np.exp((away - edge) / softness))
    return image * light[..., None].astype(np.float32)


def dermoscopy_image(rng, diagnosis, height, width):
    """Make one picture and the mask of its lesion.

    Args:
        rng: numpy random generator.
        diagnosis: one of `CLASSES`.
        height: height in pixels.
        width: width in pixels.

    Returns:
        The picture (height, width, 3), uint8 RGB, and the mask (height, width), uint8, 0 or 255.
    """
    mask = lesion_shape(rng, diagnosis, height, width)
    image = paint_lesion(rng, paint_skin(rng, height, width), mask, diagnosis)
    for add, chance in [(add_hair, 0.35), (add_ruler, 0.15), (add_vignette, 0.35)]:
        if rng.random() < chance:
            image = add(rng, image)
    image = image + rng.normal(0, rng.uniform(1.5, 4), image.shape)
    return np.clip(image, 0, 255).round().astype(np.uint8), mask


def shuffled_diagnoses(rng, count):
    """Diagnoses of a split's pictures: a list of `count` names in random order, in the shares of `SHARE`."""
    numbers = [round(SHARE[name] * count) for name in CLASSES[:2]]
    return rng.permutation(np.repeat(CLASSES, [*numbers, count - sum(numbers)])).tolist()


def image_name(number):
    """The image id of a picture's number."""
    return f"ISIC_{number:07d}"


def refuse_other_images(folder, numbers):
    """Raise InputError if the folder holds images that the sample would not write over.

    They may be the challenge's own; or, left from a larger sample, they would have no label.
    """
    strange = {path.stem for path in folder.glob("ISIC_*.jpg")} - {image_name(number) for number in numbers}
    if strange:
        raise InputError(
            f"{folder} holds {min(strange)}.jpg, which is not of this sample: give another --data-dir, "
            f"or remove the folder if it is a sample of other settings"
        )


def write_split(data_dir, split, numbers, height, width, seed):
    """Write the pictures of these numbers, with masks and labels, as one split; see `write_sample`."""
    # Three words of seed, so that the order shares no generator with a picture.
    diagnoses = shuffled_diagnoses(np.random.default_rng((seed, numbers.start, len(numbers))), len(numbers))
    for number, diagnosis in zip(numbers, diagnoses, strict=True):
        rng = np.random.default_rng((seed, number))
        size = [round(side * rng.uniform(0.92, 1.08)) for side in (height, width)]
        image, mask = dermoscopy_image(rng, diagnosis, *size)
        write_image(image_folder(data_dir, split) / f"{image_name(number)}.jpg", image)
        write_image(mask_folder(data_dir, split) / f"{image_name(number)}_segmentation.png", mask)
    table = {"image_id": [image_name(number) for number in numbers]}
    table |= {name: [float(diagnosis == name) for diagnosis in diagnoses] for name in CLASSES[:2]}
    with whole_file(label_table(data_dir, split)) as part:
        pd.DataFrame(table).to_csv(part, index=False, lineterminator="\n")


def write_sample(data_dir, counts, seed, height=192, width=256):
    """Write a whole data set in the official layout; one made before with the same counts is written over.

    Args:
        data_dir: folder to write into.
        counts: dictionary from split ("training", "validation", "test") to its number of pictures.
        seed: whole number >= 0; the same arguments give the same bytes.
        height: height in pixels, from which each picture departs by up to 8 %.
        width: width in pixels, likewise.

    Raises:
        InputError: if a number is too small, or if a folder to write into holds other images.
    """
    if min(height, width) < SMALLEST_SIDE:
        raise InputError(f"--height {height} --width {width} is too small: give at least {SMALLEST_SIDE} pixels each")
    if min(counts.values()) < 1 or seed < 0:
        raise InputError(f"{counts} with --seed {seed} cannot be made: give each split 1 picture or more, a seed >= 0")
    ends = np.cumsum([0, *counts.values()]).tolist()
    numbers = {split: range(*span) for split, span in zip(counts, pairwise(ends), strict=True)}
    for split in counts:
        refuse_other_images(image_folder(data_dir, split), numbers[split])
    for split in counts:
        write_split(data_dir, split, numbers[split], height, width, seed)


@dataclass(frozen=True)
class Arguments:
    """Write the built-in sample of synthetic dermoscopy-like pictures."""

    data_dir: Path = Path("data/sample")
    """Folder to write into, in the official ISIC 2017 layout."""
    training: int = 96
    """Number of training pictures."""
    validation: int = 30
    """Number of validation pictures."""
    test: int = 60
    """Number of test pictures."""
    height: int = 192
    """Height in pixels, from which each picture departs by up to 8 %."""
    width: int = 256
    """Width in pixels, likewise."""
    seed: int = 0
    """Seed of all randomness; the same settings give the same bytes."""


def main():
    """Write the sample that the command line asks for and say so."""
    arguments = tyro.cli(Arguments, prog="python -m data.sample")
    counts = {split: getattr(arguments, split) for split in OFFICIAL_NAME}
    with one_sentence_errors():
        write_sample(arguments.data_dir, counts, arguments.seed, arguments.height, arguments.width)
    written = ", ".join(f"{count} {split}" for split, count in counts.items())
    print(f"wrote {written} pictures with masks and labels to {arguments.data_dir}")


if __name__ == "__main__":
    main()
