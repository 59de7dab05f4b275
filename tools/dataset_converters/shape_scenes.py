"""The scenes of the set "shapes": coloured figures on textured ground, and their boxes.

shapes.py says what the set contains and writes it.
"""

import cv2
import numpy as np

CLASSES = ("disc", "rectangle", "triangle", "ring", "cross", "star")
HUES = (4, 106, 58, 24, 138, 88)  # OpenCV hue (0-179) of each class, jittered per object
SIZES = (14.0, 150.0)  # sqrt(w * h) of a box in pixels at 320 x 240, log-uniform
RATIO = 2.5  # w / h is log-uniform in [1 / RATIO, RATIO]
BAR_RATIO = 6.0  # the same for the share of rectangles that are bars
MIN_VISIBLE = 0.4
SUPERSAMPLE = 4  # figures are drawn this much larger and then averaged, for soft edges


def background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A textured background of low saturation: float32 (height, width, 3), BGR, 0-255."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    low, high = sorted(rng.uniform(40, 215, 2))
    angle = rng.uniform(0, np.pi)
    along = x * np.cos(angle) + y * np.sin(angle)
    kind = rng.choice(["clouds", "gradient", "stripes", "checker"])
    if kind == "clouds":
        grid = rng.random((rng.integers(3, 12), rng.integers(3, 12))).astype(np.float32)
        level = cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    elif kind == "gradient":
        level = (along - along.min()) / (along.max() - along.min())
    elif kind == "stripes":
        level = 0.5 + 0.5 * np.sin(2 * np.pi * along / rng.uniform(8, 60))
    else:
        cell = rng.integers(8, 40)
        level = ((x // cell + y // cell) % 2).astype(np.float32)
    tint = rng.uniform(0.88, 1.12, 3)
    ground = (low + (high - low) * level)[..., None] * tint
    return (ground + rng.normal(0, rng.uniform(3, 12), ground.shape)).astype(np.float32)


def outline(name: str, rng: np.random.Generator) -> np.ndarray:
    """Corner points of a class's figure, of any scale: float64 (N, 2), x and y."""
    turn = rng.uniform(0, 2 * np.pi)
    if name in ("disc", "ring"):
        angles, radii = np.linspace(0, 2 * np.pi, 72, endpoint=False), 1.0
    elif name == "rectangle":
        return np.array([(0, 0), (1, 0), (1, 1), (0, 1)], float)
    elif name == "triangle":
        angles, radii = turn + np.arange(3) * 2 * np.pi / 3, 1.0
    elif name == "star":
        angles, radii = turn + np.arange(10) * np.pi / 5, np.where(np.arange(10) % 2, 0.42, 1.0)
    else:
        arm = rng.uniform(0.26, 0.4)
        quarter = np.array([(arm, arm), (arm, 1), (-arm, 1)])
        turns = [
            np.array([(np.cos(a), -np.sin(a)), (np.sin(a), np.cos(a))])
            for a in np.arange(4) * np.pi / 2
        ]
        return np.concatenate([quarter @ matrix.T for matrix in turns])
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def figure(name: str, rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Opacity of one figure that fills a width x height box: float32 (height, width), 0-1."""
    points = outline(name, rng)
    points = (points - points.min(0)) / np.ptp(points, axis=0)
    scale = np.array([width, height]) * SUPERSAMPLE
    canvas = np.zeros((height * SUPERSAMPLE, width * SUPERSAMPLE), np.uint8)
    cv2.fillPoly(canvas, [np.round(points * (scale - 1)).astype(np.int32)], 255)
    if name == "ring":
        hole = 0.5 + (points - 0.5) * rng.uniform(0.5, 0.62)
        cv2.fillPoly(canvas, [np.round(hole * (scale - 1)).astype(np.int32)], 0)
    return cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA) / np.float32(255)


def paint(label: int, rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """The colours inside a figure, shaded from one side: float32 (height, width, 3), BGR."""
    hue = (HUES[label] + rng.integers(-4, 5)) % 180
    hsv = np.uint8([[[hue, rng.integers(170, 256), rng.integers(165, 256)]]])
    colour = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0].astype(np.float32)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    slope = np.cos(angle) * (x / width - 0.5) + np.sin(angle) * (y / height - 0.5)
    shade = 1 + rng.uniform(0.1, 0.45) * slope
    return colour * shade[..., None] + rng.normal(0, 4, (height, width, 1))


def plan(
    rng: np.random.Generator, width: int, height: int, min_size: float
) -> list[tuple[int, int, int, int, int]]:
    """Choose the objects of one scene: a list of (label, x, y, w, h), integers.

    Four kinds of scene: empty, sparse, nested (small objects inside large ones) and crowded (many
    objects around one point). Large objects come first, so that small ones lie on top.
    """
    kind = rng.choice(["empty", "sparse", "nested", "crowd"], p=[0.04, 0.46, 0.25, 0.25])
    count = {
        "empty": 0,
        "sparse": rng.integers(2, 7),
        "nested": rng.integers(3, 9),
        "crowd": rng.integers(9, 17),
    }[kind]
    unit = min(width / 320, height / 240)
    focus = rng.uniform(0.3, 0.7, 2) * (width, height)
    objects = []
    for _ in range(count):
        label = int(rng.integers(len(CLASSES)))
        top = SIZES[1] if kind != "crowd" else SIZES[1] / 2
        size = np.exp(rng.uniform(*np.log((min_size, top))))
        bar = CLASSES[label] == "rectangle" and size > 40 and rng.random() < 0.3
        limit = BAR_RATIO if bar else RATIO
        ratio = np.exp(rng.uniform(-np.log(limit), np.log(limit)))
        w, h = np.round(unit * size * np.array([ratio**0.5, ratio**-0.5])).astype(int)
        w, h = min(w, width), min(h, height)
        spread = {"nested": 0.12, "crowd": 0.2}.get(kind)
        centre = (
            rng.normal(focus, spread * height)
            if spread
            else rng.uniform((w / 2, h / 2), (width - w / 2, height - h / 2))
        )
        x, y = np.clip(np.round(centre - (w / 2, h / 2)), 0, (width - w, height - h)).astype(int)
        objects.append((label, int(x), int(y), int(w), int(h)))
    return sorted(objects, key=lambda o: -o[3] * o[4])


def draw_scene(
    rng: np.random.Generator, width: int, height: int, min_size: float = SIZES[0]
) -> tuple[np.ndarray, np.ndarray, list[dict]]:
    """One image and its objects, none smaller than `min_size` before others cover it (see SIZES).

    Returns:
        Image, uint8 (height, width, 3), BGR; owner, int16 (height, width), the number of the
        object seen at a pixel or -1; objects, a list of dicts with label, box (x, y, w, h of the
        visible pixels), area and visible, in the order of those numbers.
    """
    image = background(rng, height, width)
    owner = np.full((height, width), -1, np.int16)
    whole = []  # pixels of each figure before others covered it
    labels = []
    for label, x, y, w, h in plan(rng, width, height, min_size):
        opacity = figure(CLASSES[label], rng, w, h)
        colours = paint(label, rng, w, h)
        solid = opacity >= 0.5
        trial = owner.copy()
        trial[y : y + h, x : x + w][solid] = len(labels)
        seen = np.bincount(trial[trial >= 0], minlength=len(labels) + 1)
        if any(seen[i] < MIN_VISIBLE * whole[i] for i in range(len(labels))):
            continue
        owner = trial
        labels.append(label)
        whole.append(int(solid.sum()))
        patch = image[y : y + h, x : x + w]
        patch += opacity[..., None] * (colours - patch)
    objects = []
    for number, label in enumerate(labels):
        rows, columns = np.nonzero(owner == number)
        x, y = int(columns.min()), int(rows.min())
        box = [x, y, int(columns.max()) + 1 - x, int(rows.max()) + 1 - y]
        objects.append(
            {
                "label": label,
                "box": box,
                "area": int(rows.size),
                "visible": round(rows.size / whole[number], 3),
            }
        )
    return np.clip(image, 0, 255).astype(np.uint8), owner, objects


def scene_rng(seed: int, split: str, number: int) -> np.random.Generator:
    """The random generator of one image, which does not depend on the number of images."""
    return np.random.default_rng([seed, ("train", "val", "test").index(split), number])
