"""Pictures of what a generator has learned: a walk between latents, truncation, and samples along the training."""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gankit import seeds
from gankit.errors import RunError
from gankit.experiments.options import Animation
from gankit.files import refuse_taken, write_atomically, write_folder
from gankit.images.decoding import damage_as_data_error, open_picture
from gankit.images.pictures import enlargement, grid, grid_png, to_8bit, to_png
from gankit.images.room import too_many
from gankit.interfaces import Truncates
from gankit.runs.run import Run
from gankit.runs.sampling import label_texts, parse_label
from gankit.terminal.text import progress_bar

ROWS = 4  # rows of a run without classes
MOST_CLASSES = 16  # the most rows of a run with classes
STRIP_COLUMNS = 9  # images in a row of `walk.png`
SWEEP_COLUMNS = 8  # latents in `truncation.png`
SWEEP = (1.0, 0.85, 0.7, 0.5, 0.3, 0.0)  # truncations in `truncation.png`, from 1 (none) to 0 (the mean image)
MOST_GRIDS = 12  # the most columns of `progress.png`
MILLISECONDS = 60  # how long a frame of the animation is shown


@seeds.plain_torch()
def write_walk(
    run: Run, folder: Path, *, stops: int = 4, frames: int = 12, label: str | None = None, seed: int = 0,
    truncation: float = 1.0, animation: Animation = "gif",
) -> list[str]:  # fmt: skip
    """Write pictures of what a run's generator has learned into a new or empty folder.

    - `walk.gif` (`walk.webp`, or `walk-animated.png`) goes from latent to latent and back to the first, and `walk.png`
      shows the way from the first to the second as a strip. A row is a class, and all classes walk along the same
      latents; without classes each row has latents of its own, and with conditions a label from the training data.
    - `truncation.png`, where the generator truncates: the same latents, from untruncated down to the mean image.
    - `progress.png`, where the run has grids of samples: the run's fixed latents, a column for each of up to 12 steps.

    Between latents a and b a walk goes along cos(t) a + sin(t) b, so that every point on the way is as likely as a
    sample. Halfway along a straight line latents are shorter, and images more typical, than those of samples.

    The walk visits `stops` latents, at least 2, with so many frames from one to the next. The label is one class, or
    conditions separated by commas, for all rows; None for every class. The seed is that of the latents. The
    truncation, as of `Run.sample`, is that of the walk. `animation` is the format of the animated file. One line for
    each file is returned, with what it shows.

    Raises:
        RunError: the folder is taken, the label does not fit the run, its generator cannot truncate, or Pillow cannot
            write the format.
    """
    refuse_taken(folder)  # before the work
    Image.init()
    if animation.upper() not in Image.SAVE_ALL:
        raise RunError(f"this Pillow cannot write {animation}: choose the animation gif")
    labels, rows = _rows(run, label, seed)
    scale = enlargement(run.image.height, run.image.width)
    if reason := too_many(stops * frames * rows, (3, run.image.height * scale, run.image.width * scale)):
        raise RunError(f"{run.path}: {reason}")
    latents = seeds.latents(seed, stops * (1 if run.image.classes else rows), run.generator.latent_dim)
    latents = latents.reshape(stops, -1, latents.shape[1]).expand(stops, rows, -1)
    walk = _walk(latents, frames)
    images = _decode(run, walk, labels, truncation)
    texts = "" if labels is None else f"; rows: {', '.join(label_texts(run, labels) or [])}"
    files = {
        f"walk.{animation}" if animation != "png" else "walk-animated.png": _animate(run, images, animation),
        "walk.png": _picture(run, images[np.linspace(0, frames, STRIP_COLUMNS).round().astype(int)]),
    }
    lines = [f"{', '.join(files)}: a walk along {stops} latents{texts}"]
    if isinstance(run.generator, Truncates):
        row_of_column = torch.arange(SWEEP_COLUMNS) % rows
        # With classes all rows share their latents, so that each column needs one of its own.
        z = seeds.latents(seed, SWEEP_COLUMNS, latents.shape[2]) if run.image.classes else latents[0, row_of_column]
        z_labels = None if labels is None else labels[row_of_column]
        sweep = np.stack([run.decode(z, z_labels, share) for share in SWEEP])
        files["truncation.png"] = _picture(run, sweep.swapaxes(0, 1))
        lines.append(f"truncation.png: from top to bottom {', '.join(f'{share:g}' for share in SWEEP)}")
    if len(steps := _grids(run)) > 1:
        files["progress.png"] = _progress(run, steps)
        lines.append(f"progress.png: the same latents at steps {', '.join(str(step) for step in steps)}")

    def fill(unfinished: Path) -> None:
        for name, content in files.items():
            write_atomically(unfinished / name, content)

    write_folder(folder, fill)
    return lines


