"""A DICOM file's bytes -> one grey image as a viewer would show it, where it is padded, and what the header says.

pydicom reads the file. What writers leave out and a reader can know is filled in: the preamble, the transfer syntax of
pixels that are not compressed, a decimal point for a comma.
"""

import re
import zlib
from io import BytesIO
from typing import Any

import numpy as np
from scipy.special import expit

from lib.data.picture import LUMINANCE, Decoded, ImageError, check_inflated, check_size
from lib.data.source import SourceError
from lib.environment import needing

HEADER = {"patient": "PatientID", "age": "PatientAge", "sex": "PatientSex", "view": "ViewPosition"}
SPACES = {*("MONOCHROME1", "MONOCHROME2", "RGB", "PALETTE COLOR"), *("YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")}
SPACINGS = ("PixelAspectRatio", "PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")  # rows, columns
DEFLATED = re.compile(rb"UI..1\.2\.840\.10008\.1\.2\.1\.99", re.DOTALL)  # the transfer syntax
FIRST = re.compile(rb"[\x02\x08]\0.\0", re.DOTALL)  # an element of group 0002 or 0008 begins a file without preamble


def is_dicom(content: bytes) -> bool:
    """Return whether a file is DICOM by its first bytes; a preamble is usual, but not always there."""
    return content[128:132] == b"DICM" or bool(FIRST.match(content))


def read(content: bytes) -> Decoded:
    """Return the one image of a DICOM file; ImageError if it has none, SourceError if pydicom is missing."""
    with needing("dicom", "DICOM", SourceError):
        import pydicom.pixels
    if DEFLATED.search(content[: 2**16]):  # pydicom inflates all that follows the file's meta information
        length = re.search(rb"\x02\0\0\0UL\x04\0(.{4})", content[: 2**16], re.DOTALL)
        if length is None:
            raise ImageError("is cut off or damaged: the length of its meta information is missing")
        check_inflated(content[length.end() + int.from_bytes(length[1], "little") :], -zlib.MAX_WBITS)
    data = pydicom.dcmread(BytesIO(content), force=True)  # without the preamble, too
    if "Rows" not in data:
        raise ImageError(_without_image(content, data))
    check_size(data.Columns, data.Rows, images=int(data.get("NumberOfFrames") or 1))
    header = {key: str(data.get(name) or "").strip() for key, name in HEADER.items()}
    if "TransferSyntaxUID" not in data.file_meta:
        data.file_meta.TransferSyntaxUID = _transfer_syntax(data)
    _check_layout(data)
    plugins = pydicom.pixels.get_decoder(data.file_meta.TransferSyntaxUID).available_plugins
    if "pillow" in plugins:  # it releases the GIL; gdcm, pydicom's first choice, crashes on some damaged files
        data.pixel_array_options(decoding_plugin="pillow")
    pixels = data.pixel_array
    if data.PhotometricInterpretation == "PALETTE COLOR":
        pixels = pydicom.pixels.apply_color_lut(pixels, data)[..., :3]
    if pixels.ndim == 3:  # red, green, blue: pydicom has converted other colour spaces
        return Decoded(pixels @ LUMINANCE, header)
    return Decoded(_as_seen(pixels, data), header, _padding(pixels, data))


def _check_layout(data: Any) -> None:
    """Write the colour space in capitals; raise ImageError for pixels that would be read as something else."""
    space, syntax = str(data.get("PhotometricInterpretation") or "").strip().upper(), data.file_meta.TransferSyntaxUID
    if space not in SPACES or (space in ("YBR_RCT", "YBR_ICT") and "JPEG 2000" not in syntax.name):
        raise ImageError(
            f"has a colour space that is not read: {space or 'none stated'}; export it as MONOCHROME2 or RGB"
        )
    data.PhotometricInterpretation = space
    stored, top = data.get("BitsStored"), data.get("HighBit")
    if None not in (stored, top) and top != stored - 1:
        raise ImageError(f"has its bits in another place than the lowest: {stored} stored, the highest is bit {top}")
    for name in SPACINGS:
        high, wide = _number(data, name), _number(data, name, 1)
        if high and wide and abs(high / wide - 1) > 0.01:
            raise ImageError(f"has pixels that are not square: {name} {high:g} to {wide:g}; resample it")


