"""The built-in sample: small dermoscopy-like pictures in the official ISIC 2017 layout, with masks and labels.

    python -m data.draw_sample --data-dir data/sample

The pictures are synthetic. With them, every stage can run without the challenge's data. Their three diagnoses differ
in shape, border and colours as described in textbooks. But metrics on these pictures do not predict performance on
real skin lesions.

A picture shows unevenly lit skin. Where the pigments of the lesion have the optical density `d` in a colour channel,
its value is `skin * exp(-d)`. Hair and a vignette may be added. Each picture has its own random generator, seeded by
(seed, number), so the same settings give the same bytes with the same libraries.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import tyro

from data.classes import ISIC_2017
from data.images import write_image
from data.official import OFFICIAL_NAME, SAMPLE, image_folder, label_table, mask_folder
from data.own_images import images_in
from utils.errors import InputError, one_sentence_errors
from utils.files import atomic_write

MARK = "DRAWN_PICTURES.txt"  # a file in the folder of every sample
SHARE = {"melanoma": 0.30, "seborrheic_keratosis": 0.25}  # the rest are nevi
SMALLEST_SIDE = 64  # pixels; below, dots and hair are thinner than one pixel

# Ranges for the outline of a lesion: its longer side as a share of the picture's shorter side, shorter axis over longer
# axis, and relative amplitudes of slow and of fast deviations from that ellipse.
OUTLINES = {
    "melanoma": ((0.36, 0.75), (0.6, 0.95), (0.05, 0.18), (0.02, 0.06)),
    "seborrheic_keratosis": ((0.32, 0.68), (0.6, 0.95), (0.02, 0.08), (0.004, 0.02)),
    "nevus": ((0.25, 0.58), (0.7, 1.0), (0.01, 0.05), (0.002, 0.012)),
}
# Optical density of one unit of each pigment in (red, green, blue).
MELANIN = np.float32([0.55, 0.9, 1.1])
BLUE_VEIL = np.float32([1.3, 0.95, 0.65])
BLOOD = np.float32([0.25, 0.85, 0.8])
KERATIN = np.float32([0.25, 0.35, 0.8])


def smooth_noise(rng, shape, grain):
    """Random field, float32 of `shape`, that varies over `grain` pixels; mean about 0, standard deviation about 1."""
    coarse = rng.standard_normal((int(shape[0] / grain) + 3, int(shape[1] / grain) + 3), np.float32)
    return cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)


def lesion_shape(rng, diagnosis, height, width):
    """Draw a lesion's exact shape.

    Returns:
        Mask (height, width), uint8, 255 within the lesion and 0 elsewhere.
    """
    size, aspect, *amplitudes = OUTLINES[diagnosis]
    angle = np.linspace(0, 2 * np.pi, 360, endpoint=False)
    radius = 1 / np.hypot(np.cos(angle), np.sin(angle) / rng.uniform(*aspect))
    for orders, amplitude in zip((range(1, 5), range(7, 30)), amplitudes, strict=True):
        phases = rng.uniform(0, 2 * np.pi, len(orders))
        waves = np.cos(np.outer(orders, angle) + phases[:, None]) / np.sqrt(orders)[:, None]
        radius = radius * (1 + rng.uniform(*amplitude) * waves.sum(axis=0))
    turned = angle + rng.uniform(0, 2 * np.pi)
    points = np.column_stack([radius * np.cos(turned), radius * np.sin(turned)])
    points -= (points.min(axis=0) + points.max(axis=0)) / 2
    points *= rng.uniform(*size) * min(height, width) / np.ptp(points, axis=0).max()
    frame = np.array([width, height])
    free = (frame - np.ptp(points, axis=0)) / 2
    centre = frame / 2 + np.clip(rng.normal(0, 0.09, 2) * frame, -free, free)
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [np.round(points + centre).astype(np.int32)], 255)
    return mask


def paint_skin(rng, shape):
    """Paint bare skin: float32 array (height, width, 3), RGB in 0 to 255."""
    tone = np.float32([216, 170, 150]) * rng.uniform(0.9, 1.06) + rng.normal(0, 4, 3)
    light = 1 + 0.04 * smooth_noise(rng, shape, 0.6 * shape[0])
    flush = 0.025 * smooth_noise(rng, shape, 0.25 * shape[0]) + 0.012 * smooth_noise(rng, shape, 0.02 * shape[0])
    return (tone * light[..., None] * np.exp(-BLOOD * flush[..., None])).astype(np.float32)


def nevus_density(rng, mask):
    """Optical density (height, width, 3), float32: one or two even shades of brown, darker at the core."""
    depth = cv2.distanceTransform(mask, cv2.DIST_L2, 5)
    melanin = rng.uniform(0.75, 1.2) + rng.uniform(0, 0.6) * np.sqrt(depth / depth.max())
    melanin = melanin + rng.uniform(0.05, 0.15) * smooth_noise(rng, mask.shape, 0.12 * len(mask))
    return melanin[..., None] * MELANIN


def melanoma_density(rng, mask):
    """Optical density (height, width, 3), float32: patches of brown, black, blue-grey and red."""
    melanin = rng.uniform(0.9, 1.4) + rng.uniform(0.3, 0.7) * smooth_noise(rng, mask.shape, 0.13 * len(mask))
    patches = [1 / (1 + np.exp(5 * (0.5 - smooth_noise(rng, mask.shape, 0.16 * len(mask))))) for _ in range(2)]
    veil, redness = (rng.uniform(0.3, 1.0) * patch for patch in patches)
    melanin = np.maximum(melanin, 0.35) * (1 - 0.5 * veil)
    return melanin[..., None] * MELANIN + veil[..., None] * BLUE_VEIL + redness[..., None] * BLOOD


def keratosis_density(rng, mask):
    """Optical density (height, width, 3), float32: waxy tan with pale (milia) and dark (comedo) dots."""
    keratin = rng.uniform(0.5, 0.9) + 0.12 * smooth_noise(rng, mask.shape, 0.1 * len(mask))
    melanin = rng.uniform(0, 0.4) + rng.uniform(0.5, 1.1) * dots(rng, mask)
    density = keratin[..., None] * KERATIN + melanin[..., None] * MELANIN
    return density * (1 - rng.uniform(0.4, 0.8) * dots(rng, mask)[..., None])


def dots(rng, mask):
    """Small round spots spread over the lesion: float32 (height, width), 0 to 1."""
    layer = np.zeros(mask.shape, np.uint8)
    for centre in rng.choice(np.argwhere(mask)[:, ::-1], rng.integers(15, 45)):
        cv2.circle(layer, centre.tolist(), max(1, round(rng.uniform(0.007, 0.018) * len(mask))), 255, cv2.FILLED)
    return soften(layer, 0.004)


def soften(layer, share):
    """Turn an 8-bit layer into float32 coverage, 0 to 1, and blur it by a share of the picture's height."""
    return cv2.GaussianBlur(layer.astype(np.float32) / 255, (0, 0), share * len(layer))


