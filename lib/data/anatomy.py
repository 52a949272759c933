r"""The phantom's patients: an analytic thorax of closed-form solids, and the line integrals through it.

A ray along z runs inside a (super)ellipsoid with semi-axes a, b, c for

    2 c sqrt(1 - ((x - x0) / a)^2 - |(y - y0) / b|^p)

centimetres, and organs overlap along it as intervals do. The frame is the viewer's: x to the image's right (the
patient's left), y down, z to the patient's back, in centimetres of a patient of standard size.
"""

import math
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray

# Linear attenuation in 1/cm near 70 keV: approximate values after NIST's XCOM tables and usual densities.
MU_SOFT = 0.20  # muscle, blood, water: 1.0 to 1.06 g/cm3
MU_LUNG = 0.05  # inflated lung: 0.26 g/cm3
MU_BONE = 0.45  # rib and clavicle: cortex and marrow together
MU_SPONGY = 0.28  # vertebra, shoulder
DEFICIT = MU_SOFT - MU_LUNG  # what inflated lung lacks, compared with soft tissue

FIELD = 38.0  # cm, side of the detector

Array = NDArray[np.floating]


def half_chord(
    x: Array, y: Array, centre: tuple[float, float], axes: tuple[float, float, float], tilt: float = 0, power: float = 2
) -> Array:
    """Return half of the length in cm that a ray along z at (x, y) runs inside a solid; 0 where it misses.

    The solid is (u / a)^2 + |v / b|^power + (z / c)^2 <= 1, where (u, v) is (x, y) relative to the centre, turned by
    `tilt` radians (positive: the +x end goes down). Power 2 is an ellipsoid; a higher power is boxier along y.
    """
    u, v = x - centre[0], y - centre[1]
    if tilt:
        u, v = math.cos(tilt) * u + math.sin(tilt) * v, math.cos(tilt) * v - math.sin(tilt) * u
    u, v = u / axes[0], v / axes[1]
    return axes[2] * np.sqrt(np.maximum(1 - u * u - (v * v) ** (power / 2), 0))


def draw_patient(rng: np.random.Generator) -> SimpleNamespace:
    """Return a patient; lengths are in cm of the standard patient, whom `build` scales."""
    draw = rng.uniform
    female = bool(rng.random() < 0.5)
    age = int(np.clip(rng.normal(50, 17), 18, 90))
    top = draw(-13.6, -12.2)  # y of the apices
    return SimpleNamespace(
        sex="F" if female else "M",
        age=age,
        outpatient=bool(rng.random() < 0.7),
        build=draw(0.92, 1.0) if female else draw(0.98, 1.07),
        girth=draw(0.94, 1.15),  # the trunk's width and depth relative to the skeleton's
        top=top,
        # Centre, axes, tilt and power of the left lung before diaphragm and heart cut it; the right one is its mirror.
        lung=((6.9, 3.0), (6.3, 3.0 - top, 8.5), -0.07, 2.2),
        dome=draw(6.5, 9),  # y of the right hemidiaphragm at full inspiration
        left_drop=draw(0.3, 1.5),  # how much lower the left one stands
        heart=draw(5.8, 7.0),  # half of its long axis
        heart_tilt=draw(0.35, 0.7),
        mediastinum=draw(2.6, 3.3),  # half width
        aorta=draw(1.2, 1.5) + 0.006 * age,  # radius of the knob
        rib_spacing=draw(2.3, 2.8),
        rib_fall=draw(0.34, 0.5),  # y gained per cm from back to front
        bone=draw(0.9, 1.1) - 0.004 * max(age - 50, 0),  # mineral relative to a young adult's
        breast=draw(1.5, 4) if female else 0.0,  # depth
        bubble=draw(0.3, 3),  # half width of the stomach's gas
        vessels=_vessel_trees(rng),
    )


def _vessel_trees(rng: np.random.Generator) -> Array:
    """Return points that fill the vessels, forking outwards from the hila: (points, 3) of x, y in cm, volume in cm3."""
    side = np.repeat([-1.0, 1.0], 6)
    x, y = 3.3 * side, rng.normal(-1.8, 0.6, side.size)
    angle = np.tile([-1.25, -0.75, -0.2, 0.3, 0.8, 1.25], 2) + rng.normal(0, 0.15, side.size)  # 0 is lateral, + is down
    radius, reach = rng.uniform(0.55, 0.85, side.size), 2.9
    points = []
    for along, across in ((18, 9), (15, 7), (12, 5), (9, 3), (6, 2), (4, 2)):  # points per vessel, closer than pixels
        t = (np.arange(along)[:, None] + 0.5) / along
        u = (np.arange(across)[:, None, None] + 0.5) * 2 / across - 1
        length = reach * rng.uniform(0.7, 1.3, side.size)
        dx, dy = side * np.cos(angle), np.sin(angle)
        volume = length / along * radius * 2 / across * 2 * radius * np.sqrt(1 - u * u)  # step, width, chord
        filled = (x + dx * length * t - dy * radius * u, y + dy * length * t + dx * radius * u, volume)
        points.append(np.stack(np.broadcast_arrays(*filled), -1).reshape(-1, 3))
        x, y, side = np.repeat(x + dx * length, 2), np.repeat(y + dy * length, 2), np.repeat(side, 2)
        angle = np.repeat(angle, 2) + np.tile([-0.4, 0.4], angle.size) + rng.normal(0, 0.2, side.size)
        radius, reach = np.repeat(radius * 0.74, 2), reach * 0.8
    return np.concatenate(points)


