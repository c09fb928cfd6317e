"""gankit beside torchmetrics, torch-fidelity and clean-fid on the same features: where they agree, and where they err.

A test of a peer's error skips when a newer version has mended it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from cleanfid import fid as clean_fid
from numpy.typing import NDArray
from torch import Tensor, nn

from gankit.evaluation import extraction
from gankit.evaluation.sources import from_array
from gankit.interfaces import Features, Rows
from gankit.metrics._distances import squared_distances
from gankit.metrics.frechet import frechet_distance
from gankit.metrics.inception_score import inception_score
from gankit.metrics.kid import kernel_distance
from gankit.metrics.memorisation import Memorisation
from gankit.metrics.precision_recall import precision_recall

pytestmark = pytest.mark.slow

Array = NDArray[Any]


@pytest.fixture(autouse=True)
def _peers_may_warn() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture
def torchmetrics() -> Any:
    return pytest.importorskip("torchmetrics.image")


@pytest.fixture
def fidelity() -> Any:
    pytest.importorskip("torch_fidelity")
    from torch_fidelity import metric_fid, metric_isc, metric_kid, metric_prc

    class Peer:
        fid, isc, kid, prc = metric_fid, metric_isc, metric_kid, metric_prc

    return Peer


class Identity(nn.Module):
    """Takes features for images."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, x: Tensor) -> Tensor:
        return x


def rows(n: int, d: int, seed: int, scale: float = 1.0, shift: float = 0.0) -> Array:
    """Correlated features with a power law of variances."""
    turn = np.linalg.qr(np.random.default_rng(99).normal(size=(d, d)))[0]
    return (np.random.default_rng(seed).normal(size=(n, d)) * scale * np.arange(1, d + 1) ** -0.5) @ turn + shift


def tensor(x: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(x))


def told(metric: Any, real: Array, fake: Array, batch: int = 50) -> Any:
    """What a metric of torchmetrics makes of features, batch by batch."""
    for side, is_real in ((real, True), (fake, False)):
        for start in range(0, len(side), batch):
            metric.update(tensor(side[start : start + batch]), real=is_real)
    return metric.compute()


def tm_fid(peer: Any, real: Array, fake: Array) -> float:
    metric = peer.fid.FrechetInceptionDistance(feature=Identity(real.shape[1])).set_dtype(torch.float64)
    return float(told(metric, real, fake))


def tf_fid(peer: Any, real: Array, fake: Array) -> float:
    sides = [peer.fid.fid_features_to_statistics(tensor(side)) for side in (fake, real)]
    return float(peer.fid.fid_statistics_to_metric(*sides, False)["frechet_inception_distance"])


def tf_pr(peer: Any, real: Array, fake: Array, k: int) -> tuple[float, float]:
    found = peer.prc.prc_features_to_metric(tensor(fake), tensor(real), prc_neighborhood=k, verbose=False)
    return found["precision"], found["recall"]


# Where they agree


@pytest.mark.parametrize(("n", "m", "d"), [(300, 400, 24), (1000, 700, 128), (90, 70, 64)])
def test_fid_of_full_rank(torchmetrics: Any, fidelity: Any, n: int, m: int, d: int) -> None:
    real, fake = rows(n, d, 1), rows(m, d, 2, 1.3, 0.2)
    value = frechet_distance(real, fake)
    assert tm_fid(torchmetrics, real, fake) == pytest.approx(value, rel=1e-9)
    assert tf_fid(fidelity, real, fake) == pytest.approx(value, rel=1e-9)
    assert clean_fid.fid_from_feats(real, fake) == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("n", [5, 60, 400])
def test_kid_of_one_subset_of_all(torchmetrics: Any, fidelity: Any, n: int) -> None:
    real, fake = rows(n, 48, 1, 3), rows(n, 48, 2, 3.3, 0.2)
    value = kernel_distance(real, fake)[0]
    metric = torchmetrics.kid.KernelInceptionDistance(feature=Identity(48), subsets=1, subset_size=n)
    assert float(told(metric, real, fake)[0]) == pytest.approx(value, rel=1e-10)
    found = fidelity.kid.kid_features_to_metric(
        tensor(real), tensor(fake), kid_subsets=1, kid_subset_size=n, verbose=False
    )
    assert found["kernel_inception_distance_mean"] == pytest.approx(value, rel=1e-10)
    assert clean_fid.kernel_distance(real, fake, num_subsets=1) == pytest.approx(value, rel=1e-10)


