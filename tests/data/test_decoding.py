"""Decoding: which grey image a file's bytes give, or the reason why they give none."""

import struct
import subprocess
import sys
import tracemalloc
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib.data.decoding import decode, encode, is_image
from lib.data.phantom import radiograph
from lib.data.picture import INFLATED, Decoded, ImageError
from lib.data.source import SourceError

ROOT = Path(__file__).resolve().parents[2]
IMAGE = np.round(radiograph(0, 0, size=64, seed=0).image * 255).astype(np.uint8)


def grey(height: int = 40, width: int = 64) -> np.ndarray:
    """A smooth ramp without symmetry, so that a rotation or a swap shows."""
    y, x = np.mgrid[:height, :width]
    return np.round(20 + 150 * x / width + 60 * y / height).astype(np.uint8)


def written(image: Image.Image | np.ndarray, form: str, **options) -> bytes:
    file = BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, form, **options)
    return file.getvalue()


def reason(content: bytes) -> str:
    with pytest.raises(ImageError) as error:
        decode(content)
    return str(error.value)


def claiming(width: int, height: int, bits: int = 8) -> bytes:
    """The beginning of a grey PNG, up to its first pixels."""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0))


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def blank(width: int, height: int) -> bytes:
    """A complete PNG of one bit per pixel, all black: few bytes for any size."""
    packer = zlib.compressobj(1)
    rows = b"".join(packer.compress(bytes(1 + (width + 7) // 8)) for _ in range(height)) + packer.flush()
    return claiming(width, height, bits=1) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


# Formats and modes


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("png", {}),
        ("tiff", {}),
        ("tiff", {"compression": "tiff_lzw"}),
        ("bmp", {}),
        ("gif", {}),
        ("ppm", {}),
        ("webp", {"lossless": True}),
        ("jpeg2000", {}),
        ("jpeg2000", {"no_jp2": True}),
    ],
)
def test_a_lossless_file_is_decoded_exactly(form, options):
    image = decode(written(grey(), form, **options))
    assert isinstance(image, Decoded)
    assert image.pixels.dtype == np.uint8
    assert np.array_equal(image.pixels, grey())
    assert image.header == {}


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 30}])
def test_a_grey_jpeg_is_decoded_as_by_pillow(options):
    content = written(grey(), "jpeg", **options)
    assert np.array_equal(decode(content).pixels, np.asarray(Image.open(BytesIO(content))))


def test_real_images_are_decoded_as_by_pillow(xrays):
    for file in sorted((xrays / "adult" / "images").iterdir())[:50]:
        assert np.array_equal(decode(file.read_bytes()).pixels, np.asarray(Image.open(file).convert("L")))


def coloured() -> np.ndarray:
    """Three different smooth channels, (40, 64, 3)."""
    return np.stack([grey(), grey()[::-1], grey()[:, ::-1]], axis=-1)


LUMINANCE = coloured() @ np.array([0.299, 0.587, 0.114])


@pytest.mark.parametrize(("form", "off"), [("png", 1), ("bmp", 1), ("tiff", 1), ("jpeg", 3)])
def test_colour_becomes_its_luminance(form, off):
    pixels = decode(written(coloured(), form, **({"quality": 95} if form == "jpeg" else {}))).pixels
    assert (pixels.dtype, pixels.ndim) == (np.uint8, 2)
    assert np.abs(pixels - LUMINANCE).max() <= off


def test_a_colour_jpeg_gives_its_stored_luminance():
    content = written(coloured(), "jpeg")
    image = Image.open(BytesIO(content))
    image.draft("YCbCr", image.size)
    assert np.array_equal(decode(content).pixels, np.asarray(image)[..., 0])


@pytest.mark.parametrize(("form", "options"), [("png", {}), ("webp", {"lossless": True}), ("jpeg", {"quality": 80})])
def test_grey_stored_as_colour_equals_grey_stored_as_grey(form, options):
    colour = written(Image.fromarray(IMAGE).convert("RGB"), form, **options)
    assert np.array_equal(decode(colour).pixels, decode(written(IMAGE, form, **options)).pixels)


@pytest.mark.parametrize(("form", "off"), [("tiff", 1), ("jpeg", 4)])
def test_cmyk_becomes_its_luminance(form, off):
    cyan_magenta_yellow_black = np.dstack([coloured(), grey()[::-1, ::-1] // 3])
    image = Image.frombytes("CMYK", (64, 40), cyan_magenta_yellow_black.tobytes())
    ink = cyan_magenta_yellow_black / 255
    light = 255 * (1 - ink[..., :3]) * (1 - ink[..., 3:])
    pixels = decode(written(image, form, **({"quality": 98} if form == "jpeg" else {}))).pixels
    assert np.abs(pixels - light @ np.array([0.299, 0.587, 0.114])).max() <= off


def test_a_palette_is_applied():
    image = Image.frombytes("P", (64, 40), (grey() % 4).tobytes())
    image.putpalette([10, 10, 10, 200, 0, 0, 0, 200, 0, 250, 250, 250])
    light = np.array([10, 0.299 * 200, 0.587 * 200, 250])
    for form in ("png", "gif", "bmp"):
        assert np.abs(decode(written(image, form)).pixels - light[grey() % 4]).max() <= 0.5


def test_one_bit_becomes_black_and_white():
    bits = grey() > 100
    assert np.array_equal(decode(written(Image.fromarray(bits), "png")).pixels, bits * 255)


def test_transparent_pixels_become_black():
    alpha = grey()[:, ::-1]
    for layers in ([grey(), alpha], [grey(), grey(), grey(), alpha]):
        pixels = decode(written(np.dstack(layers), "png")).pixels
        assert np.abs(pixels - grey() * (alpha / 255)).max() <= 1


def test_an_opaque_image_with_transparency_keeps_its_grey():
    opaque = np.full_like(grey(), 255)
    assert np.array_equal(decode(written(np.dstack([grey(), opaque]), "png")).pixels, grey())


def test_a_transparent_palette_colour_becomes_black():
    index = grey() % 3
    image = Image.frombytes("P", (64, 40), index.tobytes())
    image.putpalette([50, 50, 50, 90, 90, 90, 210, 210, 210])
    expected = np.array([50, 90, 0])[index]
    assert np.array_equal(decode(written(image, "png", transparency=2)).pixels, expected)
    assert np.array_equal(decode(written(image, "png", transparency=b"\xff\xff\x00")).pixels, expected)
    assert np.array_equal(decode(written(image, "gif", transparency=2)).pixels, expected)


# Deep grey


@pytest.mark.parametrize("form", ["png", "tiff", "jpeg2000", "pgm"])
def test_sixteen_bits_stay_sixteen_bits(form):
    deep = (grey().astype(np.uint16) << 8) + np.arange(64, dtype=np.uint16)
    content = b"P5 64 40 65535\n" + deep.astype(">u2").tobytes() if form == "pgm" else written(deep, form)
    pixels = decode(content).pixels
    assert pixels.dtype == np.uint16
    assert np.array_equal(pixels, deep)


def tiff(pixels: np.ndarray, photometric: int, order: str = "<", **more: int) -> bytes:
    """A TIFF of one strip, written by hand; `photometric` 0 means that white is zero, 1 that black is, 2 colour."""
    height, width, samples = (*pixels.shape, 1)[:3]
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    fields = {
        256: width,
        257: height,
        258: pixels.itemsize * 8,
        259: 1,
        262: photometric,
        273: 200,
        277: samples,
        278: height,
    }
    fields |= {279: pixels.nbytes, 339: kind, **{int(tag[3:]): value for tag, value in more.items()}}
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(fields))
    table = b"".join(struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in fields.items())
    return (head + table).ljust(200, b"\0") + pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["u1", "u2", "u4", "i1", "i2", "i4", "f4", "f8"])
