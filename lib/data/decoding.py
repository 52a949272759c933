"""A file's bytes -> one grey image, or the reason why not; the format is known by content, never by a suffix.

Pillow reads the usual formats: 16-bit grey keeps its depth, colour becomes luminance, transparent pixels become black,
and the orientation in the EXIF data is undone. pydicom reads DICOM, which is rendered as a viewer would show it.
"""

import re
import warnings
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps
from scipy.special import expit

from lib.data.source import SourceError, age_in_years

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "JPEG2000", "WEBP", "GIF", "PPM")  # others of Pillow's start programs
SHORTEST, LONGEST = 16, 10_000  # pixels per side; radiographs are below 5,000, and more may be a decompression bomb
HEADER = {"patient": "PatientID", "age": "PatientAge", "sex": "PatientSex", "view": "ViewPosition"}
REMARKS = ("ignore", None, UserWarning, re.compile(r"(PIL|pydicom)\."), 0)  # about metadata, not about pixels


class ImageError(ValueError):
    """These bytes are not a usable image; equal reasons have equal messages, up to the details after ": "."""


class Decoded(NamedTuple):
    """One grey image; of a DICOM file, `header` has `patient`, `age` in years, `sex` (M, F) and `view`, or ""."""

    pixels: np.ndarray  # (height, width) uint8, uint16 or float32 on any scale, perhaps read-only; white is dense
    header: dict[str, str]  # {} for other files


def decode(content: bytes) -> Decoded:
    """Return the one image in a file's bytes; raise ImageError, or SourceError if pydicom is needed and missing."""
    if REMARKS not in warnings.filters:  # permanently, because catch_warnings is not safe in threads
        warnings.filterwarnings("ignore", category=UserWarning, module=REMARKS[3].pattern)
    try:
        pixels, header = _read_dicom(content) if content[128:132] == b"DICM" else (_read_image(content), {})
    except (ImageError, SourceError, MemoryError):
        raise
    except Exception as error:  # damaged files can raise anything; the words below are pydicom's
        lacks = isinstance(error, RuntimeError) and re.search("support|dependencies|implemented", str(error))
        reason = "is beyond the installed decoders" if lacks else "is cut off or damaged"
        raise ImageError(f"{reason}: {' '.join(str(error).split()) or type(error).__name__}") from error
    if pixels.dtype != np.uint8:
        fits = pixels.dtype.kind in "iu" and pixels.min() >= 0 and pixels.max() < 2**16
        pixels = pixels.astype(np.uint16 if fits else np.float32, copy=False)
    if pixels.dtype == np.float32 and not np.isfinite(pixels).all():
        raise ImageError("has pixels that are not finite numbers")
    if pixels.min() == pixels.max():
        raise ImageError(f"has only one grey level: {pixels[0, 0]}")
    return Decoded(pixels, header)


def encode(pixels: np.ndarray) -> bytes:
    """Return a quickly compressed PNG, lossless for uint8 and uint16; finite floats are scaled to all of uint16."""
    if pixels.dtype.kind == "f":
        low, high = float(pixels.min()), float(pixels.max())
        pixels = np.round((pixels - low) * (65535 / (high - low or 1))).astype(np.uint16)
    Image.fromarray(pixels).save(file := BytesIO(), "png", compress_level=1)
    return file.getvalue()


