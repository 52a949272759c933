"""What the name of a folder of images says: a finding, a side of a split, or that it holds no images of a class."""

import re

CLASSES = ("normal", "abnormal", "ignore")  # what about.yaml may say of a folder
FINDINGS = {  # names that need no explanation: those of the public data sets, in small letters without marks
    *("abnormal", "pathological", "disease", "diseased", "sick", "finding", "opacity", "lungopacity"),
    *("airspaceopacity", "pneumonia", "bacteria", "virus", "bacterial", "viral", "bacterialpneumonia"),
    *("viralpneumonia", "tuberculosis", "tb", "covid", "covid19", "sarscov2", "mass", "nodule", "lunglesion"),
    *("lungtumor", "cancer", "effusion", "pleuraleffusion", "edema", "oedema", "consolidation", "atelectasis"),
    *("cardiomegaly", "enlargedheart", "enlargedcardiomediastinum", "pneumothorax", "infiltration", "infiltrate"),
    *("emphysema", "fibrosis", "hernia", "pleuralthickening", "pleuralother", "fracture", "ild", "calcification"),
    *("aorticenlargement", "copd", "foreignbody"),
}
NO_CLASS = re.compile(
    r"mask|segment|annotat|groundtruth|overlay|heatmap|thumb|preview|backup|unlabel|unsorted|unknown|exclude"
    r"|\b(seg|gt|label|copy|temp|tmp|new|old|todo|trash|misc)s?\b"
)


def names_a_finding(folder: str) -> bool:
    """Return whether a folder's name is a known finding, whatever its capitals and marks."""
    return "".join(filter(str.isalnum, folder.lower())) in FINDINGS


def names_no_class(folder: str) -> bool:
    """Return whether a folder's name tells of something else than the images of a class."""
    words = re.sub(r"[\W_\d]+", " ", folder.lower())
    return bool(NO_CLASS.search(words) or NO_CLASS.search(words.replace(" ", "")))


def names_a_side(folder: str) -> bool:
    """Return whether a folder's name may be that of a side of an official split, such as "xray_train_v2"."""
    words = re.sub(r"[\W_\d]+", " ", folder.lower())
    return bool(re.search(r"train|test|\bval(id|idation)?\b", words))