def add_hair(rng, image):
    """Draw dark, thin, curved hairs on an image (float32 RGB), and return a new array."""
    height, width = image.shape[:2]
    layer = np.zeros((height, width), np.uint8)
    lean, along = rng.uniform(0, np.pi), np.linspace(-0.5, 0.5, 30)
    for _ in range(rng.integers(3, 16)):
        turn = lean + rng.normal(0, 0.4) + rng.normal(0, 0.8) * along
        steps = np.column_stack([np.cos(turn), np.sin(turn)]) * rng.uniform(0.3, 0.9) * height / len(along)
        path = np.cumsum(steps, axis=0) - steps.sum(axis=0) / 2 + rng.uniform(0, 1, 2) * (width, height)
        # The last four bits of a coordinate are its fraction of a pixel.
        stroke = np.round(path * 16).astype(np.int32)
        cv2.polylines(layer, [stroke], False, 255, max(1, round(0.005 * height)), cv2.LINE_AA, shift=4)
    opacity = rng.uniform(0.6, 0.9) * layer.astype(np.float32)[..., None] / 255
    return image * (1 - opacity) + opacity * np.float32([45, 32, 28])


def add_vignette(rng, image):
    """Darken the corners of an image (float32 RGB) like the tube of a dermoscope, and return a new array."""
    height, width = image.shape[:2]
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    away = np.hypot(x * width, y * height) / np.hypot(width, height)
    light = 1 / (1 + np.exp((away - rng.uniform(0.88, 1.0)) / rng.uniform(0.01, 0.07)))
    return image * light[..., None].astype(np.float32)


def dermoscopy_image(rng, diagnosis, height, width):
    """Make one picture and the mask of its lesion.

    Args:
        rng: numpy random generator.
        diagnosis: one of `data.classes.ISIC_2017`.
        height: height in pixels.
        width: width in pixels.

    Returns:
        The picture (height, width, 3), uint8 RGB, and the mask (height, width), uint8, 0 or 255.
    """
    density = {"melanoma": melanoma_density, "seborrheic_keratosis": keratosis_density, "nevus": nevus_density}
    mask = lesion_shape(rng, diagnosis, height, width)
    coverage = soften(mask, 0.003 if diagnosis == "seborrheic_keratosis" else rng.uniform(0.005, 0.012))
    image = paint_skin(rng, mask.shape) * np.exp(-coverage[..., None] * density[diagnosis](rng, mask))
    for add in (add_hair, add_vignette):
        if rng.random() < 0.35:
            image = add(rng, image)
    image = image + rng.normal(0, rng.uniform(1.5, 4), image.shape)
    return np.clip(image, 0, 255).round().astype(np.uint8), mask


def shuffled_diagnoses(rng, count):
    """Diagnoses of a split's pictures: a list of `count` names in random order, in the shares of `SHARE`."""
    numbers = [round(SHARE[name] * count) for name in ISIC_2017[:2]]
    return rng.permutation(np.repeat(ISIC_2017, [*numbers, count - sum(numbers)])).tolist()