@pytest.mark.parametrize(("n", "k"), [(2, 3), (200, 10), (700, 1008)])
def test_inception_score_of_one_split(torchmetrics: Any, fidelity: Any, n: int, k: int) -> None:
    logits = np.random.default_rng(0).normal(size=(n, k)) * 4
    value = inception_score(logits)
    found = fidelity.isc.isc_features_to_metric(tensor(logits), splits=1)
    assert found["inception_score_mean"] == pytest.approx(value, rel=1e-12)
    metric = torchmetrics.inception.InceptionScore(feature=Identity(k), splits=1)
    metric.update(tensor(logits))
    assert float(metric.compute()[0]) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize(("n", "d"), [(60, 8), (300, 40)])
def test_precision_and_recall_without_ties(fidelity: Any, n: int, d: int, k: int) -> None:
    real, fake = rows(n, d, 1), rows(n, d, 2, 0.8, 0.1)
    own = precision_recall(real, fake, k=k)
    # The peer gives means of float32.
    assert tf_pr(fidelity, real, fake, k) == pytest.approx((own["precision"], own["recall"]), abs=1e-6)
    assert 0 < own["recall"] < own["precision"] < 1  # the smaller scale is seen


def test_torch_fidelity_from_end_to_end(fidelity: Any) -> None:
    """The same through its front door, with a registered extractor that gives pixels."""
    import torch_fidelity

    class Pixels(torch_fidelity.FeatureExtractorBase):
        def __init__(self, name: str, features_list: list[str], **kwargs: Any) -> None:
            super().__init__(name, features_list)

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return ("pixels",)

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return "pixels"

        @staticmethod
        def can_be_compiled() -> bool:
            return False

        def forward(self, x: Tensor) -> tuple[Tensor]:
            return (x.flatten(1).double(),)

    draw = np.random.default_rng(0)
    sides = [draw.integers(0, high, (120, 3, 4, 4), dtype=np.uint8) for high in (200, 255)]
    torch_fidelity.register_feature_extractor("gankit-pixels", Pixels)
    found = torch_fidelity.calculate_metrics(
        input1=_Images(sides[1]),
        input2=_Images(sides[0]), feature_extractor="gankit-pixels", fid=True, kid=True, prc=True, kid_subsets=1,
        kid_subset_size=120, prc_neighborhood=3, cuda=False, verbose=False, save_cpu_ram=True, cache=False,
    )  # fmt: skip
    real, fake = (side.reshape(120, -1) for side in sides)
    assert found["frechet_inception_distance"] == pytest.approx(frechet_distance(real, fake), rel=1e-9)
    assert found["kernel_inception_distance_mean"] == pytest.approx(kernel_distance(real, fake)[0], rel=1e-10)
    own = precision_recall(real, fake, k=3)
    assert (found["precision"], found["recall"]) == pytest.approx((own["precision"], own["recall"]), abs=1e-6)


class _Images(torch.utils.data.Dataset[Tensor]):
    def __init__(self, images: Array) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int) -> Tensor:
        return tensor(self.images[place])


# Where peers err


def mended(right: bool, what: str) -> None:
    if right:
        pytest.skip(f"mended: {what}")


def failure(call: Callable[[], object]) -> Exception | None:
    try:
        call()
    except Exception as error:
        return error
    return None


@pytest.mark.parametrize("n", [10, 40])
def test_identical_small_sets(torchmetrics: Any, fidelity: Any, n: int) -> None:
    real = rows(n, 300, 1, 5)
    assert frechet_distance(real, real) == 0.0
    found = [tm_fid(torchmetrics, real, real), tf_fid(fidelity, real, real), clean_fid.fid_from_feats(real, real)]
    mended(all(abs(value) < 1e-10 for value in found), "identical sets are at 0")
    assert max(map(abs, found)) < 1e-2


