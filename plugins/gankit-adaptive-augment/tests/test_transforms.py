"""The paper's transformations, against independent computations with NumPy and SciPy."""

from __future__ import annotations

from functools import reduce
from typing import Any

import gankit
import numpy as np
import pytest
import torch
from gankit.errors import PartError
from numpy.typing import NDArray
from scipy import ndimage, signal, stats
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gankit_adaptive_augment import Transforms
from gankit_adaptive_augment.warp import CENTRE, SYM6, _by_gather, _by_index, warp

GEOMETRIC = ["flip", "quarter_turns", "shift", "scale", "rotation", "stretch", "slide"]
COLOUR = ["brightness", "contrast", "inversion", "hue", "saturation"]
TAPS = torch.tensor(SYM6, dtype=torch.float64)
Array = NDArray[np.float64]


def only(*names: str, probability: float = 1.0) -> Transforms:
    """Transforms of which the others are left out."""
    off: dict[str, Any] = {name: False for name in GEOMETRIC + COLOUR if name not in names}
    return Transforms(probability=probability, **off)


def sources(augment: Transforms, n: int = 4000, size: int = 32) -> Array:
    """(n, 3, 3) maps of drawn geometric transformations."""
    return augment._sources(n, size, size).double().numpy()


# --- the warp ---------------------------------------------------------------------------------------------------------


def warped(image: Array, source: Array) -> Array:
    """One channel, by SciPy: mirrored far, up-sampled, moved, down-sampled."""
    pad, taps = 24, np.array(SYM6)
    height, width = image.shape
    zeros = np.zeros((2 * (height + 2 * pad), 2 * (width + 2 * pad)))
    zeros[::2, ::2] = np.pad(image, pad, mode="reflect")
    fine = signal.convolve(zeros, np.outer(taps, taps))
    # SciPy's axes are (y, x), its positions count from the first sample.
    swap = np.array([[0, 1], [1, 0]])
    linear, moved = swap @ source[:2, :2] @ swap, 2 * source[1::-1, 2]
    centre = 2 * pad + np.array([height - 1, width - 1]) + CENTRE
    moved = ndimage.affine_transform(fine, linear, centre - linear @ centre + moved, order=1)
    return signal.correlate(moved, np.outer(taps, taps), mode="valid")[2 * pad :: 2, 2 * pad :: 2][:height, :width]


def test_a_warp_equals_scipys() -> None:
    draws = np.random.default_rng(0)
    images = draws.normal(size=(6, 2, 9, 12))
    maps = np.tile(np.eye(3), (6, 1, 1))
    maps[1:, :2, :2] += 0.3 * draws.normal(size=(5, 2, 2))
    maps[1:, :2, 2] = draws.normal(size=(5, 2))
    found = warp(torch.tensor(images), torch.tensor(maps), TAPS)
    expected = [[warped(channel, source) for channel in image] for image, source in zip(images, maps, strict=True)]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (2, 3), (8, 5)])
def test_moves_by_whole_pixels_are_exact(size: tuple[int, int]) -> None:
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    stay = torch.eye(3, dtype=torch.float64).expand(2, 3, 3)
    torch.testing.assert_close(warp(images, stay, TAPS), images, rtol=0, atol=1e-9)
    move = stay.clone()
    move[:, 0, 2], move[:, 1, 2] = 2, -1
    padded = np.pad(images.numpy(), [(0, 0), (0, 0), (5, 5), (5, 5)], mode="reflect")
    rows, columns = slice(4, 4 + size[0]), slice(7, 7 + size[1])
    torch.testing.assert_close(warp(images, move, TAPS), torch.tensor(padded[:, :, rows, columns]), rtol=0, atol=1e-9)


def test_values_are_picked_on_a_gpu_as_on_a_cpu() -> None:
    maps = torch.randn(3, 2, 7, dtype=torch.float64, requires_grad=True)
    places, weights = torch.randint(7, (3, 20)), torch.randn(3, 2, 20, dtype=torch.float64)
    found = []
    for pick in (_by_gather, _by_index):
        values = pick(maps, places)
        (first,) = torch.autograd.grad((values.square() * weights).sum(), maps, create_graph=True)
        found.append((values, first, *torch.autograd.grad(first.square().sum(), maps)))
    for plain, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain)


def test_a_flip_is_one_of_smooth_images() -> None:
    ramp = torch.linspace(-1, 1, 32, dtype=torch.float64).mul(3).sin().expand(1, 1, 32, 32)
    flip = torch.diag(torch.tensor([-1.0, 1, 1], dtype=torch.float64))[None]
    torch.testing.assert_close(warp(ramp, flip, TAPS), ramp.flip(3), rtol=0, atol=0.03)


# --- which transformations, how far -----------------------------------------------------------------------------------