def test_a_tiff_is_inverted_if_its_tag_says_that_white_is_zero_whatever_its_numbers_are(kind, order):
    signed = kind[0] != "u"
    pixels = (grey().astype(float) * (1 if kind[1] == "1" else 100) - 120 * signed).clip(-128 * signed).astype(kind)
    pixels = np.minimum(grey(), 127).astype(kind) - np.array(20, kind) if kind == "i1" else pixels
    black, white = (decode(tiff(pixels, photometric, order)).pixels.astype(float) for photometric in (1, 0))
    assert np.array_equal(black, pixels.astype(np.float32))
    assert np.ptp(black + white) == 0


def test_a_compressed_tiff_in_which_white_is_zero_is_inverted():
    deep = grey().astype(np.uint16) * 200
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
        content = written(deep, "tiff", compression=compression, tiffinfo={262: 0})
        assert np.array_equal(decode(content).pixels, 65535 - deep)


def deep_colour() -> np.ndarray:
    """Three different smooth channels of twelve bits, (40, 64, 3) uint16."""
    fine = np.arange(40 * 64).reshape(40, 64)
    return np.stack([fine, fine[::-1], fine[:, ::-1]], axis=-1).astype(np.uint16)


def deep_png(samples: np.ndarray, *chunks: bytes) -> bytes:
    """A PNG of 16 bits a sample, written by hand; each row but the first is stored as the difference to that above."""
    height, width, count = samples.shape
    rows = samples.astype(">u2").reshape(height, -1).view(np.uint8)
    filtered = np.c_[np.full(height, 2, np.uint8), np.diff(rows, axis=0, prepend=np.zeros_like(rows[:1]))]
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[count], 0, 0, 0)
    parts = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", zlib.compress(filtered.tobytes())), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


DEEP_LUMINANCE = deep_colour() @ np.array([0.299, 0.587, 0.114])
ALPHA = np.linspace(0, 65535, 40 * 64).astype(np.uint16).reshape(40, 64, 1)


@pytest.mark.parametrize("write", [deep_png, lambda samples: tiff(samples, 2), lambda samples: tiff(samples, 2, ">")])
def test_colour_of_sixteen_bits_keeps_its_depth(write):
    pixels = decode(write(deep_colour())).pixels
    assert pixels.dtype == np.uint16
    assert np.abs(pixels - DEEP_LUMINANCE).max() <= 0.51


def test_transparent_pixels_of_sixteen_bits_become_black():
    fine = deep_colour()[..., :1]
    for samples in (np.dstack([fine, ALPHA]), np.dstack([fine, fine, fine, ALPHA])):
        contents = [deep_png(samples)]
        kind = 1 if samples.shape[-1] == 2 else 2
        contents += [tiff(samples, kind, tag338=2), tiff(samples, kind, ">", tag338=2)]
        for content in contents:
            assert np.abs(decode(content).pixels - fine[..., 0] * (ALPHA[..., 0] / 65535)).max() <= 0.51


def test_one_transparent_colour_of_sixteen_bits_becomes_black():
    level = int(deep_colour()[7, 9, 0])
    for samples in (deep_colour()[..., :1], deep_colour()):
        key = samples[7, 9].astype(">u2").tobytes()
        whole, pixels = decode(deep_png(samples)).pixels, decode(deep_png(samples, chunk(b"tRNS", key))).pixels
        assert pixels[7, 9] == 0 and whole[7, 9] > 0 and (pixels != whole).sum() == 1, level


def test_colour_multiplied_by_its_opacity_already_is_not_multiplied_again():
    fine = deep_colour()[..., :1]
    assert np.abs(decode(tiff(np.dstack([fine, fine, fine, ALPHA]), 2, tag338=1)).pixels - fine[..., 0]).max() <= 1
    assert np.abs(decode(tiff(np.dstack([fine, fine, fine, ALPHA]), 2, tag338=0)).pixels - fine[..., 0]).max() <= 1


def test_planes_of_colour_one_after_the_other_keep_their_depth():
    import tifffile

    tifffile.imwrite(file := BytesIO(), np.moveaxis(deep_colour(), -1, 0), photometric="rgb", planarconfig="separate")
    assert np.abs(decode(file.getvalue()).pixels - DEEP_LUMINANCE).max() <= 0.51


