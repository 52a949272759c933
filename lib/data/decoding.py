"""A file's bytes -> one grey image, or the reason why not; the format is known by content, never by a suffix.

Pillow reads what has at most 8 bits a sample. Of deeper colours it would keep 8 bits, and it inverts no deep grey in
which white is zero; tifffile reads deep TIFF. Colour becomes luminance, transparent pixels become black, and the
orientation in the EXIF data is undone. DICOM is read by `lib.data.dicom`.
"""

import re
import warnings
import zlib
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, PpmImagePlugin

from lib.data import dicom
from lib.data.picture import LUMINANCE, Decoded, ImageError, check_inflated, check_size
from lib.data.source import SourceError

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "JPEG2000", "WEBP", "GIF", "PPM")  # others of Pillow's start programs
PNM = re.compile(rb"P[1-6f]\s+[\d#]")  # Pillow is content with the first two bytes, as in a text about patient P1
REMARKS = ("ignore", None, UserWarning, re.compile(r"(PIL|pydicom)\."), 0)  # about metadata, not about pixels
LACKING = "support|dependencies|implemented|unknown pixel mode|requires the 'imagecodecs'"  # words of the libraries


def decode(content: bytes) -> Decoded:
    """Return the one image in a file's bytes; raise ImageError, or SourceError if pydicom is needed and missing."""
    if REMARKS not in warnings.filters:  # permanently, because catch_warnings is not safe in threads
        warnings.filterwarnings("ignore", category=UserWarning, module=REMARKS[3].pattern)
    try:
        read = dicom.read(content) if dicom.is_dicom(content) else Decoded(_read_image(content), {})
    except (ImageError, SourceError, MemoryError):
        raise
    except Exception as error:  # damaged files can raise anything
        lacks = isinstance(error, RuntimeError | SyntaxError | ValueError) and re.search(LACKING, str(error))
        reason = "is beyond the installed decoders" if lacks else "is cut off or damaged"
        raise ImageError(f"{reason}: {' '.join(str(error).split()) or type(error).__name__}") from error
    pixels, padding = read.pixels, read.padding
    recorded = pixels if padding is None else pixels[~padding]
    if not recorded.size:
        raise ImageError("holds nothing but padding")
    if not np.isfinite(recorded).all():
        raise ImageError("has pixels that are not finite numbers")
    if (darkest := recorded.min()) == recorded.max():
        raise ImageError(f"has only one grey level: {darkest}")
    if padding is not None:
        pixels = np.where(padding, darkest, pixels)
    if pixels.dtype != np.uint8:
        fits = pixels.dtype.kind in "iu" and darkest >= 0 and recorded.max() < 2**16
        pixels = pixels.astype(np.uint16 if fits else np.float32, copy=False)
    return read._replace(pixels=pixels)


def encode(pixels: np.ndarray) -> bytes:
    """Return a quickly compressed PNG, lossless for uint8 and uint16; finite floats are scaled to all of uint16."""
    if pixels.dtype.kind == "f":
        low, high = float(pixels.min()), float(pixels.max())
        pixels = np.round((pixels - low) * (65535 / (high - low or 1))).astype(np.uint16)
    Image.fromarray(pixels).save(file := BytesIO(), "png", compress_level=1)
    return file.getvalue()


def is_image(beginning: bytes) -> bool:
    """Return whether a file with these first 132 bytes is of a format that is read."""
    return dicom.is_dicom(beginning) or bool(_format(beginning))


def _format(content: bytes) -> str:
    """Return Pillow's name of the format by the first bytes, or ""."""
    Image.init()
    accepted = ((name, Image.OPEN[name][1]) for name in FORMATS if name != "PPM" or PNM.match(content))
    return next((name for name, accepts in accepted if accepts is not None and accepts(content[:16]) is True), "")


def _read_image(content: bytes) -> np.ndarray:
    if not (name := _format(content)):
        raise ImageError(f"is not an image: begins with {content[:8]!r}" if content else "is empty")
    opens = Image.OPEN[name][0]  # not Image.open, which warns of a bomb, or raises, before the size is known
    if name == "TIFF" and (deep := _deep_tiff(content, opens)) is not None:
        return deep
    image: Image.Image = opens(BytesIO(content), "")
    # The first of a phone's pictures (MPO) is the primary one; the others are its gain map, or a second view.
    check_size(*image.size, images=1 if image.format == "MPO" else getattr(image, "n_frames", 1))
    bits = _bits(image, content)
    if bits > 8 and len(image.getbands()) > 1 and name != "PNG":
        raise ImageError(f"has more than 8 bits per colour: {bits} in {name}; save it as PNG, or as grey")
    image.draft("L", image.size)  # decodes only the luminance of a colour JPEG
    image.load()
    orientation = image.getexif().get(0x0112, 1)  # not before: Pillow turns some images when it loads them
    if image.mode[0] in "IF":
        pixels, transparent = np.asarray(image), image.info.get("transparency")
        return _upright(pixels if transparent is None else np.where(pixels == transparent, 0, pixels), orientation)
    if bits > 8 and name == "PNG":
        return _upright(_deep_png(content, opens), orientation)
    if name == "PNG" and bits < 8 and image.mode == "L" and "transparency" in image.info:
        image.info["transparency"] *= 255 // (2**bits - 1)  # as Pillow has scaled the grey levels
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.composite(image.convert("L"), Image.new("L", image.size), image.getchannel("A"))
    return _upright(np.asarray(image if image.mode == "L" else image.convert("L")), orientation)


