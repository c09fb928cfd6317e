"""Eye pairs with known strabismus, rendered: three classes, ten simulated raters (docs/explanation/eyes.md)."""

from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from gankit.cache import stored
from gankit.datasets._eyes.estimate import deviation_from_angles, eye_angles
from gankit.datasets._eyes.layouts import layout_of
from gankit.datasets._eyes.raters import DEFAULT_PANEL, agreement, call
from gankit.datasets._eyes.render import RENDERER, render
from gankit.datasets._eyes.subjects import CLASS_NAMES, draw_subjects
from gankit.errors import DataError
from gankit.images.known import Known
from gankit.images.room import too_many
from gankit.interfaces import Dataset, Images, ImageSpec, Measurement

Count = Annotated[int, Field(ge=0, le=100_000)]
_FACTS = (
    "deviation", "laterality", "kappa", "hirschberg_ratio", "gaze_h", "gaze_v", "yaw", "roll", "pupil", "ita",
    "epicanthus", "age",
)  # fmt: skip


@final
class Eyes(Dataset):
    """Photograph-like pictures of both eyes of simulated subjects with exotropia, esotropia or straight eyes.

    A subject depends on the seed, its class and its place in the class, so that fewer images are a part of more.
    Everything but `images` is known without rendering. Arrays have one row per image.

    Args:
        size: (height, width) in pixels. [s, s] stacks two crops, the subject's right eye over the left; [s, 2 s] is one
            strip of both eyes, the right eye on the left. None is (64, 64).
        counts: images of exotropia, esotropia and normal, at most 100,000 of each; the founding paper's by default.
        seed: decides subjects, light and camera.
        panel: decides the ten raters and their looks.

    Attributes:
        deviation: (n,) float64, prism dioptres, positive for exotropia, negative for esotropia.
        laterality: (n,) int64, the deviating eye: 0 the subject's right, 1 the left.
        kappa: (n,) float64, angle kappa in degrees, by which both eyes look temporal.
        hirschberg_ratio: (n,) float64, prism dioptres of deviation per mm by which the reflex lies off the
            pupil's centre; 15 to 24.
        gaze: (n, 2) float64, conjugate gaze in degrees: to the right of the picture, and up.
        head: (n, 2) float64, yaw to the right of the picture and roll against the clock, in degrees.
        pupil: (n,) float64, diameter in mm.
        ita: (n,) float64, individual typology angle of the skin in degrees, 55 very light, -50 dark.
        epicanthus: (n,) float64, mm that an epicanthal fold covers, 0 without one.
        calls: (n, 10) int64, the class that each rater calls.

    Raises:
        DataError: no layout has this size.
    """

    measurement: ClassVar[Measurement] = Measurement(
        fact="deviation", unit="prism dioptres", symbol="PD", limit=10.0, positive="strabismic",
        condition="strabismus", negative_classes=("normal",), measure=lambda images: estimate_deviation(images),
    )  # fmt: skip

    def __init__(
        self,
        size: tuple[int, int] | None = None,
        *,
        counts: tuple[Count, Count, Count] = (1250, 451, 999),
        seed: Annotated[int, Field(ge=0)] = 0,
        panel: Annotated[int, Field(ge=0)] = DEFAULT_PANEL,
    ) -> None:
        self._layout = layout_of(*(size or (64, 64)))
        self._key = f"eyes-{RENDERER}-{self._layout.height}x{self._layout.width}-{'-'.join(map(str, counts))}-{seed}"
        self._seed = seed
        self._subjects = draw_subjects(counts, seed)
        self.deviation: NDArray[np.float64] = self._subjects["deviation"]
        self.laterality: NDArray[np.int64] = self._subjects["laterality"]
        self.kappa: NDArray[np.float64] = self._subjects["kappa"]
        self.hirschberg_ratio: NDArray[np.float64] = self._subjects["hirschberg_ratio"]
        self.gaze: NDArray[np.float64] = np.stack([self._subjects["gaze_h"], self._subjects["gaze_v"]], axis=1)
        self.head: NDArray[np.float64] = np.stack([self._subjects["yaw"], self._subjects["roll"]], axis=1)
        self.pupil: NDArray[np.float64] = self._subjects["pupil"]
        self.ita: NDArray[np.float64] = self._subjects["ita"]
        self.epicanthus: NDArray[np.float64] = self._subjects["epicanthus"]
        self.calls: NDArray[np.int64] = call(self._subjects, seed, panel)

    @property
    def image(self) -> ImageSpec:
        """3 channels, 3 classes."""
        return ImageSpec(3, self._layout.height, self._layout.width, classes=3)

    @cached_property
    def images(self) -> NDArray[np.uint8]:
        """(n, 3, height, width) uint8 sRGB, rendered at first use and kept in the cache.

        Raises:
            DataError: they are too many for the memory.
        """
        if reason := too_many(len(self), self.image.shape):
            raise DataError(f"eyes: counts: {reason}")
        return stored(self._key, lambda: render(self._subjects, self._layout, self._seed))

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8."""
        return np.dtype(np.uint8)

    @cached_property
    def known(self) -> Known:
        """True classes, the share of the ten calls that equal the true class, and the ground truth as facts.

        Labels are 0 exotropia, 1 esotropia, 2 normal. Facts are (n,) arrays, with gaze and head pose by component, and
        the (n, 10) calls; those that name a side change in the mirror.
        """
        labels = self._subjects["label"]
        share = agreement(self.calls, labels)
        facts = {name: self._subjects[name] for name in _FACTS}
        return Known(
            labels=labels, class_names=CLASS_NAMES, agreement=share,
            facts=facts | {"agreement": share, "calls": self.calls},
            changed_by_mirror=frozenset({"laterality", "gaze_h", "yaw", "roll"}),
        )  # fmt: skip

    def mirror(self, images: Images) -> Images:
        """The subject in a looking glass: width flipped and, where crops are stacked, the two rows exchanged.

        A plain flip of stacked crops would show each eye in the other's place and turn exotropia into esotropia.

        Args:
            images: (n, channels, height, width) array or tensor of this data set's size, any dtype.
        """
        rows, columns = self._layout.mirrored
        return images[..., rows, :][..., columns]


def estimate_deviation(images: Any, layout: Literal["stacked", "strip"] | None = None) -> NDArray[np.float64]:
    """Measure the deviation that pictures show, by Hirschberg's test: corneal reflex against limbus in both eyes.

    It is purely geometric: it finds the limbus and the reflex of each eye and knows the average optics of an eye, no
    labels. On the data set's own pictures of 64 x 64 the median error is about 3 PD (docs/explanation/eyes.md has every
    layout, blur and noise); subjects' own angle kappa, gaze and Hirschberg ratio, which no picture shows, are most of
    it.

    Args:
        images: (n, 3, height, width) array or tensor, uint8 or float in [0, 255].
        layout: "stacked" (square) or "strip" (twice as wide as high); None goes by the shape.

    Returns:
        (n,) float64, signed prism dioptres, positive for exotropia; NaN where an eye or its reflex is not found.

    Raises:
        DataError: the images are of no layout.
    """
    pictures = np.asarray(images)
    if pictures.ndim != 4 or pictures.shape[1] != 3:
        raise DataError(f"estimate_deviation: images have the shape {pictures.shape}; give (n, 3, height, width)")
    form = layout_of(pictures.shape[2], pictures.shape[3])
    if layout is not None and form.strip != (layout == "strip"):
        raise DataError(f"estimate_deviation: images of {form.height} x {form.width} are not {layout}")
    deviations = [
        deviation_from_angles(eye_angles(pictures[start : start + 128].astype(np.float32), form), form.pixel)
        for start in range(0, len(pictures), 128)
    ]
    return np.concatenate([np.empty(0), *deviations])
