"""Measures of a method's health -> what it lacks, by a rule that no test image and no label had a part in.

It was set after trials on normal images, and before any of the runs that a study holds against it.

A method that reconstructs without a game is held to two marks, one that plays it to three; both use principal
components of the training images as the yardstick, because these are what 16 numbers and a linear map achieve:

1. The mean residual of validation normals is at most that of 16 principal components.
2. The Fréchet distance of its reconstructions from them is below that of 16 principal components.
3. Its critic tells generated images from real ones: the mean KL of reconstructions and of samples is at least 1.5 times
   that of real images.

A method that gives back more than half of a pasted white square copies, and that is a fourth mark: its residual cannot
show a change. The marks say whether a method does what it is meant to do, not whether it detects anything.
"""

from collections.abc import Iterable, Iterator, Mapping

from lib.evidence.record import Record

COMPONENTS = 16  # of the training images; the yardstick
KL_GAP = 1.5  # times the KL of real images
COPIED = 0.5  # of a pasted square
RULE = (
    f"mean residual and Fréchet distance of reconstructed normal images are at most those of {COMPONENTS} principal "
    f"components; with a critic, generated images have at least {KL_GAP} times the KL of real ones; at most "
    f"{100 * COPIED:.0f} % of a pasted white square is given back"
)
"""The marks, in a sentence."""


class Redrawn(Record):
    """How reconstructions of validation normals compare with them (`lib.scores.health`)."""

    residual: float
    detail: float
    frechet: float | None = None


class MethodHealth(Redrawn):
    """What a method does with normal images; a measure that it or the machine does not have is None."""

    frechet_sample: float | None = None
    kl_real: float | None = None
    kl_reconstruction: float | None = None
    kl_sample: float | None = None
    copied: float
    """The share of a pasted white square that is reconstructed."""
    lacks: list[str]
    """What it falls short of, by the rule above."""

    @property
    def kl_gap(self) -> float | None:
        """The lower mean KL of the two kinds of generated images, over that of real ones; None without a posterior.

        It is 1 where the posterior has collapsed to the prior for every image.
        """
        if self.kl_real is None or self.kl_reconstruction is None or self.kl_sample is None:
            return None
        generated = min(self.kl_reconstruction, self.kl_sample)
        return generated / self.kl_real if self.kl_real else float("inf") if generated else 1.0


class Point(Record):
    """A method's health at one point of its training, and what it had spent until then."""

    epochs: int
    images_seen: int
    cpu_seconds: float
    health: MethodHealth


class Yardstick(Record):
    """What no training loop is needed for, by the same measures."""

    floor: float | None
    """Fréchet distance of training from validation normals."""
    components: dict[int, Redrawn]
    """Reconstructions from so many principal components of the training images."""


class Health(Yardstick):
    """Whether the methods are trained to where they can be judged, by normal images alone."""

    methods: dict[str, MethodHealth]


def assess(measures: Mapping[str, float], yardstick: Yardstick, *, has_critic: bool) -> MethodHealth:
    """Return a method's measures (`lib.scores.health`), and what it lacks."""
    measured, components = MethodHealth(**measures, lacks=[]), yardstick.components.get(COMPONENTS)
    return measured.model_copy(update={"lacks": list(_lacks(measured, components, has_critic))})


def _lacks(health: MethodHealth, yardstick: Redrawn | None, has_critic: bool) -> Iterator[str]:
    if yardstick and health.residual > yardstick.residual:
        residuals = f"residual {health.residual:.3f}, theirs {yardstick.residual:.3f}"
        yield f"it reconstructs normal images worse than {COMPONENTS} principal components ({residuals})"
    least = yardstick.frechet if yardstick else None
    if least is not None and health.frechet is not None and health.frechet >= least:
        distances = f"Fréchet distance {health.frechet:,.0f}, theirs {least:,.0f}"
        yield f"its reconstructions look less like radiographs than those of {COMPONENTS} components ({distances})"
    if has_critic and health.kl_gap is not None and health.kl_gap < KL_GAP:
        gap = f"their KL is {health.kl_gap:.2f} times that of real images, wanted {KL_GAP}"
        yield f"its critic hardly tells generated images from real ones ({gap})"
    if health.copied > COPIED:
        yield f"it copies: {100 * health.copied:.0f} % of a pasted square is reconstructed"


def points(history: Iterable[Mapping[str, float]], yardstick: Yardstick) -> list[Point]:
    """Return the points of a training history at which health was measured, as "health/residual" and so on."""
    found = []
    for entry in history:
        health = {name.removeprefix("health/"): value for name, value in entry.items() if name.startswith("health/")}
        if health:
            point = Point(
                epochs=int(entry["epoch"]) + 1,
                images_seen=int(entry["images_seen"]),
                cpu_seconds=round(entry["cpu_seconds"], 1),
                health=assess(health, yardstick, has_critic=has_critic(entry)),
            )
            found.append(point)
    return found


def has_critic(losses: Mapping[str, float]) -> bool:
    """Return whether a method has played against a critic, by the names of its losses."""
    return any("rejection" in loss for loss in losses)


def sentence(name: str, health: MethodHealth) -> str:
    """Return whether a method works, or what it lacks, as one sentence."""
    return f"{name} falls short: {'; '.join(health.lacks)}." if health.lacks else f"{name} meets every mark."