def test_deep_colour_that_would_lose_its_depth_is_refused():
    jpeg = bytearray(written(coloured(), "jpeg2000", no_jp2=True))
    jpeg[jpeg.index(b"\xff\x51") + 40] = 11  # the first component has twelve bits
    ppm = b"P6 64 40 4095\n" + deep_colour().astype(">u2").tobytes()
    for content, form in ((bytes(jpeg), "JPEG2000"), (ppm, "PPM")):
        assert reason(content) == f"has more than 8 bits per colour: 12 in {form}; save it as PNG, or as grey"
    inks = np.dstack([deep_colour(), deep_colour()[..., :1]])
    assert reason(tiff(inks, 5)).startswith("is beyond the installed decoders: a deep TIFF that is neither")


@pytest.mark.parametrize("order", ["<", ">"])
def test_numbers_that_sixteen_bits_do_not_hold_become_floats(order):
    wide, signed = grey().astype(np.int32) * 1000, grey().astype(np.int16) - 100
    fractions = grey().astype(np.float32) / 7 - 3
    for pixels in (wide, signed, fractions):
        decoded = decode(tiff(pixels, 1, order)).pixels
        assert decoded.dtype == np.float32
        assert decoded.dtype.isnative
        assert np.array_equal(decoded, pixels)
    assert decode(tiff(grey().astype(np.int32) * 200, 1, order)).pixels.dtype == np.uint16


@pytest.mark.parametrize("form", ["png", "jpeg", "tiff", "webp"])
def test_the_orientation_in_the_exif_data_is_undone(form):
    upright = grey()
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }
    for orientation, pixels in stored.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        options = {"exif": exif} if form != "tiff" else {"tiffinfo": {0x0112: orientation}}
        decoded = decode(written(np.ascontiguousarray(pixels), form, lossless=True, quality=98, **options)).pixels
        assert decoded.shape == upright.shape
        assert np.abs(decoded.astype(int) - upright).max() <= (2 if form == "jpeg" else 0)


def test_the_orientation_of_a_deep_image_is_undone():
    upright = deep_colour()[..., :1]
    fine = tiff(np.ascontiguousarray(np.rot90(upright)[..., 0]), 1, tag274=6)
    assert np.array_equal(decode(fine).pixels, upright[..., 0])
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = np.rot90(np.dstack([upright] * 3))
    pixels = decode(deep_png(turned, chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")))).pixels
    assert np.array_equal(pixels, upright[..., 0])


# Files that are not images


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"<html>not found</html>", "is not an image: begins with b'<html>no'"),
        (b"\x08\0\x05\0 but no DICOM", "is not an image: begins with"),
        (b"PK\x03\x04" + bytes(100), "is not an image: begins with"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "is not an image: begins with"),  # Pillow would start a program
        (b"\0" * 500, "is not an image: begins with"),
    ],
)
def test_a_file_that_is_no_image_is_refused_with_the_reason(content, words):
    assert reason(content).startswith(words)