def position(body: SimpleNamespace, rng: np.random.Generator) -> SimpleNamespace:
    """Return a patient as one image shows them: anatomy, heart and diaphragm in this position, and the apparatus."""
    draw = rng.uniform
    upright = bool(rng.random() < (0.9 if body.outpatient else 0.2))  # PA needs a patient who can stand
    stray = 1.0 if upright else 1.6
    setting = dict(
        view="PA" if upright else "AP",
        scale=draw(0.98, 1.1) * body.build,
        shift=(draw(-1, 1) * stray, draw(-1, 1) * stray),
        turn=draw(-0.03, 0.03) * stray,  # radians in the image plane
        twist=draw(-0.4, 0.4) * stray,  # how far the front of the chest moves against its back
        dome=body.dome - (draw(0, 1.2) if upright else draw(0.8, 3)),  # less inspiration lying down
        heart=body.heart * (1.0 if upright else draw(1.08, 1.18)),  # in AP it lies far from the detector
        clavicle=0.0 if upright else -1.2,
        scapula=draw(13.5, 15) if upright else draw(11, 13),  # |x| of its centre; rolled off the lungs for PA
        scatter=draw(0.08, 0.18) if upright else draw(0.2, 0.4),  # kappa: no grid at the bedside
        exposure=math.exp(draw(-0.7, 0.7)),
        gamma=draw(0.7, 1.0),
        beam=[draw(FIELD / 2 - 2, FIELD / 2 + 4) for _ in range(4)],  # centre to the left, right, top and bottom edge
    )
    return SimpleNamespace(**(vars(body) | setting))


def rays(chest: SimpleNamespace, n: int) -> tuple[Array, Array]:
    """Return x and y where the rays to n x n detector elements pass through the standard patient, in cm."""
    u = ((np.arange(n, dtype=np.float32) + 0.5) / n - 0.5) * FIELD
    right, down = (u - chest.shift[0]) / chest.scale, (u[:, None] - chest.shift[1]) / chest.scale
    cos, sin = math.cos(chest.turn), math.sin(chest.turn)
    return cos * right + sin * down, cos * down - sin * right


def vessels_seen(chest: SimpleNamespace, n: int) -> Array:
    """Return the mean length in cm of vessel along the rays to each of n x n detector elements."""
    x, y, volume = chest.vessels.T
    cos, sin = math.cos(chest.turn), math.sin(chest.turn)
    down, right = chest.scale * (cos * y + sin * x) + chest.shift[1], chest.scale * (cos * x - sin * y) + chest.shift[0]
    row, column = (np.floor((place / FIELD + 0.5) * n).astype(np.intp) for place in (down, right))
    seen = (np.minimum(row, column) >= 0) & (np.maximum(row, column) < n)
    summed = np.bincount((row * n + column)[seen], volume[seen], n * n).reshape(n, n)
    return (summed * (chest.scale * n / FIELD) ** 2).astype(np.float32)


def line_integral(
    chest: SimpleNamespace, x: Array, y: Array, vessels: Array, heart_growth: float = 1.0
) -> tuple[Array, Array, Array]:
    """Return L, and the lengths in cm of aerated lung and of vessel within lung, along each ray."""
    across, front = np.abs(x), x - chest.twist
    lung = half_chord(across, y, *chest.lung)

    # What displaces lung: abdomen under its domes and mediastinum, both centred in depth, and the heart in front.
    top = chest.dome + np.float32(chest.left_drop) * (x > 0).astype(np.float32)
    domes = 1 - ((across - 6.1) / 8.6) ** 2 - np.minimum((y - top) / 8 - 1, 0) ** 2
    block = 10.5 * np.sqrt(np.maximum(domes, 0))
    block = np.maximum(block, half_chord(x, y, (0, 8), (chest.mediastinum, 27, 9), power=3))
    block = np.maximum(block, half_chord(x, y, (1.9, -5.6), (chest.aorta, 1.3 * chest.aorta, 5)))
    wide = chest.heart * heart_growth
    heart = half_chord(front, y, (0.36 * wide, chest.dome - 2.6), (wide, 4.4, 4.7), chest.heart_tilt)
    heart = np.maximum(heart, half_chord(front, y, (-0.2 * wide, chest.dome - 3), (0.5 * wide, 5.5, 4)))  # right atrium
    heart = np.maximum(heart, half_chord(front, y, (1.7, chest.dome - 7.5), (2.4, 5, 3.4), -0.3))  # great vessels
    air = _lung_left(lung, block, -2.6 - heart, -2.6 + heart)
    blood = np.minimum(vessels, air)
    aerated = air - blood

    trunk = half_chord(x, y, (0, 10), (18.5 * chest.girth, 28, 11 * chest.girth), power=4)
    shoulder = half_chord(across, y, (12.5, -10), (11, 6, 7.5), 0.4)
    arm = half_chord(across, y, (21 * chest.girth, 5), (4.2, 22, 5), -0.06)
    neck = half_chord(x, y, (0, -19), (6.5, 11, 6))
    parts = (trunk, shoulder, arm, neck)
    outline = np.sqrt(np.sqrt(sum(np.square(np.square(part)) for part in parts)))  # a union without creases
    trachea = half_chord(x, y, (0, -15), (0.85, 11, 0.75), power=6)
    stomach = half_chord(
        x, y, (6, chest.dome + chest.left_drop + 2.6), (chest.bubble, 0.6 * chest.bubble, 0.5 * chest.bubble)
    )
    soft = 2 * (outline - trachea - stomach) + half_chord(across, y, (8.2, 6), (6 * chest.girth, 5, chest.breast))

    bone = (MU_BONE - MU_SOFT) * (_ribs(chest, across, y) + _clavicles(chest, front, y))
    bone += (MU_SPONGY - MU_SOFT) * (_spine(x, y) + _shoulder_bones(chest, across, y))
    length = MU_SOFT * soft - DEFICIT * aerated + chest.bone * bone * (outline > 1.5)
    return chest.build * length, aerated, blood


