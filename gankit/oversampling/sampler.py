"""An over-sampler as imbalanced-learn has them, which adds generated images to rare classes."""

import contextlib
import io
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, OneToOneFeatureMixin
from sklearn.preprocessing import label_binarize
from sklearn.utils import check_array, check_random_state
from sklearn.utils.multiclass import check_classification_targets

from gankit.errors import GankitError, PartError
from gankit.experiments.experiment import load
from gankit.images.grey_levels import valid_range
from gankit.images.room import too_many
from gankit.registry.wrapping import wrap
from gankit.training.train import train

Array = NDArray[Any]


class GanOverSampler(OneToOneFeatureMixin, BaseEstimator):  # type: ignore[misc]
    """Trains a generator on images, conditioned on their classes, and adds generated images of the rare classes.

    In a pipeline of imbalanced-learn (extra `imblearn`) it is called when the pipeline is fitted, and never when it
    predicts: in `cross_val_score` each fold has a generator of its own, which has seen no image of the test part.

    Images are (n, channels, height, width), (n, height, width), or rows of (n, channels * height * width) numbers with
    `image_shape`, as most estimators take them; 1, 3 or 4 channels may also come last. Those that come out have the
    shape and type of those that go in, as arrays, and the given images come first. `value_range` gives black and white
    of images that are not uint8.

    Attributes:
        sampling_strategy_: number of images that are added to each class.
        n_features_in_: numbers of each image.
    """

    def __init__(
        self,
        experiment: Any = "wgan-gp",
        *,
        overrides: tuple[str, ...] = (),
        sampling_strategy: Any = "auto",
        image_shape: tuple[int, int, int] | None = None,
        value_range: tuple[float, float] | None = None,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        """
        Args:
            experiment: how the generator is trained, as `gankit.load` takes it; its data set is replaced by the images,
                at their own size.
            overrides: settings as `key.path=value`, as for `gankit.load`.
            sampling_strategy: as for every over-sampler of imbalanced-learn; "auto" fills all classes up to the
                largest.
            image_shape: (channels, height, width) of images that come as rows.
            value_range: values of black and white; by default 0 and 255 for uint8, else the least and the greatest.
            random_state: seed of the training and of the images; an integer repeats both.
            verbose: prints a line of the log at each tick.
        """
        self.experiment = experiment
        self.overrides = overrides
        self.sampling_strategy = sampling_strategy
        self.image_shape = image_shape
        self.value_range = value_range
        self.random_state = random_state
        self.verbose = verbose

    _sampling_type = "over-sampling"

    def fit(self, X: Any, y: Any) -> Self:
        """Check images and classes, and count what is to be added; nothing is trained.

        Raises:
            ValueError: as `fit_resample`.
            GankitError: no memory would hold the images.
        """
        self._check(X, y)
        return self

    def fit_resample(self, X: Any, y: Any) -> tuple[Array, Array]:
        """Train a generator on images and their classes, and add its images.

        Args:
            X: (n, ...) images.
            y: (n,) classes, of any type.

        Returns:
            (m, ...) images and (m,) classes, m at least n.

        Raises:
            ValueError: images or classes do not serve.
            GankitError: the experiment is not valid, its training fails, or no memory would hold the images.
        """
        x, classes, images = self._check(X, y)
        names, labels = np.unique(classes, return_inverse=True)
        wanted = np.repeat(np.arange(len(names)), [self.sampling_strategy_.get(name, 0) for name in names])
        if not len(wanted):
            return x.copy(), np.array(y)
        made = self._generate(images, labels, wanted)
        rows = made.astype(x.dtype).reshape(len(made), *x.shape[1:])
        both = np.concatenate([classes, names[wanted]])
        return np.concatenate([x, rows]), label_binarize(both, classes=names) if self._one_against_all else both

    def _generate(self, images: Array, labels: Array, wanted: Array) -> Array:
        """Train a generator on (n, ...) images of (n,) classes, and draw (m, ...) images of the wanted (m,) classes.

        These are float64 within the range of the others, whole numbers where these are.
        """
        low, high = self._range(images)
        valid_range((low, high))  # before it is rounded: float32 has no 1e300
        stored_range = float(np.float32(low)), float(np.float32(high))  # rounded as the images are
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        stored = images if images.dtype == np.uint8 else images.astype(np.float32)
        # Classes by number, since their names may be "A" and "a".
        data = wrap("dataset", stored, value_range=stored_range, labels=labels)
        decided = "data.size=none", "data.conditional=true", f"training.seed={seed}"
        experiment = load(self.experiment, *self.overrides, *decided, data=data)
        silence = contextlib.nullcontext() if self.verbose else contextlib.redirect_stderr(io.StringIO())
        with tempfile.TemporaryDirectory() as folder, silence:
            run = train(experiment, Path(folder) / "run", data=data)
            made = run.sample(len(wanted), [str(place) for place in wanted], seed=seed)
        if made.shape[1:] != images.shape[1:]:  # `wrap` has moved channels that came last
            made = np.moveaxis(made, 1, 3)
        if images.dtype.kind in "iu":
            made = np.rint(made)
        return np.clip(made.astype(np.float64), low, high)

    def _check(self, X: Any, y: Any) -> tuple[Array, Array, Array]:
        """(n, ...) images as they came, (n,) classes, and (n, c, h, w) images."""
        try:
            from imblearn.utils import check_sampling_strategy, check_target_type
        except ImportError:
            raise PartError("GanOverSampler needs imbalanced-learn: pip install 'gankit[imblearn]'") from None
        check_classification_targets(y)
        target, self._one_against_all = check_target_type(y, indicate_one_vs_all=True)
        x, classes = check_array(X, allow_nd=True, dtype=None), np.asarray(target).reshape(-1)
        if len(x) != len(classes):
            raise ValueError(f"there are {len(x)} images and {len(classes)} classes; give one class for each image")
        if x.dtype.kind not in "iuf":
            raise ValueError(f"images are numbers, and these are {x.dtype}")
        self.n_features_in_ = int(np.prod(x.shape[1:]))
        self.sampling_strategy_ = dict(check_sampling_strategy(self.sampling_strategy, classes, self._sampling_type))
        counts = Counter(classes.tolist())
        few = [name for name, count in counts.items() if count < 2 and self.sampling_strategy_.get(name)]
        if few:
            raise ValueError(f"class {few[0]!r} has one image; a generator needs two or more of each class to learn")
        images = self._images(x)
        if reason := too_many(sum(self.sampling_strategy_.values()), images.shape[1:], np.float64().itemsize):
            raise GankitError(f"sampling_strategy: {reason}")
        return x, classes, images

    def _images(self, x: Array) -> Array:
        """Images as they came to (n, c, h, w)."""
        if x.ndim == 4:
            return x
        if x.ndim == 3:
            return x[:, None]
        if x.ndim != 2:
            raise ValueError(f"images of shape {x.shape[1:]} are neither (channels, height, width) nor rows of numbers")
        if self.image_shape is None:
            raise ValueError(f"rows of {x.shape[1]} numbers are no images; give image_shape=(channels, height, width)")
        if len(self.image_shape) != 3 or min(self.image_shape) < 1 or np.prod(self.image_shape) != x.shape[1]:
            raise ValueError(f"images of shape {x.shape[1:]} are not of image_shape {tuple(self.image_shape)}")
        return x.reshape(len(x), *self.image_shape)

    def _range(self, images: Array) -> tuple[float, float]:
        """The values of black and white."""
        if (given := valid_range(self.value_range)) is not None:
            return given
        if images.dtype == np.uint8:
            return 0.0, 255.0
        low, high = float(images.min()), float(images.max())
        return low, high if high > low else low + 1.0
