import fcntl
import io
import os
import resource
import struct
import zlib
from contextlib import contextmanager

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from data.images import (
    check_images,
    image_facts,
    image_size,
    mask_facts,
    read_image,
    read_mask,
    read_square,
    read_square_mask,
    resize,
    write_image,
)
from data.lesion import ImageView, lesion_box, lesion_mask, read_crop
from evaluation.metrics import mask_metrics
from evaluation.overlays import outlined
from evaluation.plots import crop_examples, save
from utils.errors import InputError
from utils.files import atomic_write

EXIF_ORIENTATION = 0x0112


def picture(height, width, seed=0):
    """A smooth picture with fine texture: uint8 RGB."""
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(rng.uniform(60, 200, (5, 6, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
    texture = cv2.GaussianBlur(rng.normal(0, 40, (height, width, 3)), (0, 0), 2)
    return np.clip(coarse + texture, 0, 255).astype(np.uint8)


def encoded(image, suffix):
    return cv2.imencode(suffix, image)[1].tobytes()


def mean_difference(first, second):
    return np.abs(first.astype(float) - second.astype(float)).mean()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotated_photograph_is_read_upright_and_its_size_alike(tmp_path, orientation):
    path = tmp_path / "rotated.jpg"
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    Image.fromarray(picture(60, 100)).save(path, exif=exif, quality=95)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    assert image_size(path) == upright.shape[:2]
    assert mean_difference(read_image(path), upright) < 2  # two JPEG decoders may round differently


XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description {}/></x:xmpmeta>'


def long_exif(orientation):
    """EXIF data, big-endian, whose orientation is a LONG instead of a SHORT."""
    entry = struct.pack(">HHII", EXIF_ORIENTATION, 4, 1, orientation)
    return b"Exif\0\0MM" + struct.pack(">HIH", 42, 8, 1) + entry + bytes(4)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("source", ["XMP attribute", "XMP element", "LONG", "PNG"])
@pytest.mark.parametrize("at_least", [None, 20])
def test_every_way_to_note_a_turn_holds_for_size_and_pixels_alike(tmp_path, orientation, source, at_least):
    path = tmp_path / ("turned.png" if source == "PNG" else "turned.jpg")
    how = {"exif": long_exif(orientation)}
    if source == "XMP attribute":
        how = {"xmp": XMP.format(f'tiff:Orientation="{orientation}"').encode()}
    elif source == "XMP element":
        how = {"xmp": f"<tiff:Orientation>{orientation}</tiff:Orientation>".encode()}
    Image.fromarray(picture(60, 100)).save(path, quality=95, **how)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    assert (upright.shape[0] == 100) == (orientation >= 5)
    assert image_size(path) == upright.shape[:2]
    image = read_image(path, at_least)
    assert mean_difference(image, resize(upright, *image.shape[:2])) < 2
    if at_least is None:
        assert image.shape == upright.shape
        grey = cv2.cvtColor(upright, cv2.COLOR_RGB2GRAY)
        assert ((read_mask(path) > 0) == (grey > 128)).mean() > 0.95


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize(
    "trailer", [bytes(2000), b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 40], ids=["zeros", "motion photo"]
)
def test_what_follows_a_whole_image_does_not_make_it_cut_off(tmp_path, suffix, trailer):
    path = tmp_path / f"whole{suffix}"
    path.write_bytes(encoded(picture(60, 100), suffix) + trailer)
    assert image_size(path) == (60, 100)
    assert read_image(path).shape == (60, 100, 3)


def test_the_end_of_a_small_picture_within_is_not_the_images_own(tmp_path):
    inner, path = io.BytesIO(), tmp_path / "cut.jpg"
    Image.fromarray(picture(30, 40)).save(inner, "JPEG")
    Image.fromarray(picture(300, 400)).save(path, exif=b"Exif\0\0" + inner.getvalue(), quality=95)
    content = path.read_bytes()
    assert image_size(path) == (300, 400)
    path.write_bytes(content[:-4000])
    with pytest.raises(InputError, match=r"cut\.jpg is cut off"):
        image_size(path)
    path.write_bytes(content + bytes(2000))
    assert image_size(path) == (300, 400)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_name_of_any_bytes_is_read(tmp_path, suffix):
    path = tmp_path / os.fsdecode(b"caf\xe9" + suffix.encode())
    write_image(path, picture(60, 100))
    assert image_size(path) == (60, 100)
    assert read_image(path, at_least=20).shape[2] == 3
    assert read_mask(path).shape == (60, 100)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="caf"):
        read_image(path)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1)])