def _bits(image: Image.Image, content: bytes) -> int:
    """Return how many bits a sample has in the file; Pillow's modes of several bands hold 8."""
    if image.format == "PNG":
        return content[24]
    if image.format == "JPEG2000":  # a component's depth less one, in the first marker segment of the codestream
        return (content[content.index(b"\xff\x4f\xff\x51") + 42] & 127) + 1
    if isinstance(image, PpmImagePlugin.PpmImageFile) and isinstance(arguments := image.tile[0][3], tuple):
        return max(int(arguments[-1]), 1).bit_length()  # its largest level
    return 8


def _deep_png(content: bytes, opens: Any) -> np.ndarray:
    """Return the luminance of a PNG of 16 bits a colour, (height, width) uint16.

    Pillow keeps one byte of each sample, so the file is read twice, for the first and for the second bytes.
    """

    def read(mode: str, order: str = "") -> np.ndarray:
        image = opens(BytesIO(content), "")
        image._mode, image.tile = mode, [(*image.tile[0][:3], mode + order)]
        return np.asarray(image).astype(np.uint16)

    if content[25] == 4:  # grey and opacity: two samples of two bytes are laid out as four of one
        parts = read("RGBA")
        samples = parts[..., ::2] << 8 | parts[..., 1::2]
    else:
        mode = {2: "RGB", 6: "RGBA"}[content[25]]
        samples = read(mode, ";16B") << 8 | read(mode, ";16L")
    grey = _luminance(samples, opacity=content[25] in (4, 6))
    transparent = opens(BytesIO(content), "").info.get("transparency")  # one colour, in files without opacity
    return grey if transparent is None else np.where((samples == transparent).all(axis=-1), np.uint16(0), grey)


def _deep_tiff(content: bytes, opens: Any) -> np.ndarray | None:
    """Return the grey levels of a TIFF of more than 8 bits a sample, or of signed ones; None for other files."""
    import tifffile

    with tifffile.TiffFile(BytesIO(content)) as file:
        page: Any = file.pages[0]
        if page.imagedepth > 1:
            raise ImageError(f"holds several images: {page.imagedepth} in its depth")
        colour, signed = page.samplesperpixel > 1, page.sampleformat == 2
        if page.bitspersample <= 8 and not signed:
            return None
        check_size(page.imagewidth, page.imagelength, images=len(file.pages))
        if page.photometric not in (0, 1, 2) or (colour and (signed or page.dtype != np.uint16)):
            raise ImageError("is beyond the installed decoders: a deep TIFF that is neither grey nor 16-bit RGB")
        if page.compression in (8, 32946):  # deflate, which tifffile inflates whole
            for start, length in zip(page.dataoffsets, page.databytecounts, strict=True):
                check_inflated(content[start : start + length], zlib.MAX_WBITS)
        orientation = page.tags.valueof(0x0112, default=1)
        try:
            pixels = page.asarray(maxworkers=1)
        except ValueError as error:  # a compression that only Pillow knows, which keeps the depth of grey
            if colour or "imagecodecs" not in str(error):
                raise
            image = opens(BytesIO(content), "")
            pixels, orientation = np.asarray(image), image.getexif().get(0x0112, 1)  # it may have been turned
            pixels = pixels.view(np.uint32) if page.dtype == np.uint32 else pixels
        if colour:
            pixels = np.moveaxis(pixels, 0, -1) if page.planarconfig == 2 else pixels
            if page.photometric == 0:  # white is zero; the opacity stays as it is
                pixels = np.dstack([~pixels[..., :1], pixels[..., 1:]])
            pixels = _luminance(pixels, opacity=page.extrasamples[:1] in ((), (2,)))
        elif page.photometric == 0:
            pixels = ~pixels if pixels.itemsize < 4 else -pixels.astype(np.float64)
        return _upright(pixels, orientation)


def _luminance(samples: np.ndarray, opacity: bool) -> np.ndarray:
    """Return the luminance of grey or colour, (height, width, samples) uint16, times the opacity if there is one."""
    colours = samples[..., : 3 if samples.shape[-1] > 2 else 1].astype(np.float32)
    grey = colours @ LUMINANCE if colours.shape[-1] == 3 else colours[..., 0]
    if opacity and samples.shape[-1] > colours.shape[-1]:
        grey = grey * (samples[..., colours.shape[-1]] / np.float32(65535))
    return np.rint(grey).astype(np.uint16)


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo one of the eight orientations of EXIF: the axes are swapped first, then the rows and columns are turned."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.T
    rows, columns = (-1 if orientation in turned else 1 for turned in ((3, 4, 7, 8), (2, 3, 6, 7)))
    return pixels[::rows, ::columns]