def _lung_left(lung: Array, block: Array, near: Array, far: Array) -> Array:
    """Return the length of [-lung, lung] outside [-block, block] and [near, far]: two slabs, less the heart's share."""
    front = np.maximum(np.minimum(-block, far) - np.maximum(-lung, near), 0)
    back = np.maximum(np.minimum(lung, far) - np.maximum(block, near), 0)
    return 2 * np.maximum(lung - block, 0) - front - back


def _ribs(chest: SimpleNamespace, across: Array, y: Array) -> Array:
    """Return the length in cm of rib along each ray.

    A rib is a tube on the ellipse (x / W)^2 + (z / D)^2 = 1 in a plane that falls from back to front. One formula gives
    both arcs, with opposite signs of the root. Near the chest wall a ray runs along the tube and crosses more of it.
    """
    (centre, widest), (width, height, _), _, power = chest.lung
    depth = 9.4
    rise = np.minimum(y - widest, 0) / (height + 0.6)
    ratio = across / (centre + 0.3 + width * np.sqrt(np.maximum(1 - (rise * rise) ** (power / 2), 0)))
    root = np.sqrt(np.maximum(1 - ratio * ratio, 1e-3))
    run = (depth / (centre + width)) * ratio / root  # |dz / dx|
    climb = chest.rib_fall * run  # |dy / dx|
    bone = np.zeros_like(y)
    arcs = ((-1, 9, 0.65, np.minimum(across / 2, 1)), (1, 5, 0.5, 0.75 * np.clip((across - 4) / 2, 0, 1)))
    for sign, last, half_height, share in arcs:  # back, then front, where cartilage hardly shows
        level = (y - sign * chest.rib_fall * depth * root - chest.top - 4.3) / chest.rib_spacing
        off = (level - np.clip(np.rint(level), 0, last)) * (chest.rib_spacing / half_height)
        bone += share * np.sqrt(np.maximum(1 - off * off / (1 + climb * climb), 0))
    return 0.75 * np.minimum(np.sqrt(1 + run * run / (1 + climb * climb)), 2) * bone * (ratio < 1)


def _clavicles(chest: SimpleNamespace, x: Array, y: Array) -> Array:
    along = (np.abs(x) - 1.5) / 13
    axis = chest.clavicle - 8.6 - 3.6 * along + 0.5 * np.sin(2 * math.pi * along)
    return 1.3 * np.sqrt(np.maximum(1 - ((y - axis) / 0.65) ** 2, 0)) * ((along > 0) & (along < 1))


def _spine(x: Array, y: Array) -> Array:
    """Return the length in cm of vertebra along each ray: bodies between discs, spinous processes behind them."""
    phase = np.cos(y * (2 * math.pi / 2.6))
    bodies = 2 * half_chord(x, y, (0, 0), (1.75, 60, 1.6)) * np.clip(1.2 + 1.5 * phase, 0.25, 1)
    return bodies + 2.5 * np.exp(-((x / 0.35) ** 2)) * np.maximum(phase, 0)


def _shoulder_bones(chest: SimpleNamespace, across: Array, y: Array) -> Array:
    blade = half_chord(across, y, (chest.scapula, -5.5), (2.6, 6.5, 0.8), -0.25, 3)
    humerus = half_chord(across, y, (18.5, 2), (1.2, 14, 1.2), -0.1, 6)
    return blade + 2 * np.maximum(humerus, half_chord(across, y, (17, -11), (2.3, 2.5, 2.3)))