def image_name(number):
    """The image id of a picture's number."""
    return f"ISIC_{number:07d}"


def refuse_other_data(data_dir, split, numbers):
    """Raise `InputError` if the folder of a split holds images that the sample would not overwrite, or true labels.

    The images may be the challenge's, or remain from a larger sample and then have no label.
    """
    for present in (label_table(data_dir, split), mask_folder(data_dir, split)):
        if present.exists() and not is_sample(data_dir):
            raise InputError(f"{present} is not of a sample and would be overwritten: give another --data-dir")
    folder = image_folder(data_dir, split)
    written = {f"{image_name(number)}.jpg" for number in numbers}
    strange = {path.name for path in images_in(folder)[0]} - written if folder.is_dir() else None
    if strange:
        raise InputError(
            f"{folder} holds {min(strange)}, which is not of this sample: give another --data-dir, "
            f"or remove the folder if it is a sample of other settings"
        )


def write_split(data_dir, split, numbers, height, width, seed):
    """Write the pictures of these numbers, with masks and labels, as one split; see `write_sample`."""
    # The seed has three numbers here, so that the order does not use the random generator of a picture.
    diagnoses = shuffled_diagnoses(np.random.default_rng((seed, numbers.start, len(numbers))), len(numbers))
    for number, diagnosis in zip(numbers, diagnoses, strict=True):
        rng = np.random.default_rng((seed, number))
        size = [round(side * rng.uniform(0.92, 1.08)) for side in (height, width)]
        image, mask = dermoscopy_image(rng, diagnosis, *size)
        write_image(image_folder(data_dir, split) / f"{image_name(number)}.jpg", image)
        write_image(mask_folder(data_dir, split) / f"{image_name(number)}_segmentation.png", mask)
    table = {"image_id": [image_name(number) for number in numbers]}
    table |= {name: [float(diagnosis == name) for diagnosis in diagnoses] for name in ISIC_2017[:2]}
    with atomic_write(label_table(data_dir, split)) as part:
        pd.DataFrame(table).to_csv(part, index=False, lineterminator="\n")


def write_sample(data_dir, counts, seed, height=192, width=256):
    """Write a whole data set in the official layout. A former sample with the same counts is overwritten.

    Args:
        data_dir: folder to write into.
        counts: dictionary from split ("training", "validation", "test") to its number of pictures.
        seed: whole number >= 0; the same arguments give the same bytes.
        height: height in pixels, from which each picture deviates by up to 8 %.
        width: width in pixels, likewise.

    Raises:
        InputError: if a number is too small, or if a folder to write into holds other images or labels.
    """
    if min(height, width) < SMALLEST_SIDE:
        raise InputError(f"--height {height} --width {width} is too small: give at least {SMALLEST_SIDE} pixels each")
    if min(counts.values()) < 1 or seed < 0:
        raise InputError(f"{counts} with --seed {seed} cannot be made: give each split 1 picture or more, a seed >= 0")
    ends = np.cumsum([0, *counts.values()]).tolist()
    numbers = {split: range(*span) for split, span in zip(counts, pairwise(ends), strict=True)}
    for split in counts:
        refuse_other_data(data_dir, split, numbers[split])
    with atomic_write(Path(data_dir) / MARK) as part:
        part.write_text(
            "These pictures are drawn by a program. What is trained on them says nothing about skin.\n",
            encoding="utf-8",
        )
    for split in counts:
        write_split(data_dir, split, numbers[split], height, width, seed)


def is_sample(data_dir):
    """Whether a folder holds a sample of this module. An older one has no `MARK`, so its path is compared."""
    return Path(data_dir).resolve() == SAMPLE.resolve() or (Path(data_dir) / MARK).exists()


@dataclass(frozen=True)
class Arguments:
    """Write the built-in sample of synthetic dermoscopy-like pictures."""

    data_dir: Path = SAMPLE
    """Folder to write into, in the official ISIC 2017 layout."""
    training: int = 96
    """Number of training pictures."""
    validation: int = 30
    """Number of validation pictures."""
    test: int = 60
    """Number of test pictures."""
    height: int = 192
    """Height in pixels, from which each picture deviates by up to 8 %."""
    width: int = 256
    """Width in pixels, likewise."""
    seed: int = 0
    """Seed of all randomness; the same settings give the same bytes."""


def main():
    """Write the sample of the command line."""
    arguments = tyro.cli(Arguments, prog="python -m data.draw_sample")
    counts = {split: getattr(arguments, split) for split in OFFICIAL_NAME}
    with one_sentence_errors():
        write_sample(arguments.data_dir, counts, arguments.seed, arguments.height, arguments.width)
    written = ", ".join(f"{count} {split}" for split, count in counts.items())
    print(f"wrote {written} pictures with masks and labels to {arguments.data_dir}")


if __name__ == "__main__":
    main()