def test_an_image_of_one_pixel_goes_all_the_way(tmp_path, suffix, size):
    path, mask = tmp_path / f"one{suffix}", tmp_path / "mask.png"
    write_image(path, np.full((*size, 3), 99, np.uint8))
    assert check_images({"one": path}, workers=1, look=image_facts) == ({"one": (*size, 1)}, {})
    assert read_square(path, 32).shape == (32, 32, 3)
    lesion = lesion_mask(np.ones((32, 32)), *size, sigma=2, threshold=0.5)
    write_image(mask, lesion)
    np.testing.assert_array_equal(read_mask(mask), lesion)
    box = lesion_box(lesion, margin_px=55)
    assert read_crop(path, box, 32).shape == (32, 32, 3)
    assert mask_metrics(lesion, lesion)["jaccard"] == 1
    view = ImageView(read_image(path), 1, lesion, box, read_crop(path, box, 32))
    assert outlined(view).shape == (*size, 3)
    save(crop_examples({"ISIC_$}$": view}), tmp_path / "a.png")
    assert cv2.imread(str(tmp_path / "a.png")) is not None


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_damage_that_only_decoding_shows_is_found(tmp_path, suffix):
    content = bytearray(encoded(picture(60, 100), ".png"))
    content[len(content) // 2] ^= 0x55  # in the middle of the pixels: header and end stay whole
    path = tmp_path / f"spoilt{suffix}"
    path.write_bytes(content)
    assert check_images({"spoilt": path}, workers=1) == ({"spoilt": (60, 100)}, {})
    sizes, bad = check_images({"spoilt": path}, workers=1, look=image_facts)
    assert not sizes
    assert path.name in str(bad["spoilt"])


def test_an_image_that_is_closed_to_us_is_not_called_damaged(tmp_path, as_nobody):
    path = tmp_path / "closed.jpg"
    path.write_bytes(encoded(picture(20, 30), ".jpg"))
    path.chmod(0)
    for read in (image_size, read_image, read_mask):
        with as_nobody(), pytest.raises(InputError, match=r"closed\.jpg cannot be read, permission denied"):
            read(path)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("lost", [0.9, 0.5, 0.01, 20, 8, 4, 1])
def test_cut_off_image_is_refused_by_name(tmp_path, suffix, lost):
    content = encoded(picture(120, 160), suffix)
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(content)
    assert image_size(path) == (120, 160)
    path.write_bytes(content[: -lost if isinstance(lost, int) else int((1 - lost) * len(content))])
    with pytest.raises(InputError, match=f"cut{suffix}"):
        image_size(path)


@pytest.mark.parametrize("content", [b"", b"not an image at all" * 100], ids=["no bytes", "text"])
@pytest.mark.parametrize("read", [image_size, read_image, read_mask])
def test_file_that_is_no_image_is_refused_by_name(tmp_path, content, read):
    (tmp_path / "bad.jpg").write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.jpg"):
        read(tmp_path / "bad.jpg")


def test_missing_image_is_named(tmp_path):
    with pytest.raises(InputError, match=r"absent\.jpg is missing"):
        image_size(tmp_path / "absent.jpg")


def test_whole_image_of_another_format_is_not_called_cut_off(tmp_path):
    (tmp_path / "renamed.jpg").write_bytes(encoded(picture(20, 30), ".gif"))
    with pytest.raises(InputError, match=r"renamed\.jpg") as error:
        image_size(tmp_path / "renamed.jpg")
    assert "cut off" not in str(error.value)


def test_header_that_claims_a_gigantic_size_is_refused_by_name(tmp_path):
    content = bytearray(encoded(picture(20, 30), ".png"))
    content[16:24] = struct.pack(">II", 30_000, 30_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))  # the header's own checksum
    (tmp_path / "bomb.png").write_bytes(content)
    with pytest.raises(InputError, match=r"bomb\.png"):
        image_size(tmp_path / "bomb.png")