def _read_image(content: bytes) -> np.ndarray:
    Image.init()  # not Image.open, which warns of a bomb, or raises, before the size is known
    known = [
        opens
        for opens, accepts in map(Image.OPEN.__getitem__, FORMATS)
        if accepts is not None and accepts(content[:16]) is True
    ]
    if not known:
        raise ImageError(f"is not an image: begins with {content[:8]!r}" if content else "is empty")
    image: Image.Image = known[0](BytesIO(content), "")
    _check(*image.size, images=getattr(image, "n_frames", 1))
    image.draft("L", image.size)  # decodes only the luminance of a colour JPEG
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode[0] in "IF":
        white_is_zero = image.mode == "I;16" and getattr(image, "tag_v2", {}).get(262) == 0  # ignored by Pillow
        return ~np.asarray(image) if white_is_zero else np.asarray(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.composite(image.convert("L"), Image.new("L", image.size), image.getchannel("A"))
    return np.asarray(image if image.mode == "L" else image.convert("L"))


def _check(width: int, height: int, images: int) -> None:
    if min(width, height) < SHORTEST:
        raise ImageError(f"is too small to be an image: {width} x {height} pixels")
    if max(width, height) > LONGEST:
        raise ImageError(f"is too large to be an image: {width} x {height} pixels")
    if images > 1:
        raise ImageError(f"holds several images: {images}")


def _read_dicom(content: bytes) -> tuple[np.ndarray, dict[str, str]]:
    try:
        import pydicom.pixels
    except ImportError as error:
        raise SourceError("DICOM needs pydicom: pip install pydicom python-gdcm, or pip install '.[dicom]'") from error
    data = pydicom.dcmread(BytesIO(content))
    if "Rows" not in data:
        raise ImageError("is a DICOM file without an image" if data else "is cut off or damaged: nothing can be read")
    _check(data.Columns, data.Rows, images=int(data.get("NumberOfFrames") or 1))
    header = {key: str(data.get(name) or "").strip() for key, name in HEADER.items()}
    header["age"] = age_in_years(header["age"])
    header["sex"] = header["sex"] if header["sex"] in ("M", "F") else ""
    plugins = pydicom.pixels.get_decoder(data.file_meta.TransferSyntaxUID).available_plugins
    if "pillow" in plugins:  # it releases the GIL; gdcm, pydicom's first choice, crashes on some damaged files
        data.pixel_array_options(decoding_plugin="pillow")
    pixels = data.pixel_array
    if data.PhotometricInterpretation == "PALETTE COLOR":
        pixels = pydicom.pixels.apply_color_lut(pixels, data)[..., :3]
    if pixels.ndim == 3:  # red, green, blue: pydicom has converted other colour spaces
        return pixels @ np.array([0.299, 0.587, 0.114], np.float32), header
    return _as_seen(pixels, data), header


def _as_seen(pixels: np.ndarray, data: Any) -> np.ndarray:
    """Apply the modality's scale and the first VOI table or window (PS3.3 C.11); the result is white where dense."""
    slope, intercept = np.float32(data.get("RescaleSlope") or 1), np.float32(data.get("RescaleIntercept") or 0)
    if tables := data.get("ModalityLUTSequence"):
        pixels = _look_up(pixels, tables[0])
    elif slope != 1 or intercept != 0:
        pixels = pixels * slope + intercept
    center, width = (np.ravel(data.get(name))[0] for name in ("WindowCenter", "WindowWidth"))
    function = data.get("VOILUTFunction") or "LINEAR"
    linear = function == "LINEAR"  # it subtracts half a level from the centre, and one from the width
    if tables := data.get("VOILUTSequence"):
        pixels = _look_up(pixels, tables[0])
    elif None not in (center, width) and width > linear:  # a window without width would show nothing
        place = (pixels - np.float32(center - linear / 2)) / np.float32(width - linear)
        pixels = expit(4 * place) if function == "SIGMOID" else np.clip(place + 0.5, 0, 1)
    if data.PhotometricInterpretation == "MONOCHROME1":
        pixels = -pixels if pixels.dtype.kind == "f" else np.invert(pixels)
    return pixels


def _look_up(pixels: np.ndarray, item: Any) -> np.ndarray:
    entries, first = item.LUTDescriptor[0] or 2**16, item.LUTDescriptor[1]
    raw = item.LUTData if isinstance(item.LUTData, bytes) else np.asarray(item.LUTData, "<u2").tobytes()
    table = np.frombuffer(raw, "<u2" if len(raw) >= 2 * entries else np.uint8)  # 8-bit entries are packed in pairs
    return table[np.clip(pixels.astype(np.int64) - first, 0, entries - 1)]
