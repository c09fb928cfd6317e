"""Deliberately wrong parts, one fault each, with the suite that should catch it; test_testing.py runs this file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gankit.testing
from gankit.interfaces import (
    Augment,
    Critic,
    Dataset,
    Features,
    Generator,
    ImageSpec,
    Indices,
    Known,
    Loss,
    Metric,
    Pool,
    Resampling,
    Rows,
    Turn,
)


class PenaltyOfTheWholeBatch(Loss):
    """Gulrajani et al. 2017 with one norm over everything."""

    per_sample = True

    def critic(self, turn: Turn) -> Tensor:
        alpha = turn.random.uniform(len(turn.real), 1, 1, 1)
        x = torch.lerp(turn.fake, turn.real, alpha).requires_grad_()
        (slopes,) = torch.autograd.grad(turn.critic(x, turn.labels).sum(), x, create_graph=True)
        return (slopes.norm() - 1) ** 2


class TestPenaltyOfTheWholeBatch(gankit.testing.LossTests):
    part = PenaltyOfTheWholeBatch


class OneAlphaABatch(Loss):
    """Gulrajani et al. 2017 with one point between for all samples."""

    per_sample = True

    def critic(self, turn: Turn) -> Tensor:
        x = torch.lerp(turn.fake, turn.real, torch.rand(1, 1, 1, 1, dtype=turn.real.dtype)).requires_grad_()
        (slopes,) = torch.autograd.grad(turn.critic(x, turn.labels).sum(), x, create_graph=True)
        return ((slopes.flatten(1).norm(dim=1) - 1) ** 2).mean()


class TestOneAlphaABatch(gankit.testing.LossTests):
    part = OneAlphaABatch


class OneAlphaOfTheTurn(OneAlphaABatch):
    """The same from the turn's draws."""

    def critic(self, turn: Turn) -> Tensor:
        x = torch.lerp(turn.fake, turn.real, turn.random.uniform(1, 1, 1, 1)).requires_grad_()
        (slopes,) = torch.autograd.grad(turn.critic(x, turn.labels).sum(), x, create_graph=True)
        return ((slopes.flatten(1).norm(dim=1) - 1) ** 2).mean()


class TestOneAlphaOfTheTurn(gankit.testing.LossTests):
    part = OneAlphaOfTheTurn


class UndetachedFakes(Loss):
    """Arjovsky et al. 2017 on fakes of its own, whose graph reaches the generator."""

    def critic(self, turn: Turn) -> Tensor:
        fake = turn.generator(turn.latents, turn.labels)
        return turn.critic(fake, turn.labels).mean() - turn.real_scores.mean()


class TestUndetachedFakes(gankit.testing.LossTests):
    part = UndetachedFakes


class SilentlyPerSample(Loss):
    """Mescheder et al. 2018 without saying that it differentiates sample by sample."""

    def critic(self, turn: Turn) -> Tensor:
        x = turn.real.detach().requires_grad_()
        (slopes,) = torch.autograd.grad(turn.critic(x, turn.labels).sum(), x, create_graph=True)
        return slopes.square().flatten(1).sum(1).mean()


class TestSilentlyPerSample(gankit.testing.LossTests):
    part = SilentlyPerSample


class ChangesScores(Loss):
    """Lim and Ye 2017 in place."""

    def critic(self, turn: Turn) -> Tensor:
        with torch.no_grad():
            turn.real.mul_(0.5)
        return (1 - turn.real_scores).relu().mean() + (1 + turn.fake_scores).relu().mean()


class TestChangesScores(gankit.testing.LossTests):
    part = ChangesScores


class Misspelt(Loss):
    """Lim and Ye 2017 under a name that nobody calls."""

    def critics(self, turn: Turn) -> Tensor:
        return turn.real_scores.mean()


class TestMisspelt(gankit.testing.LossTests):
    part = Misspelt