def test_check_images_tells_good_files_from_bad_ones(tmp_path):
    paths = {name: tmp_path / f"{name}.png" for name in ("good", "bad", "fine", "lost")}
    for width, path in zip((30, 10, 20, 15), paths.values(), strict=True):
        path.write_bytes(encoded(picture(8, width), ".png"))
    paths["bad"].write_bytes(b"")
    paths["lost"].unlink()
    sizes, bad = check_images(paths, workers=2)
    assert sizes == {"good": (8, 30), "fine": (8, 20)}
    assert list(bad) == ["bad", "lost"]
    assert all(str(paths[name]) in str(error) for name, error in bad.items())


@pytest.mark.parametrize(
    ("at_least", "size"),
    [(None, (720, 960)), (361, (720, 960)), (360, (360, 480)), (181, (360, 480)), (180, (180, 240)), (90, (90, 120))],
)
def test_reduced_decoding_stays_at_or_above_the_side_asked_for(tmp_path, at_least, size):
    path = tmp_path / "large.jpg"
    path.write_bytes(encoded(picture(720, 960), ".jpg"))
    assert read_image(path, at_least).shape == (*size, 3)


@pytest.mark.parametrize("shape", [(720, 960), (960, 720)])
def test_square_of_a_large_photograph_is_close_to_the_exact_one(tmp_path, shape):
    path = tmp_path / "large.jpg"
    path.write_bytes(encoded(picture(*shape), ".jpg"))
    square = read_square(path, 112)
    assert square.shape == (112, 112, 3)
    assert mean_difference(square, resize(read_image(path), 112, 112)) < 1