def test_few_images_give_peers_too_small_a_distance(torchmetrics: Any, fidelity: Any) -> None:
    real, fake = rows(30, 400, 1), rows(30, 400, 2, 1.1)
    value = frechet_distance(real, fake)
    centred = [(side - side.mean(0)) / np.sqrt(29) for side in (real, fake)]
    shift = float(np.square(real.mean(0) - fake.mean(0)).sum())
    traces = sum(float(np.square(side).sum()) for side in centred)
    truth = shift + traces - 2 * float(np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum())
    assert value == pytest.approx(truth, rel=1e-12)
    found = [tm_fid(torchmetrics, real, fake), tf_fid(fidelity, real, fake), clean_fid.fid_from_feats(real, fake)]
    mended(all(other == pytest.approx(value, rel=1e-10) for other in found), "exact for few images")
    assert found == pytest.approx([value] * 3, rel=1e-4)
    assert max(found) < value


def test_clean_fid_leans_on_an_argument_that_scipy_removes() -> None:
    real, fake = rows(60, 20, 1), rows(60, 20, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert frechet_distance(real, fake) > 0
        error = failure(lambda: clean_fid.fid_from_feats(real, fake))
    mended(error is None, "no argument disp")
    assert isinstance(error, DeprecationWarning | TypeError)
    assert "disp" in str(error)


def test_torchmetrics_loses_an_offset(torchmetrics: Any) -> None:
    real, fake = rows(400, 16, 1, 3), rows(400, 16, 2, 3.6, 0.4)
    value = frechet_distance(real, fake)
    assert tm_fid(torchmetrics, real, fake) == pytest.approx(value, rel=1e-9)
    assert frechet_distance(real + 1e6, fake + 1e6) == pytest.approx(value, rel=1e-6)
    found = tm_fid(torchmetrics, real + 1e6, fake + 1e6)
    mended(found == pytest.approx(value, rel=1e-6), "the covariance of centred rows")
    assert found != pytest.approx(value, rel=1e-4)


def test_torchmetrics_truncates_images_of_floats(torchmetrics: Any) -> None:
    images = np.full((4, 3, 2, 2), 0.999, np.float32)  # 254.745 of 255

    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.double().mean((2, 3))

    class OwnMean(Features):
        dim = 3

        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3))

    own = extraction.features(from_array(images, "real", (0, 1)), OwnMean(), quiet=True)
    np.testing.assert_allclose(own, 254.745, rtol=1e-6)
    metric = torchmetrics.inception.InceptionScore(feature=Mean(), normalize=True)
    metric.update(tensor(images))
    mended(abs(float(metric.features[0].mean()) - 254.745) < 0.5, "rounded")
    assert float(metric.features[0].mean()) == 254


def test_torchmetrics_looks_for_copies_of_the_wrong_side(torchmetrics: Any) -> None:
    real = rows(200, 64, 1)
    fake = np.repeat(real[:2], 50, 0) + rows(100, 64, 2, 1e-6)
    fid = tm_fid(torchmetrics, real, fake)
    sides = (Rows(features=side, ids=np.arange(len(side))) for side in (real, fake))
    values = Memorisation().compute(*sides).values
    # Every generated image is a copy, which the paper's distance must tell.
    assert values["memorisation distance"] < 1e-9
    assert values["near-copies"] == values["memorisation"] == 1
    peer = torchmetrics.mifid.MemorizationInformedFrechetInceptionDistance(feature=Identity(64))
    found = float(told(peer, real, fake))
    mended(found > 1e6 * fid, "the minimum over training images, the mean over generated ones")
    assert found == pytest.approx(fid, rel=1e-4)


def test_torchmetrics_draws_without_a_seed(torchmetrics: Any) -> None:
    real, fake = rows(300, 16, 1), rows(300, 16, 2, 1.1)
    values = {kernel_distance(real, fake) for _ in range(3)}
    assert len(values) == 1
    metric = torchmetrics.kid.KernelInceptionDistance(feature=Identity(16), subsets=5, subset_size=100)
    found = {float(told(metric, real, fake)[0])} | {_again(metric) for _ in range(3)}
    mended(len(found) == 1, "subsets of a seed")
    # Its documented tolerance of 1e-3 would hide a difference as large as the value.
    assert max(found) - min(found) > 0.05 * abs(next(iter(values))[0])

    logits = rows(100, 10, 3, 4)
    assert inception_score(logits) == inception_score(logits)
    score = torchmetrics.inception.InceptionScore(feature=Identity(10), splits=5)
    score.update(tensor(logits))
    assert len({float(score.compute()[0])} | {_again(score) for _ in range(3)}) > 1