WHOLE = {
    "grey jpeg": written(IMAGE, "jpeg"),
    "progressive jpeg": written(np.dstack([IMAGE, IMAGE, 255 - IMAGE]), "jpeg", progressive=True),
    "png": written(IMAGE, "png"),
    "16-bit png": written(IMAGE.astype(np.uint16) * 200, "png"),
    "tiff": written(IMAGE, "tiff"),
    "lzw tiff": written(IMAGE, "tiff", compression="tiff_lzw"),
    "bmp": written(IMAGE, "bmp"),
    "gif": written(IMAGE, "gif"),
    "webp": written(IMAGE, "webp"),
    "jpeg 2000": written(IMAGE, "jpeg2000"),
    "pgm": written(IMAGE, "ppm"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_truncated_file_is_recognised_wherever_it_is_cut(name):
    whole = WHOLE[name]
    for length in [len(whole) * tenth // 10 for tenth in range(2, 10)]:
        assert reason(whole[:length]).split(": ")[0] == "is cut off or damaged"


def test_a_png_with_a_flipped_bit_is_damaged():
    broken = bytearray(WHOLE["png"])
    broken[len(broken) // 2] ^= 1
    assert reason(bytes(broken)).startswith("is cut off or damaged: ")


@pytest.mark.parametrize(("height", "width"), [(1, 1), (15, 400), (400, 15)])
def test_an_image_is_too_small_below_sixteen_pixels(height, width):
    assert reason(written(grey(height, width), "png")) == f"is too small to be an image: {width} x {height} pixels"
    assert decode(written(grey(16, 16), "png")).pixels.shape == (16, 16)


def patched(content: bytes, at: int, form: str) -> bytes:
    return content[:at] + struct.pack(form, 20_000, 20_000) + content[at + struct.calcsize(form) :]


@pytest.mark.parametrize(
    "content",
    [
        claiming(20_000, 20_000) + b"\0\0\1\0IDAT",
        blank(20_000, 20_000),
        patched(WHOLE["grey jpeg"], WHOLE["grey jpeg"].index(b"\xff\xc0") + 5, ">HH"),
        patched(WHOLE["gif"], 6, "<HH"),
        patched(WHOLE["bmp"], 18, "<ii"),
    ],
    ids=["png header alone", "true png", "jpeg", "gif", "bmp"],
)
def test_a_decompression_bomb_is_refused_by_its_header(content):
    assert reason(content) == "is too large to be an image: 20000 x 20000 pixels"


def test_a_deflated_dicom_file_is_inflated_up_to_a_limit_only(pydicom):
    deflated = "1.2.840.10008.1.2.1.99"
    assert np.array_equal(decode(dicom(DEEP, deflated)).pixels, DEEP)
    bomb = dicom(DEEP, deflated, ImageComments="x", PixelData=bytes(INFLATED + 1_000_000))
    assert len(bomb) < 200_000
    tracemalloc.start()
    assert reason(bomb) == f"is too large when it is unpacked: more than {INFLATED:,} bytes"
    assert tracemalloc.get_traced_memory()[1] < INFLATED / 2
    tracemalloc.stop()


def test_a_deflated_deep_tiff_is_inflated_up_to_a_limit_only():
    import tifffile

    tifffile.imwrite(file := BytesIO(), DEEP, compression="zlib", photometric="minisblack")
    assert np.array_equal(decode(file.getvalue()).pixels, DEEP)
    strip = zlib.compress(bytes(INFLATED + 1_000_000))
    tag = tifffile.TiffFile(BytesIO(file.getvalue())).pages[0].tags
    content = bytearray(file.getvalue()) + strip
    for name, number in (("StripOffsets", len(file.getvalue())), ("StripByteCounts", len(strip))):
        place = tag[name].offset
        content[place + 2 : place + 12] = struct.pack("<HII", 4, 1, number)
    assert reason(bytes(content)).startswith("is too large when it is unpacked: ")


def test_a_large_image_draws_no_warning():
    assert Image.MAX_IMAGE_PIXELS < 9_500**2  # so that Image.open would warn
    words = reason(claiming(9_500, 9_500) + b"\0\0\1\0IDAT")
    assert words.startswith("is cut off or damaged: ")
    assert "limit" not in words


@pytest.mark.parametrize("form", ["gif", "png", "webp", "tiff"])
def test_a_file_of_several_images_is_refused(form):
    frames = [Image.fromarray(pixels) for pixels in (grey(), grey()[::-1].copy(), grey()[:, ::-1].copy())]
    assert reason(written(frames[0], form, save_all=True, append_images=frames[1:])) == "holds several images: 3"


def phone(*pictures: np.ndarray) -> bytes:
    """A JPEG of several pictures (MPO), as phones write a primary one and its gain map."""
    frames = [Image.fromarray(pixels) for pixels in pictures]
    return written(frames[0], "MPO", save_all=True, append_images=frames[1:], quality=95)


@pytest.mark.parametrize("bits", [2, 4])
def test_the_transparent_level_of_a_shallow_png_is_black(bits):
    top = 2**bits - 1
    levels = np.arange(32 * 32, dtype=np.uint8).reshape(32, 32) % (top + 1)
    digits = np.unpackbits(levels[..., None], axis=-1)[..., -bits:].reshape(32, -1)
    rows = zlib.compress(b"".join(b"\0" + np.packbits(row).tobytes() for row in digits))
    before, after = claiming(32, 32, bits), chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    whole = decode(before + after).pixels
    for level in (1, top):
        content = before + chunk(b"tRNS", struct.pack(">H", level)) + after
        assert np.array_equal(decode(content).pixels, np.where(levels == level, 0, whole))


def test_the_opacity_of_a_deep_tiff_in_which_white_is_zero_is_not_inverted():
    import tifffile

    samples = np.dstack([65535 - DEEP, np.where(DEEP < 1000, 0, 65535).astype(np.uint16)])
    options = {"photometric": "miniswhite", "extrasamples": ["unassalpha"], "planarconfig": "contig"}
    tifffile.imwrite(file := BytesIO(), samples, **options)
    assert np.array_equal(decode(file.getvalue()).pixels, np.where(DEEP < 1000, 0, DEEP))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_tiff_of_several_slices_in_its_depth_is_refused(kind):
    import tifffile

    tifffile.imwrite(file := BytesIO(), np.zeros((4, 32, 32), kind), photometric="minisblack", volumetric=True)
    with pytest.raises(ImageError, match="holds several images: 4 in its depth"):
        decode(file.getvalue())


@pytest.mark.parametrize(
    "text", [b"P1 was X-rayed twice, in bed", b"P5\nwithout a header", b"P2P of all files in here"]
)
def test_a_text_that_begins_like_a_pnm_file_is_no_image(text):
    assert not is_image(text)
    assert reason(text).startswith("is not an image: begins with b'P")


def test_the_primary_picture_of_a_phones_jpeg_is_used():
    for second in (grey()[::-1].copy(), grey()[::2, ::2].copy()):
        assert np.abs(decode(phone(grey(), second)).pixels.astype(int) - grey()).max() <= 3


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_not_finite_are_refused(number):
    pixels = grey().astype(np.float32)
    pixels[3, 4] = number
    assert reason(tiff(pixels, 1)) == "has pixels that are not finite numbers"


@pytest.mark.parametrize("level", [0, 17, 255])
def test_an_image_of_one_grey_level_is_refused(level):
    assert reason(written(np.full((40, 40), level, np.uint8), "png")) == f"has only one grey level: {level}"


# Warnings and threads


def remarkable() -> bytes:
    """A valid JPEG with half an EXIF block, of which Pillow warns."""
    exif = Image.Exif()
    exif[0x010E] = "words that will not be there"
    whole = exif.tobytes()
    return written(grey(), "jpeg", exif=whole[:-20])


def test_warnings_about_metadata_are_silenced():
    with pytest.warns(UserWarning, match="corrupt EXIF|Truncated"):
        Image.open(BytesIO(remarkable())).getexif().get(0x010E)
    assert np.abs(decode(remarkable()).pixels.astype(int) - grey()).max() <= 4


def test_other_warnings_are_not_silenced():
    decode(remarkable())
    with pytest.raises(UserWarning, match="ours"):  # which pytest makes of a warning that is heard
        warnings.warn("ours", UserWarning, stacklevel=1)
    with pytest.raises(DeprecationWarning, match="old"):
        warnings.warn_explicit("old", DeprecationWarning, "Image.py", 1, module="PIL.Image")
    with pytest.raises(Image.DecompressionBombWarning):
        Image.open(BytesIO(claiming(9_500, 9_500) + b"\0\0\1\0IDAT"))


def test_decoding_in_threads_equals_decoding_in_one_thread():
    files = [*WHOLE.values(), *(whole[: len(whole) // 2] for whole in WHOLE.values()), remarkable(), b"", b"text"]

    def outcome(content: bytes) -> bytes | str:
        try:
            return decode(content).pixels.tobytes()
        except ImageError as error:
            return str(error)

    alone = [outcome(content) for content in files]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(outcome, files * 40)) == alone * 40


# Encoding


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_integers_are_decoded_as_encoded(dtype):
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (40, 64), dtype=dtype, endpoint=True)
    for way in (pixels, pixels[::-1, ::2]):
        decoded = decode(encode(way)).pixels
        assert decoded.dtype == dtype
        assert np.array_equal(decoded, way)
    assert encode(pixels).startswith(b"\x89PNG")


def test_floats_are_scaled_to_all_of_sixteen_bits():
    pixels = radiograph(1, 0, size=32, seed=0).image.astype(np.float32) * 7 - 3
    decoded = decode(encode(pixels)).pixels
    assert decoded.dtype == np.uint16
    assert (decoded.min(), decoded.max()) == (0, 65535)
    low, high = pixels.min(), pixels.max()
    assert np.abs(low + decoded / 65535 * (high - low) - pixels).max() <= (high - low) / 65535
    assert encode(np.full((20, 20), 0.5, np.float32)) == encode(np.zeros((20, 20), np.uint16))


# DICOM


@pytest.fixture
def pydicom():
    return pytest.importorskip("pydicom", reason="DICOM needs the extra `dicom`")


def dicom(pixels: np.ndarray | bytes, syntax: str = "1.2.840.10008.1.2.1", **elements) -> bytes:
    """A DICOM file around stored values, or around one compressed frame; `elements` by keyword, None takes one out."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate

    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.3"
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    if isinstance(pixels, bytes):
        data.PixelData = encapsulate([pixels])
        data["PixelData"].VR = "OB"
        data.BitsAllocated = data.BitsStored = 8
        data.PixelRepresentation = 0
    else:
        data.Rows, data.Columns = pixels.shape[:2]
        data.BitsAllocated = data.BitsStored = pixels.itemsize * 8
        data.PixelRepresentation = int(pixels.dtype.kind == "i")
        data.PixelData = pixels.tobytes()
        data["PixelData"].VR = "OW" if pixels.itemsize > 1 else "OB"
    data.HighBit = elements.get("BitsStored", data.BitsStored) - 1
    for name, value in elements.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    file = BytesIO()
    data.save_as(file, enforce_file_format=True)
    return file.getvalue()


def table(entries, first: int = 0, bits: int = 16, packed: bool = False):
    """A lookup table as one item of a sequence."""
    from pydicom.dataset import Dataset

    item = Dataset()
    item.add_new("LUTDescriptor", "US" if first >= 0 else "SS", [len(entries) % 2**16, first, bits])
    item.add_new("LUTData", "OW", np.asarray(entries, np.uint8 if packed else "<u2").tobytes())
    return [item]


def shipped(name: str) -> bytes:
    """A file that comes with pydicom, without a download."""
    from pydicom.data import get_testdata_file

    return Path(get_testdata_file(name, download=False)).read_bytes()


DEEP = np.arange(40 * 64, dtype=np.uint16).reshape(40, 64)  # twelve bits, each value once


@pytest.mark.parametrize("pixels", [grey(), DEEP, DEEP * 25], ids=["8 bits", "12 bits", "16 bits"])
def test_stored_values_without_any_transform_are_the_image(pydicom, pixels):
    decoded = decode(dicom(pixels)).pixels
    assert decoded.dtype == pixels.dtype
    assert np.array_equal(decoded, pixels)


def test_bits_outside_the_stored_ones_are_ignored(pydicom):
    assert np.array_equal(decode(dicom(DEEP | 0xA000, BitsStored=12)).pixels, DEEP)


def test_signed_values_keep_their_order(pydicom):
    signed = DEEP.astype(np.int16) - 1500
    decoded = decode(dicom(signed)).pixels
    assert decoded.dtype == np.float32
    assert np.array_equal(decoded, signed)


def test_slope_and_intercept_are_applied(pydicom):
    decoded = decode(dicom(DEEP, RescaleSlope="0.25", RescaleIntercept="-1024")).pixels
    assert np.array_equal(decoded, DEEP * 0.25 - 1024)


def test_a_scale_that_changes_nothing_keeps_whole_numbers(pydicom):
    assert decode(dicom(grey(), RescaleSlope="1", RescaleIntercept="0")).pixels.dtype == np.uint8


def standard_window(x: float, c: float, w: float, function: str) -> float:
    """PS3.3 C.11.2.1.2.1, C.11.2.1.3.1 and C.11.2.1.3.2 as they stand there, for an output from 0 to 1."""
    if function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (x - c) / w))
    if function == "LINEAR_EXACT":
        return 0 if x <= c - w / 2 else 1 if x > c + w / 2 else (x - c) / w + 0.5
    if x <= c - 0.5 - (w - 1) / 2:
        return 0
    return 1 if x > c - 0.5 + (w - 1) / 2 else (x - (c - 0.5)) / (w - 1) + 0.5


@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("center", "width"), [(1200, 800), (2048, 4096), (100.5, 2), (900, 51.5)])
@pytest.mark.parametrize("slope", [None, "0.5"])
def test_a_window_is_the_standards_formula(pydicom, function, center, width, slope):
    elements = {"WindowCenter": center, "WindowWidth": width}
    elements |= {"VOILUTFunction": function} if function else {}
    elements |= {"RescaleSlope": slope, "RescaleIntercept": "-7"} if slope else {}
    decoded = decode(dicom(DEEP, **elements)).pixels
    values = DEEP.ravel() * 0.5 - 7 if slope else DEEP.ravel()
    expected = [standard_window(float(x), center, width, function or "LINEAR") for x in values]
    assert np.abs(decoded.ravel() - expected).max() < 1e-4


def test_a_window_equals_pydicoms_up_to_the_scale(pydicom):
    content = dicom(DEEP, BitsStored=12, WindowCenter=[1000, 5], WindowWidth=[700, 9])
    data = pydicom.dcmread(BytesIO(content))
    theirs = pydicom.pixels.apply_voi_lut(data.pixel_array, data)
    assert np.abs(decode(content).pixels - theirs / 4095).max() < 1e-6


@pytest.mark.parametrize("width", [0, 1])
def test_a_window_without_width_is_ignored(pydicom, width):
    assert np.array_equal(decode(dicom(DEEP, WindowCenter=1000, WindowWidth=width)).pixels, DEEP)


CURVE = np.round(65535 * np.sqrt(np.arange(2000) / 1999)).astype(int)


@pytest.mark.parametrize("name", ["ModalityLUTSequence", "VOILUTSequence"])
@pytest.mark.parametrize("first", [0, 300])
def test_a_lookup_table_is_applied_and_clamped(pydicom, name, first):
    decoded = decode(dicom(DEEP, **{name: table(CURVE, first)})).pixels
    assert decoded.dtype == np.uint16
    assert np.array_equal(decoded, [[CURVE[min(max(int(x) - first, 0), 1999)] for x in row] for row in DEEP])


def test_a_lookup_table_may_begin_below_zero(pydicom):
    signed = DEEP.astype(np.int16) - 1000
    decoded = decode(dicom(signed, VOILUTSequence=table(CURVE, first=-1000))).pixels
    assert np.array_equal(decoded, CURVE[np.minimum(DEEP, 1999)])


def test_a_lookup_table_of_65536_entries_has_length_zero(pydicom):
    inverse = np.arange(2**16)[::-1]
    assert np.array_equal(decode(dicom(DEEP * 25, VOILUTSequence=table(inverse))).pixels, 65535 - DEEP * 25)


@pytest.mark.parametrize("packed", [True, False])
def test_a_lookup_table_of_eight_bits_may_be_packed_or_not(pydicom, packed):
    entries = CURVE // 257
    decoded = decode(dicom(DEEP, VOILUTSequence=table(entries, bits=8, packed=packed))).pixels
    assert np.array_equal(decoded, entries[np.minimum(DEEP, 1999)])


def test_the_modality_scale_comes_before_a_voi_table_which_overrules_a_window(pydicom):
    elements = {"RescaleSlope": "2", "RescaleIntercept": "10", "WindowCenter": 5, "WindowWidth": 5}
    decoded = decode(dicom(DEEP, **elements, VOILUTSequence=table(CURVE))).pixels
    assert np.array_equal(decoded, CURVE[np.minimum(DEEP.astype(int) * 2 + 10, 1999)])


@pytest.mark.parametrize(
    "elements",
    [
        {},
        {"BitsStored": 12},
        {"RescaleSlope": "2.5", "RescaleIntercept": "-100"},
        {"WindowCenter": 1000, "WindowWidth": 900},
        {"PixelRepresentation": 1},
    ],
    ids=["raw", "12 bits", "scaled", "windowed", "signed"],
)
def test_monochrome1_is_the_negative_of_monochrome2(pydicom, elements):
    positive = decode(dicom(DEEP, **elements)).pixels.astype(float)
    negative = decode(dicom(DEEP, PhotometricInterpretation="MONOCHROME1", **elements)).pixels.astype(float)
    assert np.ptp(positive + negative) < 1e-6
    assert negative.argmax() == positive.argmin()


def test_a_lookup_table_is_applied_before_the_polarity(pydicom):
    elements = {"PhotometricInterpretation": "MONOCHROME1", "VOILUTSequence": table(CURVE)}
    assert np.array_equal(decode(dicom(DEEP, **elements)).pixels, 65535 - CURVE[np.minimum(DEEP, 1999)])


def test_a_phantom_is_upright_and_white_where_it_is_dense_in_either_polarity(pydicom):
    image = np.round(radiograph(3, 0, size=64, seed=1).image * 4095).astype(np.uint16)
    one = decode(dicom(4095 - image, BitsStored=12, PhotometricInterpretation="MONOCHROME1")).pixels.astype(int)
    two = decode(dicom(image, BitsStored=12)).pixels.astype(int)
    assert np.ptp(one - two) == 0
    assert np.array_equal(two, image)


def test_dicom_colour_becomes_its_luminance(pydicom):
    rgb = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "PhotometricInterpretation": "RGB"}
    assert np.abs(decode(dicom(coloured(), **rgb)).pixels - LUMINANCE).max() < 1e-3
    chroma = np.full_like(grey(), 128)
    ybr = rgb | {"PhotometricInterpretation": "YBR_FULL"}
    assert np.abs(decode(dicom(np.dstack([grey(), chroma, chroma]), **ybr)).pixels - grey()).max() < 1e-3


@pytest.mark.parametrize("space", ["HSV", "CMYK", "ARGB", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "YBR_RCT", "YBR_ICT"])
def test_a_colour_space_that_would_be_taken_for_another_is_refused_by_name(pydicom, space):
    content = dicom(coloured(), SamplesPerPixel=3, PlanarConfiguration=0, PhotometricInterpretation=space)
    assert reason(content).startswith(f"has a colour space that is not read: {space}; ")


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
def test_a_colour_space_may_be_in_small_letters_and_may_not_be_missing(pydicom):
    assert np.array_equal(decode(dicom(DEEP, PhotometricInterpretation="monochrome2")).pixels, DEEP)
    assert "that is not read: none stated" in reason(dicom(DEEP, PhotometricInterpretation=None))


def test_bits_at_the_upper_end_of_their_bytes_are_refused(pydicom):
    words = reason(dicom(DEEP << 4, BitsStored=12, HighBit=15))
    assert words == "has its bits in another place than the lowest: 12 stored, the highest is bit 15"


@pytest.mark.parametrize("spacing", ["PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio"])
def test_pixels_that_are_not_square_are_refused(pydicom, spacing):
    assert reason(dicom(DEEP, **{spacing: [2, 1]})).startswith("has pixels that are not square: ")
    assert np.array_equal(decode(dicom(DEEP, **{spacing: [2, 2]})).pixels, DEEP)


def test_a_dicom_palette_is_applied(pydicom):
    content = shipped("examples_palette.dcm")
    data = pydicom.dcmread(BytesIO(content))
    rgb = [np.frombuffer(data[f"{name}PaletteColorLookupTableData"].value, "<u2") for name in ("Red", "Green", "Blue")]
    expected = np.array([0.299, 0.587, 0.114]) @ np.array(rgb)
    assert np.abs(decode(content).pixels - expected[data.pixel_array]).max() < 0.1


def test_a_jpeg_within_dicom_is_the_jpeg(pydicom):
    baseline = dicom(WHOLE["grey jpeg"], "1.2.840.10008.1.2.4.50", Rows=64, Columns=64)
    assert np.array_equal(decode(baseline).pixels, decode(WHOLE["grey jpeg"]).pixels)
    codestream = written(grey(), "jpeg2000", no_jp2=True)
    lossless = dicom(codestream, "1.2.840.10008.1.2.4.90", Rows=40, Columns=64)
    assert np.array_equal(decode(lossless).pixels, grey())


SAME_IMAGE = {  # encoded losslessly by pydicom's authors
    "MR_small.dcm": [
        "MR_small_implicit.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_RLE.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "MR_small_padded.dcm",
    ],
    "SC_rgb_rle.dcm": ["SC_rgb_jpeg_gdcm.dcm"],  # JPEG lossless
}


@pytest.mark.parametrize(("name", "other"), [(name, other) for name, others in SAME_IMAGE.items() for other in others])
def test_one_image_in_several_encodings_is_one_image(pydicom, name, other):
    pytest.importorskip("gdcm", reason="JPEG-LS and lossless JPEG need python-gdcm")
    assert np.array_equal(decode(shipped(other)).pixels, decode(shipped(name)).pixels)


@pytest.mark.parametrize("name", ["693_J2KI.dcm", "J2K_pixelrep_mismatch.dcm", "JPEG2000.dcm"])
def test_signed_jpeg_2000_is_decoded_as_by_gdcm(pydicom, name):
    pytest.importorskip("gdcm", reason="compares with python-gdcm")
    data = pydicom.dcmread(BytesIO(shipped(name)))
    data.pixel_array_options(decoding_plugin="gdcm")
    values = data.pixel_array * float(data.get("RescaleSlope", 1)) + float(data.get("RescaleIntercept", 0))
    if "WindowCenter" in data:
        center, width = np.ravel(data.WindowCenter)[0], np.ravel(data.WindowWidth)[0]
        values = np.reshape([standard_window(x, center, width, "LINEAR") for x in values.ravel()], values.shape)
    assert np.abs(decode(shipped(name)).pixels - values).max() < 1e-5


def test_padding_is_black_and_named_and_not_part_of_the_grey_levels(pydicom):
    for padding, kind in ((-32768, np.int16), (0, np.uint16), (65535, np.uint16)):
        pixels = DEEP.astype(kind) + kind(500)
        pixels[:, :20] = padding
        decoded = decode(dicom(pixels, PixelPaddingValue=padding))
        assert decoded.pixels.dtype == np.uint16
        assert np.array_equal(decoded.pixels[:, 20:], DEEP[:, 20:] + 500)
        assert (decoded.pixels[:, :20] == decoded.pixels[:, 20:].min()).all()
        assert np.array_equal(decoded.padding, np.broadcast_to(np.arange(64) < 20, (40, 64)))


def test_padding_may_be_a_range_of_values(pydicom):
    for first, last in ((100, 300), (300, 100)):
        padding = decode(dicom(DEEP, PixelPaddingValue=first, PixelPaddingRangeLimit=last)).padding
        assert np.array_equal(padding, (DEEP >= 100) & (DEEP <= 300))


def test_a_negative_padding_may_be_written_as_an_unsigned_number(pydicom):
    from pydicom.dataelem import DataElement

    signed = DEEP.astype(np.int16)
    signed[:, :20] = -2000
    data = pydicom.dcmread(BytesIO(dicom(signed)))
    data[0x00280120] = DataElement(0x00280120, "US", 2**16 - 2000)
    data.save_as(file := BytesIO())
    assert decode(file.getvalue()).padding.sum() == 40 * 20


def test_bits_of_the_padding_outside_of_the_stored_ones_are_ignored(pydicom):
    pixels = DEEP.copy()
    pixels[:, :20] = 0x0800
    padding = decode(dicom(pixels | 0xA000, BitsStored=12, PixelPaddingValue=0xA800)).padding
    assert np.array_equal(padding, pixels == 0x0800)


@pytest.mark.parametrize(
    "elements",
    [
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"RescaleSlope": "-2", "RescaleIntercept": "7"},
        {"WindowCenter": 2000, "WindowWidth": 900},
    ],
    ids=["white is zero", "scaled", "windowed"],
)
def test_padding_is_found_in_the_stored_values_and_black_in_the_image(pydicom, elements):
    for padding in (0, 4095):
        stored = DEEP.copy()
        stored[:, :20] = padding
        decoded, whole = decode(dicom(stored, PixelPaddingValue=padding, **elements)), decode(dicom(stored, **elements))
        assert np.array_equal(decoded.pixels[:, 20:], whole.pixels[:, 20:])
        assert (decoded.pixels[:, :20] == whole.pixels[:, 20:].min()).all()


def test_a_padding_value_that_no_pixel_has_changes_nothing(pydicom):
    decoded = decode(dicom(DEEP, PixelPaddingValue=50_000))
    assert np.array_equal(decoded.pixels, DEEP)
    assert decoded.padding is None


def test_an_image_that_is_all_padding_is_refused(pydicom):
    assert reason(dicom(DEEP, PixelPaddingValue=0, PixelPaddingRangeLimit=4095)) == "holds nothing but padding"


def test_a_file_without_its_preamble_is_read(pydicom):
    whole = dicom(DEEP)
    assert np.array_equal(decode(whole[128 + 4 :]).pixels, DEEP)  # from its meta information on
    data = pydicom.dcmread(BytesIO(whole))
    for implicit in (True, False):
        pydicom.dcmwrite(
            file := BytesIO(),
            pydicom.Dataset(data),
            implicit_vr=implicit,
            little_endian=True,
            enforce_file_format=False,
        )
        assert file.getvalue()[:2] == b"\x08\0"
        assert np.array_equal(decode(file.getvalue()).pixels, DEEP)


def test_a_missing_transfer_syntax_is_found_unless_the_pixels_are_compressed(pydicom):
    def without(content: bytes) -> bytes:
        data = pydicom.dcmread(BytesIO(content))
        at = content.index(b"\x02\0\x10\0UI")
        length = struct.unpack("<H", content[at + 6 : at + 8])[0]
        assert data.file_meta.TransferSyntaxUID
        meta = struct.unpack("<I", content[140:144])[0] - 8 - length
        return content[:140] + struct.pack("<I", meta) + content[144:at] + content[at + 8 + length :]

    assert np.array_equal(decode(without(dicom(DEEP))).pixels, DEEP)
    assert np.array_equal(decode(without(dicom(DEEP, "1.2.840.10008.1.2"))).pixels, DEEP)
    compressed = dicom(WHOLE["grey jpeg"], "1.2.840.10008.1.2.4.50", Rows=64, Columns=64)
    assert reason(without(compressed)).startswith("lacks the transfer syntax of its compressed pixels: ")


def test_a_decimal_comma_is_read_as_a_point(pydicom):
    def with_comma(**elements: str) -> bytes:
        content = dicom(DEEP, **elements)
        for text in elements.values():
            assert content.count(text.encode()) == 1
            content = content.replace(text.encode(), text.replace(".", ",").encode())
        return content

    for elements in ({"WindowCenter": "700.25", "WindowWidth": "333.75"}, {"RescaleSlope": "2.5"}):
        assert np.array_equal(decode(with_comma(**elements)).pixels, decode(dicom(DEEP, **elements)).pixels)
    nonsense = dicom(DEEP, WindowCenter="700.25", WindowWidth="333.75").replace(b"700.25", b"middle")
    assert reason(nonsense) == "has no number in its WindowCenter: 'middle'"


@pytest.mark.parametrize(
    ("elements", "header"),
    [
        ({}, {"patient": "", "sex": "", "view": ""}),
        ({"PatientID": "0017", "PatientSex": "F", "ViewPosition": "PA"}, {"patient": "0017", "sex": "F", "view": "PA"}),
        ({"PatientID": " 17 ", "PatientSex": "M", "ViewPosition": "AP"}, {"patient": "17", "sex": "M", "view": "AP"}),
        ({"PatientID": "", "PatientSex": "O", "ViewPosition": "LL"}, {"patient": "", "sex": "O", "view": "LL"}),
    ],
)
def test_the_header_says_patient_sex_and_view_as_written(pydicom, elements, header):
    assert decode(dicom(DEEP, **elements)).header == header | {"age": ""}


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"NumberOfFrames": 2, "PixelData": bytes(2 * DEEP.nbytes)}, "holds several images: 2"),
        ({"PixelData": None}, "is cut off or damaged: The dataset has no 'Pixel Data'"),
        ({"Rows": None}, "is a DICOM file without an image"),
        ({"Rows": 20_000, "Columns": 20_000}, "is too large to be an image: 20000 x 20000 pixels"),
        ({"Rows": 4}, "is too small to be an image: 64 x 4 pixels"),
        ({"Rows": 41}, "is cut off or damaged: The number of bytes of pixel data is less than expected"),
        ({"PixelData": bytes(DEEP.nbytes)}, "has only one grey level: 0"),
        ({"WindowCenter": 9_000, "WindowWidth": 100}, "has a window beside its values: 9000, 100 wide, for 0 to 2559"),
    ],
)
def test_a_dicom_file_without_a_usable_image_is_refused_with_the_reason(pydicom, elements, words):
    assert reason(dicom(DEEP, **elements)).startswith(words)


@pytest.mark.parametrize("name", ["test-SR.dcm", "rtplan.dcm", "waveform_ecg.dcm"])
def test_a_dicom_report_or_plan_is_without_an_image(pydicom, name):
    assert reason(shipped(name)) == "is a DICOM file without an image"


def test_a_truncated_dicom_file_is_recognised_wherever_it_is_cut(pydicom):
    compressed = dicom(WHOLE["grey jpeg"], "1.2.840.10008.1.2.4.50", Rows=64, Columns=64)
    for whole in (dicom(DEEP), compressed):
        for lost in (20, 100, 200, 400):
            assert reason(whole[:-lost]).startswith("is cut off or damaged: ")


def test_a_damaged_jpeg_within_dicom_is_called_damaged(pydicom):
    frame = WHOLE["grey jpeg"][:500]
    assert reason(dicom(frame, "1.2.840.10008.1.2.4.50", Rows=64, Columns=64)).startswith("is cut off or damaged: ")


def test_a_missing_decoder_is_named(pydicom):
    words = reason(dicom(b"\xff\x4f\xff\x51" + bytes(60), "1.2.840.10008.1.2.4.201", Rows=40, Columns=64))
    assert words.startswith("is beyond the installed decoders: ")
    assert "High-Throughput JPEG 2000" in words
    assert "pylibjpeg" in words


@pytest.mark.parametrize("name", ["JPEG-lossy.dcm", "JPGExtended.dcm"])
def test_a_file_that_the_installed_decoders_refuse_is_not_called_damaged(pydicom, name):
    assert reason(shipped(name)).startswith("is beyond the installed decoders: ")


def test_video_is_beyond_the_installed_decoders(pydicom):
    words = reason(dicom(b"\0\0\1\xb3" + bytes(60), "1.2.840.10008.1.2.4.100", Rows=40, Columns=64))
    assert words.startswith("is beyond the installed decoders: ")


def test_a_damaged_image_does_not_end_the_process(pydicom):
    """Python-gdcm, which pydicom asks first for a JPEG, crashes on such a file."""
    pytest.importorskip("gdcm", reason="the promise is about python-gdcm")
    code = """
import sys
from lib.data.decoding import decode
from lib.data.picture import ImageError
try:
    decode(sys.stdin.buffer.read())
except ImageError as error:
    print(error)
"""
    marker = WHOLE["grey jpeg"].index(b"\xff\xdb")  # of the quantisation table
    frame = WHOLE["grey jpeg"][:marker] + b"\0" + WHOLE["grey jpeg"][marker + 1 :]
    content = dicom(frame, "1.2.840.10008.1.2.4.50", Rows=64, Columns=64)
    run = subprocess.run([sys.executable, "-c", code], input=content, cwd=ROOT, capture_output=True, check=False)
    assert run.returncode == 0
    assert run.stdout.startswith(b"is ")


def test_warnings_of_pydicom_are_silenced(pydicom):
    content = dicom(DEEP, PixelData=DEEP.tobytes() + bytes(100))
    with pytest.warns(UserWarning, match="excess padding"):
        _ = pydicom.dcmread(BytesIO(content)).pixel_array
    assert np.array_equal(decode(content).pixels, DEEP)


def test_dicom_files_in_threads_equal_those_in_one_thread(pydicom):
    files = [shipped(name) for name in ("MR_small_padded.dcm", "MR_small_RLE.dcm", "JPEG2000.dcm", "SC_rgb_jpeg.dcm")]
    alone = [decode(content).pixels.tobytes() for content in files]
    with ThreadPoolExecutor(8) as threads:
        assert [image.pixels.tobytes() for image in threads.map(decode, files * 10)] == alone * 10


def test_dicom_without_pydicom_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(SourceError, match=r"^DICOM needs pydicom, .* extra dicom .*pip install '\.\[dicom\]'"):
        decode(bytes(128) + b"DICM" + bytes(100))
