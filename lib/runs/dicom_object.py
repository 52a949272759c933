"""A residual map as a DICOM object, for the archive that its radiograph comes from: a Secondary Capture (PS3.3 A.8.1).

A Parametric Map would hold the residuals themselves, but it must lie in a frame of reference (PS3.3 A.75.3), which
projection radiographs do not have: it would be invented. So the object shows the map as colours over the image.
"""

import hashlib
import uuid
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lib.data.dicom import is_dicom
from lib.environment import needing, own_version
from lib.figures.overlay import coloured
from lib.runs.model import USE
from lib.runs.run import RunError

if TYPE_CHECKING:
    from pydicom import Dataset

LONGEST = 1024  # pixels of an object's longer side, if the radiograph has more
SOFTWARE = "ImgAE-Dx"
SERIES = 9000  # a number after those of a study's own series
NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
COPIED = (  # as they are written: the patient, the study, and what stays true of the pixels
    *("SpecificCharacterSet", "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex"),
    *("PatientAge", "StudyID", "StudyDate", "StudyTime", "StudyDescription", "AccessionNumber"),
    *("ReferringPhysicianName", "InstanceNumber", "BodyPartExamined", "Laterality", "ImageLaterality"),
    *("PatientOrientation", "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"),
)
CLOCK = (  # what highdicom dates by the clock
    *("InstanceCreationDate", "InstanceCreationTime", "ContentDate", "ContentTime"),
    *("DateOfSecondaryCapture", "TimeOfSecondaryCapture"),
)


class Finding(NamedTuple):
    """What a method of a model says of an image."""

    model: str
    """Its identity."""
    method: str
    score: float
    threshold: float
    false_alarm_rate: float
    p: float
    unlike: str
    """In what the image is unlike the model's normal images; "" if in nothing."""


def check_installed() -> None:
    """Raise RunError if highdicom is missing."""
    with needing("dicom", "--dicom", RunError):
        import highdicom  # noqa: F401


def read_source(content: bytes) -> tuple["Dataset | None", str]:
    """Return what an object repeats of a radiograph's header, or None and why no object can refer to the file."""
    from pydicom import dcmread

    if not is_dicom(content):
        return None, "is not a DICOM file"
    header = dcmread(BytesIO(content), force=True, stop_before_pixels=True, specific_tags=[*NEEDED, *COPIED])
    for name in (*NEEDED, *COPIED):
        try:
            value = header.get(name)
        except Exception:  # of a value that is none of its kind; the message might hold it
            return None, f"has a damaged header: its {name} cannot be read"
        if name in NEEDED and not value:
            return None, f"cannot be referred to: its header has no {name}"
    return header, ""


def overlay_object(
    source: "Dataset",
    finding: Finding,
    image: np.ndarray,
    values: np.ndarray,
    ceiling: float,
    box: tuple[float, float, float, float],
) -> bytes:
    """Return a DICOM file: the image under the colours of a map (`lib.figures.overlay.coloured`), and its scores.

    It belongs to the patient and the study of `source` and refers to it (PS3.3 C.7.6.1). Its UID is a hash of all that
    it shows (PS3.5 B.2), and it holds no time of its own, so equal calls return equal bytes.
    """
    from highdicom import UID
    from highdicom.sc import SCImage
    from highdicom.sr import CodedConcept
    from pydicom import Dataset
    from pydicom.sr.codedict import codes
    from pydicom.uid import ExplicitVRLittleEndian

    def uid(*parts: object) -> UID:
        return UID.from_uuid(str(uuid.uuid5(uuid.NAMESPACE_OID, repr(parts))))

    pixels, version = np.asarray(coloured(image, values, ceiling, box)), own_version()
    made = SCImage(
        pixel_array=pixels,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),  # demanded here, and replaced below
        study_instance_uid=source.StudyInstanceUID,
        series_instance_uid=uid(
            source.StudyInstanceUID, source.SeriesInstanceUID, finding.model, finding.method, version
        ),
        series_number=SERIES,
        sop_instance_uid=uid(source.SOPInstanceUID, finding, version, hashlib.sha256(pixels.tobytes()).hexdigest()),
        instance_number=1,
        manufacturer=SOFTWARE,
        manufacturer_model_name=f"{SOFTWARE} {finding.method}",
        device_serial_number=finding.model,
        software_versions=version,
        series_description=f"{finding.method}: {USE}",
        content_qualification="RESEARCH",
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    for name in CLOCK:
        made.pop(name, None)
    for equipment in made.get("ContributingEquipmentSequence", []):
        equipment.pop("ContributionDateTime", None)
    made.ConversionType = "WSD"  # made on a workstation
    made["PatientOrientation"].clear()
    for name in COPIED:
        if source.get(name):
            made[name] = source[name]
    if not any(name in made for name in ("BodyPartExamined", "Laterality", "ImageLaterality")):
        made.Laterality = ""  # of a body part that may be one of a pair it must not be missing (PS3.3 C.7.3.1.1.2)
    made.DerivationDescription = (
        f"Residual of {finding.method} ({SOFTWARE} {version}, model {finding.model}) as colours over the image: none "
        f"at 0, the brightest from {ceiling:.3g} of the grey range on"
    )
    doubt = f" Unlike the model's normal images in: {finding.unlike}." if finding.unlike else ""
    made.ImageComments = (
        f"{finding.method}: score {finding.score:.4g}, threshold {finding.threshold:.4g} at a false alarm rate of "
        f"{finding.false_alarm_rate:g}, p-value {finding.p:.3g}.{doubt} {USE.capitalize()}."
    )
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    purpose = codes.DCM.SourceImageForImageProcessingOperation
    reference.PurposeOfReferenceCodeSequence = [CodedConcept.from_code(purpose)]
    made.SourceImageSequence = [reference]
    made.save_as(file := BytesIO(), enforce_file_format=True)
    return file.getvalue()