class PlainCritic(Critic):
    """Nothing wrong with it: a residual block as in He et al. 2016, with a ReLU in place where it does no harm."""

    def __init__(self, image: ImageSpec, *, width: int = 6) -> None:
        super().__init__()
        if image.conditional:
            raise gankit.errors.PartError("it uses no labels")
        self.stem = nn.Conv2d(image.channels, width, 3, padding=1)
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(width, 1)

    def block(self, x: Tensor) -> Tensor:
        return x + self.second(self.relu(self.first(F.relu(x))))

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        scores: Tensor = self.head(self.block(self.stem(images)).mean((2, 3)))[:, 0]
        return scores


class TestPlainCritic(gankit.testing.CriticTests):
    part = PlainCritic


class ReluBeforeAShortcut(PlainCritic):
    """He et al. 2016 with the ReLU before the shortcut in place."""

    def block(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(self.relu(x))))


class TestReluBeforeAShortcut(gankit.testing.CriticTests):
    part = ReluBeforeAShortcut


class UnusedLayer(PlainCritic):
    """He et al. 2016 with a layer that is never called."""

    def __init__(self, image: ImageSpec) -> None:
        super().__init__(image)
        self.forgotten = nn.Linear(2, 2)


class TestUnusedLayer(gankit.testing.CriticTests):
    part = UnusedLayer


class IgnoresLabels(PlainCritic):
    """He et al. 2016, for conditional images too, whose labels it never reads."""

    def __init__(self, image: ImageSpec) -> None:
        super().__init__(ImageSpec(*image.shape))


class TestIgnoresLabels(gankit.testing.CriticTests):
    part = IgnoresLabels


class WrongSecondDerivative(torch.autograd.Function):
    """x^2 whose gradient claims to be constant."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        context.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        (x,) = context.saved_tensors
        return gradient * 2 * x.detach()


class WrongPenalty(PlainCritic):
    """He et al. 2016 with an activation whose second derivative is lost."""

    def block(self, x: Tensor) -> Tensor:
        activated: Tensor = WrongSecondDerivative.apply(super().block(x))
        return activated


class TestWrongPenalty(gankit.testing.CriticTests):
    part = WrongPenalty


class FailsOnGrey(PlainCritic):
    """Takes a channel that grey images lack."""

    def __init__(self, image: ImageSpec) -> None:
        super().__init__(image)
        self.green = range(image.channels)[1]


class TestFailsOnGrey(gankit.testing.LossTests):
    part = UndetachedFakes
    critic = FailsOnGrey
    critic_settings: ClassVar[Mapping[str, Any]] = {}


class WithoutSource(PlainCritic):
    """No paper."""


class TestWithoutSource(gankit.testing.CriticTests):
    part = WithoutSource


class PlainGenerator(Generator):
    """Nothing wrong with it: the shape of Goodfellow et al. 2014."""

    def __init__(self, image: ImageSpec, *, latent_dim: int = 5) -> None:
        super().__init__()
        if image.conditional:
            raise gankit.errors.PartError("it uses no labels")
        self.image, self.latent_dim = image, latent_dim
        self.linear = nn.Linear(latent_dim, image.channels * image.height * image.width)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        images: Tensor = self.last(self.linear(z)).reshape(len(z), *self.image.shape)
        return images

    def last(self, x: Tensor) -> Tensor:
        return x.tanh()


class TestPlainGenerator(gankit.testing.GeneratorTests):
    part = PlainGenerator


class Unbounded(PlainGenerator):
    """Goodfellow et al. 2014 without the last tanh."""

    def last(self, x: Tensor) -> Tensor:
        return 3 * x


class TestUnbounded(gankit.testing.GeneratorTests):
    part = Unbounded


class HiddenState(PlainGenerator):
    """Goodfellow et al. 2014 with a mean that no checkpoint holds."""

    def __init__(self, image: ImageSpec) -> None:
        super().__init__(image)
        self.mean = torch.zeros(())

    def last(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean = 0.5 * self.mean + 0.5 * x.detach().mean()
        return (x - self.mean).tanh()


class TestHiddenState(gankit.testing.GeneratorTests):
    part = HiddenState


class HiddenStep(PlainGenerator):
    """Goodfellow et al. 2014 with a gain that follows the steps, and no buffer for it."""

    gain = 1.0

    def before_step(self, step: int) -> None:
        self.gain = 1 + step

    def last(self, x: Tensor) -> Tensor:
        return (self.gain * x).tanh()


class TestHiddenStep(gankit.testing.GeneratorTests):
    part = HiddenStep


class MixesSamples(PlainGenerator):
    """Goodfellow et al. 2014, centred over the batch when sampling too."""

    def last(self, x: Tensor) -> Tensor:
        return (x - x.mean(0)).tanh()


class TestMixesSamples(gankit.testing.GeneratorTests):
    part = MixesSamples


class Brightness(Augment):
    """Nothing wrong with it: Zhao et al. 2020."""

    def forward(self, images: Tensor) -> Tensor:
        return images + torch.rand(len(images), 1, 1, 1).to(images) - 0.5


class TestBrightness(gankit.testing.AugmentTests):
    part = Brightness


class OneDrawABatch(Augment):
    """Zhao et al. 2020 with one brightness for all."""

    def forward(self, images: Tensor) -> Tensor:
        return images + torch.rand(1).to(images) - 0.5


class TestOneDrawABatch(gankit.testing.AugmentTests):
    part = OneDrawABatch


class Contrast(Brightness):
    """Zhao et al. 2020 with the mean of all images in place of each one's."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean() + (images - images.mean()) * torch.rand(len(images), 1, 1, 1).to(images)


