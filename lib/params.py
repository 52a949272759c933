"""A run's settings: one typed, frozen model for the notebook's cell, papermill, YAML files and the command line.

Every setting is checked by it before anything is trained. The notebook's parameters cell is generated from it
(`lib.notebook.parameters`).
"""

import copy
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from lib.choices import KeyOf
from lib.contradictions import contradiction
from lib.privacy import without_secrets
from lib.refusals import Refusal, echo, explain
from lib.strict_yaml import Misread, load

LARGEST_SEED = 2**31 - 1
PRESETS = ("quick", "standard", "full")


class ParameterError(Refusal):
    """A setting is unknown, of the wrong type or out of its range."""


def by_preset(quick: Any, standard: Any, full: Any, **field: Any) -> Any:
    """Return a field whose default depends on the setting `preset`."""
    return Field(quick, json_schema_extra={"presets": [quick, standard, full]}, **field)


class Params(BaseModel):
    """The settings of one run; unknown names, text where a number belongs and values out of range are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    preset: Literal["quick", "standard", "full"] = Field(
        "quick",
        description="what settings are that are left open; quick: minutes on a CPU, full: the authors', for a GPU",
    )
    methods: list[Annotated[str, KeyOf("methods/variants.py", "VARIANTS")]] = Field(
        ["unet", "ra"], description="methods to train; lib/methods/variants.py describes each"
    )
    references: list[Annotated[str, KeyOf("scores/references.py", "REFERENCES")]] = Field(
        ["mean-grey", "mean-image", "pca", "knn", "mahalanobis", "patchcore", "view"],
        description="baselines without a training loop; knn, mahalanobis and patchcore need a backbone",
    )
    backbone: Literal["auto", "efficientnet-lite0", "resnet18", "none"] = Field(
        "auto", description="frozen network behind perceptual scores; auto: the first available, or none"
    )
    ra_map: Literal["backbone", "lpips"] = Field(
        "backbone", description="perceptual distance of RA's own score; lpips is the authors', and is downloaded"
    )
    source: Literal[
        "phantom", "folder", "stream", "rsna", "rsna-dicom", "kermany", "nih", "nih-sample", "vinbigdata"
    ] = Field(
        "phantom",
        description="phantom: synthetic images; folder, stream: those of data_dir; the others: a data set from Kaggle",
    )
    data_dir: str = Field("", description="folder of images, or address of shards (hf://, s3://, gs://, https://)")
    labels: Literal["given", "strict"] = Field("given", description="which labels count, where an image has two")
    on_bad_image: Literal["stop", "skip"] = Field("stop", description="at an unusable image: stop, or leave it out")
    stretch: list[float] = Field(
        [1.0, 99.0], min_length=2, max_length=2, description="percentiles of grey that become black and white"
    )
    square: Literal["pad", "squash"] = Field("pad", description="how an image becomes square")
    phantom_images: int = by_preset(
        800, 1200, 1200, ge=40, le=1_000_000, description="number of phantoms, a quarter abnormal"
    )
    phantom_severity: list[float] = Field(
        [0.7, 1.0], min_length=2, max_length=2, description="least and most extent of the phantoms' lesions, 0 to 1"
    )
    phantom_lesions: int = Field(3, ge=1, le=10, description="lesions of an abnormal phantom, all of one finding")
    image_size: int = by_preset(64, 128, 128, ge=16, le=1024, description="side of the square input, pixels")
    widths: list[int] = by_preset(
        [8, 16, 32, 64],
        [16, 32, 64, 128, 128],
        [64, 128, 256, 512, 512],
        min_length=1,
        description="channels at each resolution, both methods",
    )
    normalisation: Literal["batch", "group"] = Field("batch", description="normalisation layers, both methods")
    latent_dim: int = by_preset(64, 128, 128, ge=1, description="RA: length of the latent vector z")
    batch_size: int = by_preset(16, 32, 8, ge=2, description="images per update")
    epochs: int = by_preset(10, 20, 100, ge=1, description="passes over the normal training images")
    learning_rate: float = by_preset(2.0e-4, 2.0e-4, 5.0e-5, gt=0, le=1, description="Adam step size, both methods")
    augmentation: float = Field(
        0.0, ge=0, le=0.5, description="most that a training image is turned, zoomed and shifted by at random; 0: not"
    )
    average_decay: float = Field(
        0.0, ge=0, lt=1, description="decay a batch of the average of weights that is used; 0: the last weights"
    )
    seed: int = Field(0, ge=0, le=LARGEST_SEED, description="fixes the first weights and the batch order")
    seeds: list[int] = Field([], description="seeds to train in turn and to combine, the first in full; empty: seed")
    split_seed: int = Field(0, ge=0, le=LARGEST_SEED, description="fixes the split, and the phantoms")
    choose_from: list[int] = Field(
        [], description="epochs whose weights are kept, to choose from and to draw curves; always the last"
    )
    measure_every: int = Field(
        0, ge=0, description="measure health every n epochs; 0: after 1, 2, 3, 4, 6, 8, 12, 16 ... epochs"
    )
    validation_fraction: float = Field(0.15, gt=0, lt=0.5, description="share of normals kept for thresholds")
    unet_skips: Literal["full", "none", "noise"] = Field("full", description="U-Net: what its skip connections carry")
    unet_skip_noise: float = Field(1.0, gt=0, description="U-Net: scale of the noise on noisy skips")
    unet_corruption: Literal["none", "noise", "mask"] = Field(
        "none", description="U-Net: how training corrupts its input"
    )
    ra_beta_rec: float = by_preset(1.667, 0.5, 0.5, ge=0, description="RA: weight of the reconstruction error")
    ra_beta_kl: float = by_preset(1.333, 1.0, 1.0, ge=0, description="RA: weight of the real images' KL, at 128 px")
    ra_beta_neg: float = by_preset(
        256.0, 128.0, 128.0, ge=0, description="RA: weight of the generated images' KL, encoder, at 128 px"
    )
    ra_gamma_r: float = by_preset(
        0.0, 1.0e-8, 1.0e-8, ge=0, description="RA: weight of the generated images' error, decoder"
    )
    ra_lambda_emb: float = by_preset(
        0.0167, 0.005, 0.005, ge=0, description="RA: weight of the reversed embedding loss; 0: SI-VAE"
    )
    ra_warmup_epochs: int = by_preset(
        4, 5, 5, ge=0, description="RA: epochs as a plain VAE before the adversarial game"
    )
    ra_rejection_start: float = by_preset(
        0.01, 1.0, 1.0, gt=0, le=1, description="RA: weight of the critic's term when the adversarial game begins"
    )
    ra_rejection_growth: int = by_preset(
        6, 0, 0, ge=0, description="RA: epochs in which that weight grows to 1; 0: it is 1"
    )
    ra_as_published: list[
        Literal["frozen-normalisation", "attached-target", "sampled-latent", "fixed-weights", "repeated-passes"]
    ] = Field([], description="RA: choices of the authors' code to follow; see chapter 4")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="arithmetic of training; auto: the fastest"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="device to train on; auto: cuda if there is one")
    threads: int = Field(0, ge=0, le=1024, description="CPU threads; 0: torch's choice, 1: for runs side by side")
    resamples: int = by_preset(1000, 2000, 2000, ge=100, description="bootstrap resamples behind each interval")
    run_dir: str = Field("", description="folder of results; empty: a name made from the settings, in runs/")
    compare_with: list[str] = Field([], description="folders of finished runs to compare with, such as runs/unet")
    keep_in: str = Field("", description="folder that outlives this machine, such as /content/drive/MyDrive/x")
    tracking: Literal["off", "wandb"] = Field("off", description="wandb: also log to Weights & Biases, offline")

    def __init__(self, /, **settings: Any) -> None:
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise ParameterError(explain(error.errors(), self._schemas())) from None

    @model_validator(mode="before")
    @classmethod
    def _left_open(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Fill in what the preset sets, where nothing or None is given, and the seed that stands for several."""
        defaults = cls.defaults(given.get("preset", "quick"))
        own = {name: value for name, value in given.items() if value is not None or name not in defaults}
        first = {"seed": own["seeds"][0]} if isinstance(own.get("seeds"), list) and own["seeds"] else {}
        return defaults | first | own

    @field_validator("tracking", mode="before")
    @classmethod
    def _off(cls, value: Any) -> Any:
        return "off" if value is False else value  # YAML reads the word off as false

    @field_validator("data_dir", "run_dir", "keep_in")
    @classmethod
    def _names_a_place(cls, value: str, info: ValidationInfo) -> str:
        """Refuse what no disk can hold; of an address, the settings hold what is no secret."""
        if re.search(r"[\x00-\x1f\x7f]", value):
            raise ValueError(f"{info.field_name}={echo(value)} holds a control character, which no path may; delete it")
        if re.search(r"[\ud800-\udfff]", value):
            raise ValueError(f"{info.field_name}={echo(value)} is no text in UTF-8; give that place another name")
        if "://" not in value and max(len(os.fsencode(part)) for part in value.split("/")) > 255:
            raise ValueError(
                f"{info.field_name}={echo(value)} holds a name of more than 255 bytes; write a shorter one"
            )
        return without_secrets(value)

    @model_validator(mode="after")
    def _without_contradiction(self) -> Self:
        if found := contradiction(self):
            raise ValueError(found)
        return self

    @classmethod
    def from_yaml(cls, file: Path, /, **overrides: Any) -> Self:
        """Read a params file; `overrides` take precedence.

        Raises:
            ParameterError: The file does not exist, is not YAML, or holds wrong settings.

        """
        try:
            settings = load(file.read_bytes().decode("utf-8-sig"))
        except FileNotFoundError:
            raise ParameterError(
                f"params file {file} is not there; those that come with the project are in params/"
            ) from None
        except OSError as error:
            raise ParameterError(f"params file {echo(str(file))} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise ParameterError(f"{file} is not text in UTF-8 (at byte {error.start}); save it as UTF-8") from None
        except Misread as error:
            raise ParameterError(f"{file}:{error.line}: {error}") from None
        settings = {} if settings is None else settings
        if not isinstance(settings, dict):
            raise ParameterError(f"{file} holds {type(settings).__name__}, wanted lines of `name: value`")
        return cls(**{str(name): value for name, value in settings.items()} | overrides)

    @classmethod
    def defaults(cls, preset: str) -> dict[str, Any]:
        """Return what a preset sets; nothing if there is no such preset."""
        if preset not in PRESETS:
            return {}
        extra: dict[str, Any] = {name: field.json_schema_extra for name, field in cls.model_fields.items()}
        presets = {name: found["presets"] for name, found in extra.items() if isinstance(found, dict)}
        return {name: copy.copy(values[PRESETS.index(preset)]) for name, values in presets.items()}

    @classmethod
    def _schemas(cls) -> dict[str, Any]:
        return cls.model_json_schema()["properties"]

    def training_settings(self) -> dict[str, Any]:
        """Return the settings that a trained method depends on.

        The images are identified by the split's hash, so what says where they are, or draws them, is not among them.
        """
        free = {"methods", "references", "backbone", "ra_map", "epochs", "run_dir", "tracking", "resamples", "device"}
        free |= {"data_dir", "keep_in", "compare_with", "labels", "on_bad_image", "measure_every", "threads"}
        free |= {"preset", "seeds", "split_seed", "phantom_severity", "phantom_lesions"}
        return self.model_dump(exclude=free)

    @property
    def extras(self) -> list[str]:
        """The optional dependencies of pyproject.toml that these settings name."""
        wanted = {
            "dicom": self.source == "rsna-dicom",
            "features": self.backbone == "efficientnet-lite0" or self.ra_map == "lpips",
            "kaggle": self.source not in ("phantom", "folder", "stream") and not self.data_dir,
            "stream": self.source == "stream",
            "tracking": self.tracking == "wandb",
        }
        return [name for name, named in wanted.items() if named]

    @property
    def label_column(self) -> str:
        """The column of the records that `labels` stands for."""
        return {"given": "label", "strict": "strict_label"}[self.labels]

    @property
    def places(self) -> list[str]:
        """The paths among the settings, as they are written."""
        return [place for place in (self.data_dir, self.run_dir, self.keep_in, *self.compare_with) if place]

    def with_paths_under(self, base: Path) -> Self:
        """Return the settings with absolute paths but for `run_dir`: a relative one is under `base`, ~ the home."""

        def absolute(path: str) -> str:
            return str((base / os.path.expanduser(path)).resolve()) if path and "://" not in path else path

        paths = {"data_dir": absolute(self.data_dir), "keep_in": absolute(self.keep_in)}
        return self.model_copy(update=paths | {"compare_with": [*map(absolute, self.compare_with)]})

    def folder(self, base: Path) -> Path:
        """Return the absolute run folder; a relative `run_dir` lies under `base`."""
        if self.run_dir:
            return (base / os.path.expanduser(self.run_dir)).resolve()
        images = {"data_dir", "split_seed", "phantom_severity", "phantom_lesions"}
        what = self.training_settings() | self.model_dump(include={"methods", "epochs", "seeds", *images})
        digest = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:8]
        return (base / "runs" / f"{'+'.join(self.methods) or 'compare'}-{self.source}-{digest}").resolve()


def project_root(start: Path | None = None) -> Path:
    """Return the folder that relative paths start from: the checkout around `start`, else `start` itself.

    `IMGAE_DX_ROOT` overrides it. So a run reads and writes the same places from any folder of a checkout. Outside a
    checkout it is the working folder (on Colab, `/content`).
    """
    if root := os.environ.get("IMGAE_DX_ROOT"):
        return Path(root).resolve()
    start = (start or Path.cwd()).resolve()
    return next((folder for folder in (start, *start.parents) if (folder / "build_notebook.py").is_file()), start)