@pytest.mark.parametrize("form", ["JPEG", "MPO"])
def test_a_reduced_jpeg_is_not_shifted_where_its_sides_are_no_multiples(tmp_path, form):
    yy, xx = np.mgrid[0:705, 0:897]
    squares = np.repeat(((yy // 32 + xx // 32) % 2 * 200).astype(np.uint8)[..., None], 3, axis=2)
    more = {"save_all": True, "append_images": [Image.fromarray(squares[:8, :8])]} if form == "MPO" else {}
    Image.fromarray(squares).save(tmp_path / "squares.jpg", form, quality=95, **more)
    found, exact = read_square(tmp_path / "squares.jpg", 84), resize(squares, 84, 84)
    assert mean_difference(found[-20:, -20:], exact[-20:, -20:]) < 10  # 60 if the padding of the blocks is not removed


MASKS = {
    "soft edges": ([[0, 1, 127], [128, 129, 255]], [[0, 0, 0], [0, 255, 255]]),  # above 128, as the challenge's scorer
    "faint": ([[0, 0, 9], [64, 127, 128]], [[0, 0, 0], [0, 0, 0]]),
    "0 and 1": ([[0, 1, 1], [1, 0, 0]], [[0, 255, 255], [255, 0, 0]]),
}


@pytest.mark.parametrize("mode", ["L", "RGB", "LA", "RGBA"])
@pytest.mark.parametrize("name", MASKS)
def test_mask_is_0_or_255_whatever_the_file_holds(tmp_path, name, mode):
    stored, expected = MASKS[name]
    Image.fromarray(np.array(stored, np.uint8)).convert(mode).save(tmp_path / "mask.png")
    mask = read_mask(tmp_path / "mask.png")
    np.testing.assert_array_equal(mask, expected)
    assert mask.dtype == np.uint8


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("colour", [0, 255, None], ids=["black", "white", "the lesion's own"])
def test_a_lesion_in_the_alpha_channel_is_read(tmp_path, mode, colour):
    lesion = np.zeros((6, 8), np.uint8)
    lesion[2:4, 3:7] = 255
    image = Image.fromarray(lesion if colour is None else np.full_like(lesion, colour)).convert(mode)
    image.putalpha(Image.fromarray(lesion))
    image.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), lesion)


def test_what_a_mask_looks_like_is_found(tmp_path):
    mask = np.zeros((10, 10), np.uint8)
    mask[3:7, 3:8] = 255
    for name, pixels in (("lesion", mask), ("inverted", 255 - mask)):
        write_image(tmp_path / f"{name}.png", pixels)
    assert mask_facts(tmp_path / "lesion.png") == (10, 10, 1, 0.2, 0)
    assert mask_facts(tmp_path / "inverted.png") == (10, 10, 1, 0.8, 1)


# ---- colours, depths and formats -------------------------------------------------------------------------------------


def srgb_profile(swapped=False):
    """Bytes of an sRGB profile, red and blue swapped if asked for."""
    content = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    if swapped:
        content = content.replace(b"rXYZ", b"tXYZ", 1).replace(b"bXYZ", b"rXYZ", 1).replace(b"tXYZ", b"bXYZ", 1)
    return content


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_an_icc_profile_is_converted_to_srgb(tmp_path, suffix):
    path, profile, image = tmp_path / f"image{suffix}", srgb_profile(swapped=True), Image.fromarray(picture(60, 100))
    how = {"quality": 98, "subsampling": 0} if suffix == ".jpg" else {"lossless": True} if suffix == ".webp" else {}
    image.save(path, icc_profile=profile, **how)
    expected = ImageCms.profileToProfile(image, io.BytesIO(profile), ImageCms.createProfile("sRGB"))
    assert mean_difference(np.asarray(image), np.asarray(expected)) > 10
    assert mean_difference(read_image(path), np.asarray(expected)) < (2 if suffix == ".jpg" else 0.01)
    if suffix == ".jpg":
        half = read_image(path, at_least=30)
        assert mean_difference(half, resize(np.asarray(expected), *half.shape[:2])) < 3


@pytest.mark.parametrize("profile", [None, b"damaged" * 40, srgb_profile()])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_without_a_profile_or_with_one_that_changes_nothing_the_pixels_are_the_files_own(tmp_path, suffix, profile):
    path = tmp_path / f"image{suffix}"
    Image.fromarray(picture(60, 100)).save(path, icc_profile=profile)
    np.testing.assert_allclose(read_image(path), cv2.imread(str(path))[..., ::-1], atol=1 if profile else 0)


def test_a_cmyk_image_with_a_profile_of_other_channels_is_read_as_without(tmp_path):
    image = Image.fromarray(picture(60, 100)).convert("CMYK")
    for name, profile in (("plain", None), ("other", srgb_profile())):
        image.save(tmp_path / f"{name}.jpg", icc_profile=profile, quality=95)
    assert mean_difference(read_image(tmp_path / "plain.jpg"), read_image(tmp_path / "other.jpg")) < 2


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_fewer_bits_stored_in_16_are_read_as_all_16(tmp_path, bits):
    image = picture(60, 100).astype(np.uint16)
    path = tmp_path / "deep.png"
    cv2.imwrite(str(path), (image << (bits - 8))[..., ::-1])
    np.testing.assert_array_equal(read_image(path), image)


def test_a_pgm_file_of_16_bits_is_not_clipped(tmp_path):
    grey = (np.arange(60).reshape(6, 10) * 1000).astype(">u2")
    (tmp_path / "a.pgm").write_bytes(b"P5 10 6 65535\n" + grey.tobytes())
    np.testing.assert_array_equal(read_image(tmp_path / "a.pgm")[..., 0], grey // 256)


@pytest.mark.parametrize(("stated", "bits"), [(12, 12), (16, 16), (10, 10), (8, 16)])
def test_a_png_that_says_how_many_bits_it_uses_is_taken_at_its_word(tmp_path, stated, bits):
    image = (picture(60, 100) // 4).astype(np.uint16) << 2  # below 256: darker than the depth would let it be
    image = image << 2  # no more than 10 bits
    content = encoded(image, ".png")
    chunk = b"sBIT" + bytes([stated] * 3)
    chunk = struct.pack(">I", 3) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path = tmp_path / "deep.png"
    path.write_bytes(content[:33] + chunk + content[33:])  # behind the signature and IHDR
    np.testing.assert_array_equal(read_image(path), image[..., ::-1] >> (bits - 8))


def test_only_jpegs_are_decoded_at_a_part_of_their_size(tmp_path):
    stripes = np.full((800, 800, 3), 200, np.uint8)
    stripes[::8] = 0
    cv2.imwrite(str(tmp_path / "stripes.png"), stripes)
    np.testing.assert_allclose(read_square(tmp_path / "stripes.png", 100), 175)


@pytest.mark.parametrize("suffix", [".bmp", ".tif", ".webp", ".jfif", ".ppm"])
def test_other_formats_are_read_and_refused_where_they_are_cut_off(tmp_path, suffix):
    path, image = tmp_path / f"image{suffix}", picture(60, 100)
    Image.fromarray(image).save(path, **({"lossless": True} if suffix == ".webp" else {}))
    assert image_size(path) == (60, 100)
    assert mean_difference(read_image(path), image) < (3 if suffix == ".jfif" else 0.01)
    path.write_bytes(path.read_bytes()[:-20])
    assert list(check_images({"cut": path}, workers=1, look=image_facts)[1]) == ["cut"]


def test_a_tiff_whose_samples_would_be_cut_off_is_refused(tmp_path):
    path = tmp_path / "deep.tif"
    for deep in (np.zeros((6, 8, 3), np.uint16), np.zeros((6, 8), np.float32)):
        cv2.imwrite(str(path), deep)
        with pytest.raises(InputError, match=r"deep\.tif cannot be read .*bits per sample.* convert it"):
            read_image(path)
    cv2.imwrite(str(path), np.full((6, 8), 4095, np.uint16))
    np.testing.assert_array_equal(read_image(path), np.full((6, 8, 3), 255))


@pytest.mark.parametrize("suffix", [".tif", ".webp"])
@pytest.mark.parametrize("orientation", [3, 6])
def test_other_formats_are_turned_upright(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    Image.fromarray(picture(60, 100)).save(tmp_path / f"turned{suffix}", exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / f"turned{suffix}")).convert("RGB"))
    assert upright.shape[0] == (100 if orientation == 6 else 60)
    assert image_size(tmp_path / f"turned{suffix}") == upright.shape[:2]
    np.testing.assert_array_equal(read_image(tmp_path / f"turned{suffix}"), upright)


@pytest.mark.parametrize("what", ["zTXt", "iTXt", "iCCP"])
def test_a_png_with_a_large_compressed_chunk_is_read(tmp_path, what):
    path, text, image = tmp_path / "large.png", PngImagePlugin.PngInfo(), picture(60, 100)
    how = {"icc_profile": bytes(3_000_000)} if what == "iCCP" else {"pnginfo": text}
    if what == "zTXt":
        text.add_text("Comment", "x" * 3_000_000, zip=True)
    else:
        text.add_itxt("Comment", "x" * 3_000_000, zip=True)
    Image.fromarray(image).save(path, **how)
    assert image_size(path) == (60, 100)
    np.testing.assert_array_equal(read_image(path), image)


def test_square_mask_is_grey_where_the_edge_cuts_a_pixel(tmp_path):
    mask = np.zeros((4, 8), np.uint8)
    mask[:, :6] = 255
    write_image(tmp_path / "mask.png", mask)
    np.testing.assert_array_equal(read_square_mask(tmp_path / "mask.png", 2), [[255, 128], [255, 128]])


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_red_is_written_and_read_as_red(tmp_path, suffix):
    path = tmp_path / f"red{suffix}"
    write_image(path, np.full((8, 8, 3), (255, 0, 0), np.uint8))
    np.testing.assert_allclose(Image.open(path).getpixel((4, 4)), (255, 0, 0), atol=3)
    np.testing.assert_allclose(read_image(path)[4, 4], (255, 0, 0), atol=3)


def test_written_mask_has_one_channel(tmp_path):
    write_image(tmp_path / "folder" / "mask.png", np.full((4, 6), 255, np.uint8))
    with Image.open(tmp_path / "folder" / "mask.png") as image:
        assert (image.mode, image.size) == ("1", (6, 4))  # OpenCV reads it as one 8-bit channel, 0 or 255
    assert cv2.imread(str(tmp_path / "folder" / "mask.png"), cv2.IMREAD_UNCHANGED).dtype == np.uint8


@contextmanager
def files_limited_to(size):
    """Let no file grow beyond some bytes, like a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("before", [{}, {"image.png": b"the old image"}])
def test_image_that_breaks_off_leaves_the_folder_as_it_was(tmp_path, before):
    for name, content in before.items():
        (tmp_path / name).write_bytes(content)
    with files_limited_to(100), pytest.raises(OSError):  # noqa: PT011  the message is the system's
        write_image(tmp_path / "image.png", picture(20, 20))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_whole_file_appears_only_at_the_end_with_its_suffix_before(tmp_path):
    path = tmp_path / "new" / "model.keras"
    with atomic_write(path) as part:
        assert part.parent == path.parent
        assert part.suffix == ".keras"
        part.write_text("first")
        assert not path.exists()
    assert [(file.name, file.read_text()) for file in path.parent.iterdir()] == [("model.keras", "first")]


def test_what_is_flushed_is_open_for_writing(tmp_path, monkeypatch):
    modes = []
    monkeypatch.setattr(os, "fsync", lambda handle: modes.append(fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE))
    with atomic_write(tmp_path / "file") as part:
        part.write_text("whole")
    assert modes == [os.O_RDWR]  # Windows flushes no file that is open for reading alone
    assert (tmp_path / "file").read_text() == "whole"


@pytest.mark.parametrize("size", [(5, 7), (40, 60), (5, 60), (40, 7), (20, 30)])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_resized_constant_stays_constant(size, channels):
    resized = resize(np.full((20, 30, *channels), 77, np.uint8), *size)
    np.testing.assert_array_equal(resized, np.full((*size, *channels), 77))
    assert resized.dtype == np.uint8


def test_fine_checkerboard_shrinks_to_grey():
    board = (np.indices((60, 90)).sum(axis=0) % 2 * 255).astype(np.uint8)
    shrunk = resize(board, 10, 15).astype(int)
    assert np.abs(shrunk - 127.5).max() <= 0.5
    assert np.abs(resize(board, 11, 17).astype(int) - 127.5).max() < 16  # pixels are split where the factor is broken


def test_one_axis_shrinks_by_area_while_the_other_grows_linearly():
    image = np.array([[0, 100], [40, 140]], np.uint8)
    # Down: the mean of the rows, 20 and 120. Across: pixel centres at -1/4, 1/4, 3/4 and 5/4 of the old ones.
    np.testing.assert_array_equal(resize(image, 1, 4), [[20, 45, 95, 120]])
    np.testing.assert_array_equal(resize(image.T, 4, 1), [[20], [45], [95], [120]])