def _rows(run: Run, label: str | None, seed: int) -> tuple[Tensor | None, int]:
    """The label of each row, or None, and the number of rows: the trained classes, or some labels of the data."""
    if label is not None:
        rows = 1 if run.image.classes else ROWS
        return run.encode_labels(rows, parse_label(run, label), seed), rows
    if run.image.classes:
        trained = [name for name, count in zip(run.class_names, run.label_counts, strict=False) if count][:MOST_CLASSES]
        return run.encode_labels(len(trained), trained), len(trained)
    return run.encode_labels(ROWS, None, seed), ROWS


def _walk(latents: Tensor, frames: int) -> Tensor:
    """(stops, rows, d) latents to (stops * frames + 1, rows, d) on a way through them and back to the first."""
    ends = torch.cat([latents[1:], latents[:1]])
    angles = torch.arange(frames) * (math.pi / 2 / frames)
    cosine, sine = angles.cos()[:, None, None], angles.sin()[:, None, None]
    between = cosine * latents[:, None] + sine * ends[:, None]
    return torch.cat([between.flatten(0, 1), latents[:1]])


def _decode(run: Run, latents: Tensor, labels: Tensor | None, truncation: float) -> NDArray[Any]:
    """(columns, rows, d) latents to (columns, rows, c, h, w) images; a label belongs to a row."""
    columns, rows = latents.shape[:2]
    repeated = None if labels is None else labels.repeat(columns, *[1] * (labels.dim() - 1))
    images = run.decode(latents.flatten(0, 1), repeated, truncation)
    return images.reshape(columns, rows, *images.shape[1:])


def _picture(run: Run, images: NDArray[Any]) -> bytes:
    """(columns, rows, c, h, w) images as a PNG."""
    return grid_png(np.concatenate(images.swapaxes(0, 1)), run.value_range, len(images))


def _animate(run: Run, images: NDArray[Any], animation: Animation) -> bytes:
    """(frames, rows, c, h, w) images as an endless animation; the last frame, equal to the first, is left out."""
    columns, scale = min(images.shape[1], 4), enlargement(*images.shape[3:])
    frames = (grid(to_8bit(frame, run.value_range), columns, scale) for frame in images[:-1])
    buffer = io.BytesIO()
    lossless = {"lossless": True} if animation == "webp" else {}
    first = next(frames)
    others = progress_bar(frames, desc="animating", total=len(images) - 2, unit="frame", delay=2)
    first.save(
        buffer, animation.upper(), save_all=True, append_images=others, duration=MILLISECONDS, loop=0, **lossless
    )
    return buffer.getvalue()


def _grids(run: Run) -> dict[int, Path]:
    """The grids of samples that the training wrote, by step: at most `MOST_GRIDS`, evenly over the training."""
    names = filter(Path.is_file, sorted(run.path.glob("samples/step-*.png")))
    paths = {int(step): path for path in names if (step := path.stem.removeprefix("step-")).isdecimal()}
    chosen = np.linspace(0, len(paths) - 1, min(len(paths), MOST_GRIDS)).round().astype(int)
    return {step: paths[step] for step in np.array(list(paths), int)[chosen].tolist()}


def _progress(run: Run, grids: dict[int, Path]) -> bytes:
    """The first column of each grid, side by side (images of one column differ in label)."""
    scale, strips = enlargement(run.image.height, run.image.width), []
    width = (run.image.width + 1) * scale  # of an image and the white line before it, see `grid`
    for path in grids.values():
        with damage_as_data_error(str(path)), open_picture(path) as picture:
            strips.append(picture.convert("RGB").crop((0, 0, width, picture.height)))
    sheet = Image.new("RGB", (sum(strip.width for strip in strips) + scale, strips[0].height), "white")
    for number, strip in enumerate(strips):
        sheet.paste(strip, (number * strip.width, 0))
    return to_png(sheet)