class TestContrast(gankit.testing.AugmentTests):
    part = Contrast


class DrawnElsewhere(Brightness):
    """Zhao et al. 2020 with draws that no run repeats."""

    def forward(self, images: Tensor) -> Tensor:
        draws = np.random.default_rng().random((len(images), 1, 1, 1))
        return images + torch.as_tensor(draws).to(images)


class TestDrawnElsewhere(gankit.testing.AugmentTests):
    part = DrawnElsewhere


class Rounded(Brightness):
    """Zhao et al. 2020 through a step function, which no gradient passes."""

    def forward(self, images: Tensor) -> Tensor:
        return (super().forward(images) * 127).round() / 127


class TestRounded(gankit.testing.AugmentTests):
    part = Rounded


class MeanDistance(Metric):
    """Nothing wrong with it: the distance between means, Student 1908."""

    needs = ("features",)

    def compute(self, real: Rows, fake: Rows) -> dict[str, float]:
        means = [float(rows.required("features").mean(dtype=np.float64)) for rows in (real, fake)]
        return {"mean distance": abs(means[0] - means[1])}


class TestMeanDistance(gankit.testing.MetricTests):
    part = MeanDistance


class OfTheFirstHalf(MeanDistance):
    """Student 1908 of the images that happen to come first."""

    def compute(self, real: Rows, fake: Rows) -> dict[str, float]:
        return super().compute(real.take(np.arange(real.count // 2)), fake)


class TestOfTheFirstHalf(gankit.testing.MetricTests):
    part = OfTheFirstHalf


class Remembers(MeanDistance):
    """Student 1908 as the mean over all calls."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def compute(self, real: Rows, fake: Rows) -> dict[str, float]:
        self.values.append(super().compute(real, fake)["mean distance"])
        return {"mean distance": sum(self.values) / len(self.values)}


class TestRemembers(gankit.testing.MetricTests):
    part = Remembers


class Centres(MeanDistance):
    """Student 1908 of features that it centres in place."""

    def compute(self, real: Rows, fake: Rows) -> dict[str, float]:
        features = fake.required("features")
        features -= real.required("features").mean(0)
        return {"mean distance": abs(float(features.mean(dtype=np.float64)))}


class TestCentres(gankit.testing.MetricTests):
    part = Centres


class Resampled(MeanDistance):
    """Student 1908 whose shared work forgets to leave out."""

    def resampling(self, pool: Pool) -> Resampling:
        class Shared(Resampling):
            def values(self, real: Indices, fake: Indices) -> Mapping[str, float]:
                return self.whole().values

        return Shared(self, pool)


class TestResampled(gankit.testing.MetricTests):
    part = Resampled


class Unasked(MeanDistance):
    """Student 1908 without asking whether there are features."""

    def compute(self, real: Rows, fake: Rows) -> dict[str, float]:
        assert real.features is not None
        assert fake.features is not None
        return super().compute(real, fake)


class TestUnasked(gankit.testing.MetricTests):
    part = Unasked


class OfTheBatch(Features):
    """Colours beside those of the batch."""

    dim = 3

    def forward(self, images: Tensor) -> Tensor:
        means = images.mean((2, 3)).expand(-1, 3)
        return means - means.mean(0)


class TestOfTheBatch(gankit.testing.FeaturesTests):
    part = OfTheBatch


class Noise(Dataset):
    """Images of noise in two classes, drawn anew at each opening."""

    def __init__(self) -> None:
        self._images = np.random.default_rng().integers(0, 256, (8, 1, 4, 4), dtype=np.uint8)

    @property
    def image(self) -> ImageSpec:
        return ImageSpec(1, 4, 4, classes=2)

    @property
    def images(self) -> np.ndarray[Any, Any]:
        return self._images

    @property
    def labels(self) -> np.ndarray[Any, Any]:
        return np.arange(8) % 3


class TestNoise(gankit.testing.DatasetTests):
    part = Noise


class TwoRecords(Noise):
    """Its record says other labels than the property."""

    @property
    def known(self) -> Known:
        return Known(labels=np.zeros(8, np.int64), class_names=("0", "1"))


class TestTwoRecords(gankit.testing.DatasetTests):
    part = TwoRecords


class RandomConstant(Generator):
    """Rahimi and Recht 2007: random frequencies, in an attribute in place of a buffer."""

    latent_dim = 6

    def __init__(self, image: ImageSpec) -> None:
        super().__init__()
        self.shape, self.frequencies = image.shape, torch.randn(6)
        self.linear = nn.Linear(6, image.channels * image.height * image.width)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.linear(torch.sin(z * self.frequencies.to(z))).view(-1, *self.shape).tanh()  # type: ignore[no-any-return]


class TestRandomConstant(gankit.testing.GeneratorTests):
    part = RandomConstant


class ReturnsTwo(PlainCritic):
    """Odena et al. 2017 with scores and logits from forward."""

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Any:
        scores = super().forward(images)
        return scores, scores


class TestReturnsTwo(gankit.testing.CriticTests):
    part = ReturnsTwo


class ForgetsItsMean(Loss):
    """Mroueh and Sercu 2017, with a running mean that is in no state."""

    mean = 0.0

    def critic(self, turn: Turn) -> Tensor:
        self.mean += turn.real_scores.mean().item()
        return turn.fake_scores.mean() * self.mean


class TestForgetsItsMean(gankit.testing.LossTests):
    part = ForgetsItsMean


class ForgetsItsShare(Augment):
    """Karras et al. 2020, with a share that is in no buffer."""

    share = 0.0

    def forward(self, images: Tensor) -> Tensor:
        return images * (1 - self.share)

    def after_step(self, turn: Turn) -> None:
        self.share += 0.1


class TestForgetsItsShare(gankit.testing.AugmentTests):
    part = ForgetsItsShare


class SeedsTorch(Augment):
    """Karras et al. 2020, with the same draws in every step."""

    def forward(self, images: Tensor) -> Tensor:
        torch.manual_seed(0)
        return images * torch.rand(len(images), 1, 1, 1)


class TestSeedsTorch(gankit.testing.AugmentTests):
    part = SeedsTorch