def _again(metric: Any) -> float:
    metric._computed = None  # torchmetrics keeps the value
    return float(metric.compute()[0])


def test_torchmetrics_has_no_number_for_one_split(torchmetrics: Any) -> None:
    logits = rows(50, 10, 1, 4)
    assert np.isfinite(inception_score(logits))
    metric = torchmetrics.inception.InceptionScore(feature=Identity(10), splits=1)
    metric.update(tensor(logits))
    deviation = float(metric.compute()[1])
    mended(not np.isnan(deviation), "a deviation of one split")
    assert np.isnan(deviation)


def test_torch_fidelity_refuses_few_images(fidelity: Any) -> None:
    real, fake = rows(40, 16, 1), rows(30, 16, 2)
    value, error = kernel_distance(real, fake)
    assert np.isfinite(value)
    assert error > 0
    refusal = failure(lambda: fidelity.kid.kid_features_to_metric(tensor(real), tensor(fake), verbose=False))
    mended(refusal is None, "KID of few images")
    assert "subset size 1000" in str(refusal)


def test_clean_fid_draws_subsets_of_unequal_sets() -> None:
    real, fake = rows(60, 16, 1), rows(200, 16, 2, 1.1)
    assert len({kernel_distance(real, fake) for _ in range(3)}) == 1
    found = {clean_fid.kernel_distance(real, fake, num_subsets=10) for _ in range(4)}
    mended(len(found) == 1, "all rows, or a seed")
    assert max(found) - min(found) > 1e-6
    # With sets of one size all subsets are the same set, so that its mean has no spread to tell.
    equal = [clean_fid.kernel_distance(real, fake[:60], num_subsets=n) for n in (1, 10)]
    assert equal == pytest.approx([kernel_distance(real, fake[:60])[0]] * 2, rel=1e-9)


def test_a_collapsed_set_is_precise_and_forgets(fidelity: Any) -> None:
    # torch-fidelity before 0.4.0 gave the two the other way round.
    real = rows(300, 16, 1)
    fake = real[:1] + rows(300, 16, 2, 0.01)
    own = precision_recall(real, fake, k=3)
    assert own["precision"] > 0.95
    assert own["recall"] < 0.05
    assert tf_pr(fidelity, real, fake, 3) == pytest.approx((own["precision"], own["recall"]), abs=1e-6)


def test_torch_fidelity_puts_copies_apart_in_float32(fidelity: Any) -> None:
    features = (rows(100, 512, 1) + 3).astype(np.float32)
    assert not np.diagonal(squared_distances(features.astype(np.float64), features.astype(np.float64))).any()
    found = fidelity.prc.calc_cdist_full(tensor(features), tensor(features)).diagonal()
    mended(not found.any(), "copies are at 0")
    assert found.max() > 1e-3


def test_torch_fidelity_calls_numpy_by_names_that_are_gone(fidelity: Any) -> None:
    import torch_fidelity

    class Apart(torch_fidelity.SampleSimilarityBase):
        def __init__(self, name: str, **kwargs: Any) -> None:
            super().__init__(name)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return (x.float() - y.float()).square().mean((1, 2, 3))

    class Draw(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return (z[:, :3, None, None].expand(-1, -1, 4, 4).sigmoid() * 255).to(torch.uint8)

    torch_fidelity.register_sample_similarity("gankit-apart", Apart)
    error = failure(
        lambda: torch_fidelity.calculate_metrics(
            input1=torch_fidelity.GenerativeModelModuleWrapper(Draw(), 4, "normal", 0), input1_model_num_samples=20,
            ppl=True, ppl_sample_similarity="gankit-apart", ppl_epsilon=0.5, cuda=False, verbose=False,
        )
    )  # fmt: skip
    mended(error is None, "np.percentile(method=...)")
    assert isinstance(error, TypeError)
    assert "interpolation" in str(error)