def _without_image(content: bytes, data: Any) -> str:
    """Return what is wrong with bytes that hold no rows of pixels."""
    if content[128:132] != b"DICM" and "SOPClassUID" not in data:
        return f"is not an image: begins with {content[:8]!r}"
    return "is a DICOM file without an image" if data else "is cut off or damaged: nothing can be read"


def _transfer_syntax(data: Any) -> Any:
    """Return the transfer syntax of a file that does not say it, as it was read; ImageError if it is compressed."""
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if data.get("PixelData", b"")[:4] == b"\xfe\xff\x00\xe0":  # the first item of compressed pixels
        raise ImageError(
            "lacks the transfer syntax of its compressed pixels: export it again as a DICOM file (part 10)"
        )
    implicit, little = data.original_encoding
    return ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian


def _padding(pixels: np.ndarray, data: Any) -> np.ndarray | None:
    """Return where the stored values are padding (PS3.3 C.7.5.1.1.2), (height, width) bool; None without padding."""
    for kind in ("", "Float", "DoubleFloat"):
        if (value := data.get(f"{kind}PixelPaddingValue")) is not None:
            limit = data.get(f"{kind}PixelPaddingRangeLimit")
            bounds = np.array([value, value if limit is None else limit])
            bounds = bounds.astype(pixels.dtype)  # a negative value may be written as unsigned
            if pixels.dtype.kind in "iu":  # the bits outside of the stored ones are no part of it
                unused = 8 * pixels.itemsize - data.BitsStored
                bounds = bounds << unused >> unused
            low, high = sorted(bounds)
            padding = (pixels >= low) & (pixels <= high)
            return padding if padding.any() else None
    return None


def _number(data: Any, name: str, place: int = 0) -> float | None:
    """Return a value of a decimal string, or None; some writers put their country's decimal comma."""
    value = next(iter(np.ravel(data.get(name))[place:]), None)
    try:
        return None if value is None or value == "" else float(str(value).replace(",", "."))
    except ValueError:
        raise ImageError(f"has no number in its {name}: {str(value)!r}") from None


def _as_seen(pixels: np.ndarray, data: Any) -> np.ndarray:
    """Apply the modality's scale and the first VOI table or window (PS3.3 C.11); the result is white where dense."""
    slope, intercept = (
        np.float32(_number(data, "RescaleSlope") or 1),
        np.float32(_number(data, "RescaleIntercept") or 0),
    )
    if tables := data.get("ModalityLUTSequence"):
        pixels = _look_up(pixels, tables[0])
    elif slope not in (0, 1) or intercept != 0:
        pixels = pixels * (slope or np.float32(1)) + intercept
    center, width = _number(data, "WindowCenter"), _number(data, "WindowWidth")
    function = data.get("VOILUTFunction") or "LINEAR"
    linear = function == "LINEAR"  # it subtracts half a level from the centre, and one from the width
    if tables := data.get("VOILUTSequence"):
        pixels = _look_up(pixels, tables[0])
    elif center is not None and width is not None and width > linear:  # a window without width would show nothing
        place = (pixels - np.float32(center - linear / 2)) / np.float32(width - linear)
        shown = expit(4 * place) if function == "SIGMOID" else np.clip(place + 0.5, 0, 1)
        if shown.min() == shown.max() and (low := pixels.min()) < (high := pixels.max()):
            raise ImageError(f"has a window beside its values: {center:g}, {width:g} wide, for {low:g} to {high:g}")
        pixels = shown
    if data.PhotometricInterpretation == "MONOCHROME1":
        pixels = -pixels if pixels.dtype.kind == "f" else np.invert(pixels)
    return pixels


def _look_up(pixels: np.ndarray, item: Any) -> np.ndarray:
    entries, first = item.LUTDescriptor[0] or 2**16, item.LUTDescriptor[1]
    raw = item.LUTData if isinstance(item.LUTData, bytes) else np.asarray(item.LUTData, "<u2").tobytes()
    table = np.frombuffer(raw, "<u2" if len(raw) >= 2 * entries else np.uint8)  # 8-bit entries are packed in pairs
    return table[np.clip(pixels.astype(np.int64) - first, 0, entries - 1)]