def recorded(augment: Transforms, monkeypatch: pytest.MonkeyPatch) -> list[Array]:
    """What the coins decided on, in the order of the calls."""
    values: list[Array] = []
    chosen = Transforms._chosen

    def record(*given: Any, **named: Any) -> Tensor:
        result = chosen(*given, **named)
        values.append(result.double().numpy())
        return result

    monkeypatch.setattr(Transforms, "_chosen", record)
    return values


def homogeneous(*diagonal: float, at: tuple[float, ...] = ()) -> Array:
    matrix = np.diag([*diagonal, 1.0])
    matrix[: len(at), -1] = at
    return matrix


def turn(angle: float) -> Array:
    return np.block([[Rotation.from_rotvec([0, 0, angle]).as_matrix()[:2, :2], np.zeros((2, 1))], [0, 0, 1]])


def test_a_source_is_the_inverse_of_the_papers_product(monkeypatch: pytest.MonkeyPatch) -> None:
    augment = Transforms(probability=0.6, shift=False, slide=False)
    values = recorded(augment, monkeypatch)
    found = sources(augment, 50)
    _, _, scale, stretch, before, after, flip, turns = values
    for k in range(50):
        steps = [homogeneous(flip[k], 1), turn(turns[k]), homogeneous(scale[k], scale[k]), turn(before[k]),
                 homogeneous(stretch[k], 1 / stretch[k]), turn(after[k])]  # fmt: skip
        product = reduce(lambda done, step: step @ done, steps, np.eye(3))
        np.testing.assert_allclose(found[k], np.linalg.inv(product), atol=1e-5)


def test_colours_are_the_papers_product(monkeypatch: pytest.MonkeyPatch) -> None:
    augment = Transforms(probability=0.6)
    values = recorded(augment, monkeypatch)
    matrices, offsets = augment._colours(50, 3)
    axis = np.ones(3) / np.sqrt(3)
    grey = np.outer(axis, axis)
    for k, (brightness, contrast, sign, hue, saturation) in enumerate(zip(*values, strict=True)):
        expected = homogeneous(1, 1, 1, at=(brightness,) * 3)
        expected = homogeneous(*[contrast] * 3) @ expected
        linear = [np.eye(3) - (1 - sign) * grey, Rotation.from_rotvec(hue * axis).as_matrix(),
                  grey + saturation * (np.eye(3) - grey)]  # fmt: skip
        for matrix in linear:
            expected = np.block([[matrix, np.zeros((3, 1))], [0, 0, 0, 1]]) @ expected
        np.testing.assert_allclose(matrices[k], expected[:3, :3], atol=1e-5)
        np.testing.assert_allclose(offsets[k].expand(3), expected[:3, 3], atol=1e-5)


DRAWS = 10_000
OCTAVES = {"scale": 0.2, "stretch": 0.2, "contrast": 0.5, "saturation": 1.0}
"""Standard deviations of the logarithms (appendix B: 0.2 ln 2, 0.5 ln 2 and ln 2 of natural ones)."""


@pytest.mark.parametrize("p", [0.2, 0.7, 1.0])
def test_what_10_000_draws_do_is_what_the_paper_says(p: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """How often each transformation changes an image, how far, and that no coin knows of another."""
    augment = Transforms(probability=p)
    values = recorded(augment, monkeypatch)
    sources(augment, DRAWS)
    augment._colours(DRAWS, 3)
    names = ["shift", "slide", "scale", "stretch", "before", "after", "flip", "quarter_turns", *COLOUR]
    drawn = dict(zip(names, values, strict=True))
    ones = {*OCTAVES, "flip", "inversion"}
    acted = {name: drawn[name] != (name in ones) for name in names}
    once = 1 - (1 - p) ** 0.5
    expected = {"flip": p / 2, "inversion": p / 2, "quarter_turns": 3 / 4 * p, "before": once, "after": once}
    for name, marks in acted.items():
        share = expected.get(name, p)
        assert marks.mean() == pytest.approx(share, abs=4 * (share * (1 - share) / DRAWS) ** 0.5), name
    assert (acted["before"] | acted["after"]).mean() == pytest.approx(p, abs=0.02)
    random = np.array([marks for marks in acted.values() if 0 < marks.mean() < 1])
    if len(random) > 1:
        correlations = np.corrcoef(random) - np.eye(len(random))
        assert np.abs(correlations).max() < 4.5 / DRAWS**0.5
    laws = {name: (np.log2, stats.norm(0, octaves)) for name, octaves in OCTAVES.items()}
    laws |= {name: (np.positive, stats.uniform(-np.pi, 2 * np.pi)) for name in ("before", "after", "hue")}
    laws["brightness"] = np.positive, stats.norm(0, 0.2)
    for name, (scale, law) in laws.items():
        assert stats.kstest(scale(drawn[name][acted[name]]), law.cdf).pvalue > 1e-3, name
    turns = np.bincount(np.round(drawn["quarter_turns"][acted["quarter_turns"]] / (np.pi / 2)).astype(int))
    assert stats.chisquare(turns[1:]).pvalue > 1e-3
    assert len(turns) == 4


def test_10_000_moves_are_those_of_the_paper() -> None:
    """Either axis by its own length: whole pixels up to an eighth of it, or normal distances; one coin moves both."""
    sides = np.array([48, 32])  # x, y
    slid = only("slide")._sources(DRAWS, 32, 48)[:, :2, 2].double().numpy()
    shifted = only("shift")._sources(DRAWS, 32, 48)[:, :2, 2].double().numpy()
    for axis, side in enumerate(sides):
        assert stats.kstest(slid[:, axis], stats.norm(0, side / 8).cdf).pvalue > 1e-3
        most = side // 8
        numbers = np.arange(-most, most + 1)
        shares = np.where(np.abs(numbers) == most, 0.5, 1) / (2 * most)  # of uniform distances that are rounded
        found = (shifted[:, axis, None] == numbers).sum(0)
        assert found.sum() == DRAWS
        assert stats.chisquare(found, DRAWS * shares).pvalue > 1e-3
    for moves in (slid, shifted):
        assert abs(np.corrcoef(moves.T)[0, 1]) < 4 / DRAWS**0.5
    some = only("slide", probability=0.3)._sources(DRAWS, 32, 48)[:, :2, 2] != 0
    assert torch.equal(some[:, 0], some[:, 1])


def test_a_factor_acts_on_what_it_should() -> None:
    """`scale` on both axes alike, `stretch` on one and its inverse on the other."""
    for name, product in (("scale", lambda x, y: x / y), ("stretch", lambda x, y: x * y)):
        found = sources(only(name), 200)
        np.testing.assert_allclose(product(found[:, 0, 0], found[:, 1, 1]), 1, rtol=1e-5)
        assert len(np.unique(found[:, 0, 0])) == 200


@pytest.mark.parametrize("name", GEOMETRIC + COLOUR)
def test_each_has_a_switch(name: str) -> None:
    images = torch.rand(64, 3, 8, 8)
    assert not torch.equal(only(name)(images), images)
    assert torch.equal(only()(images), images)


def test_images_that_no_coin_chose_stay_bitwise() -> None:
    images = torch.randn(16, 3, 8, 8)
    assert torch.equal(Transforms(probability=0.0)(images), images)


def test_one_channel_knows_no_colours() -> None:
    images = torch.rand(64, 1, 4, 4)
    assert torch.equal(only("hue", "saturation")(images), images)
    inverted = only("inversion")(images)
    assert all(
        torch.equal(view, image) or torch.equal(view, -image) for view, image in zip(inverted, images, strict=True)
    )


# --- as a part --------------------------------------------------------------------------------------------------------


def test_it_is_twice_differentiable() -> None:
    augment = Transforms(probability=0.7)

    def seeded(images: Tensor) -> Tensor:
        torch.manual_seed(3)
        return augment(images) ** 3

    images = torch.randn(2, 3, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(seeded, images)
    assert torch.autograd.gradgradcheck(seeded, images)


def test_nothing_is_read_back_from_the_device() -> None:
    class NoReading(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            assert "local_scalar_dense" not in str(func), "a value is read back"
            assert "nonzero" not in str(func), "a shape depends on values"
            return func(*args, **(kwargs or {}))

    with NoReading():
        Transforms()(torch.randn(4, 3, 8, 6))


def test_half_precision_images_are_changed_in_enough_digits() -> None:
    images = torch.rand(8, 3, 8, 8).bfloat16()
    views = []
    for each in (images, images.float()):
        torch.manual_seed(1)
        views.append(Transforms(probability=1.0)(each))
    with torch.autocast("cpu", torch.bfloat16):
        torch.manual_seed(1)
        assert torch.equal(Transforms(probability=1.0)(images.float()), views[1])
    assert views[0].dtype == torch.bfloat16
    torch.testing.assert_close(views[0], views[1].bfloat16())


def test_a_schedule_moves_the_probability() -> None:
    gankit.augments.register("transforms")(Transforms)
    moved = {"start": 0.0, "end": 0.4, "steps": 10, "shape": "linear"}
    augment = gankit.build("augment", "transforms", probability=moved)
    assert augment.before_step(5) == {"augment_probability": pytest.approx(0.2)}
    assert augment.p.item() == pytest.approx(0.2)
    assert gankit.build("augment", "transforms").p == 0.5
    with pytest.raises(PartError, match="probability"):
        gankit.build("augment", "transforms", probability=1.5)
