"""DiffAugment's ranges, measured, and what each scope augments on each turn."""

import itertools

import pytest
import torch
from pydantic import ValidationError
from torch import nn

import gankit
from gankit.augments import diffaugment
from gankit.augments.diffaugment import DiffAugment
from gankit.interfaces import Critic, Generator, Turn
from gankit.registry import read_part


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def assert_uniform(values, low, high):
    """Values fill [low, high] evenly: by the ends, and by tenths within five standard deviations."""
    n, slack = len(values), 1e-4 * (high - low)
    assert low - slack <= values.min() < low + 0.01 * (high - low)
    assert high - 0.01 * (high - low) < values.max() <= high + slack
    tenths = torch.histc(values, 10, low - slack, high + slack)
    assert tenths.sum() == n
    assert (tenths - n / 10).abs().max() < 5 * (n * 0.09) ** 0.5


# --- color ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_brightness_adds_one_value_a_sample(channels):
    images = torch.full((3000, channels, 2, 3), 0.2, dtype=torch.float64)  # plain: neither of the others does anything
    change = diffaugment.color(images) - images
    torch.testing.assert_close(change, change[:, :1, :1, :1].expand_as(change))
    assert_uniform(change[:, 0, 0, 0], -0.5, 0.5)


def test_saturation_and_contrast_scale_distances_from_their_means():
    images = torch.randn(3000, 3, 4, 5, dtype=torch.float64)
    result = diffaugment.color(images)

    def parts(x):
        grey = x.mean(1, keepdim=True)
        return x - grey, grey - x.mean((1, 2, 3), keepdim=True)

    (colour, shade), (colour_after, shade_after) = parts(images), parts(result)
    contrast = shade_after[:, :, :1, :1] / shade[:, :, :1, :1]
    torch.testing.assert_close(shade_after, contrast * shade)
    assert_uniform(contrast.flatten(), 0.5, 1.5)
    saturation = colour_after[:, :1, :1, :1] / colour[:, :1, :1, :1] / contrast
    torch.testing.assert_close(colour_after, saturation * contrast * colour)
    assert_uniform(saturation.flatten(), 0.0, 2.0)
    # Drawn apart from one another, and from the brightness.
    brightness = (result.mean((1, 2, 3)) - images.mean((1, 2, 3))).flatten()
    draws = torch.stack([contrast.flatten(), saturation.flatten(), brightness])
    assert (torch.corrcoef(draws) - torch.eye(3)).abs().max() < 0.1


def test_grey_images_have_no_saturation():
    images = torch.randn(3000, 1, 4, 4, dtype=torch.float64)
    result = diffaugment.color(images)
    before = images - images.mean((1, 2, 3), keepdim=True)
    after = result - result.mean((1, 2, 3), keepdim=True)
    contrast = after[:, :, :1, :1] / before[:, :, :1, :1]
    torch.testing.assert_close(after, contrast * before)
    assert_uniform(contrast.flatten(), 0.5, 1.5)


def test_nothing_is_clamped():
    images = torch.rand(500, 3, 8, 8).round() * 2 - 1
    result = DiffAugment()(images)
    assert result.min() < -1.5
    assert result.max() > 1.5


# --- translation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("height", "width", "most"), [(8, 8, (1, 1)), (32, 16, (4, 2)), (5, 64, (1, 8)), (3, 2, (0, 0))]
)
def test_translation_shifts_by_whole_pixels_within_an_eighth(height, width, most):
    image = torch.arange(1.0, height * width + 1).reshape(1, height, width)
    image = torch.cat([image, -image])
    n = 600
    result = diffaugment.translation(image.expand(n, 2, height, width))
    shifts = list(itertools.product(range(-most[0], most[0] + 1), range(-most[1], most[1] + 1)))
    counts = dict.fromkeys(shifts, 0)
    for sample in result:
        row, column = (sample[0] > 0).nonzero()[0].tolist()
        original = (image[0] == sample[0, row, column]).nonzero()[0].tolist()
        counts[row - original[0], column - original[1]] += 1
    padded = nn.functional.pad(image, (most[1], most[1], most[0], most[0]))
    views = {
        (down, right): padded[:, most[0] - down :, most[1] - right :][:, :height, :width] for down, right in shifts
    }
    assert all(any(torch.equal(sample, view) for view in views.values()) for sample in result[:50])
    expected = n / len(shifts)
    assert sum(counts.values()) == n
    assert all(abs(count - expected) < 5 * expected**0.5 + 1e-9 for count in counts.values())


def test_translation_reaches_the_papers_four_and_eight_pixels():
    for size, most in ((32, 4), (64, 8)):
        ones = torch.ones(2000, 1, size, size)
        empty = diffaugment.translation(ones) == 0
        rows, columns = empty.all(3).sum(2), empty.all(2).sum(2)
        assert rows.max() == most
        assert columns.max() == most
        # |shift| averages m (m + 1) / (2 m + 1) over -m ... m.
        mean = most * (most + 1) / (2 * most + 1)
        assert rows.double().mean().item() == pytest.approx(mean, rel=0.05)
        assert columns.double().mean().item() == pytest.approx(mean, rel=0.05)


# --- cutout ---------------------------------------------------------------------------------------------------------


def holes(n, height, width, channels=1):
    """(n, height, width) whether a pixel was cut out."""
    removed = diffaugment.cutout(torch.ones(n, channels, height, width)) == 0
    assert (removed == removed[:, :1]).all()
    return removed[:, 0]


def mean_share(size):
    """Of one axis, by counting."""
    length = int(0.5 * size + 0.5)
    centres = range(size + 1 - length % 2)
    inside = [sum(0 <= centre - length // 2 + i < size for i in range(length)) for centre in centres]
    return sum(inside) / len(inside) / size


@pytest.mark.parametrize("size", [32, 64, 128, 33])
def test_cutout_removes_about_a_fifth_of_the_area(size):
    shares = holes(4000, size, size).double().mean((1, 2))
    assert shares.mean().item() == pytest.approx(mean_share(size) ** 2, abs=0.004)
    if size % 2 == 0:
        assert 0.186 < mean_share(size) ** 2 < 0.193
        assert shares.max().item() == 0.25


@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 8), (6, 24), (7, 9)])
def test_cutout_is_a_box_whose_centre_is_uniform(height, width):
    removed = holes(4000, height, width, channels=3)
    rows, columns = removed.any(2), removed.any(1)
    assert torch.equal(removed, rows[:, :, None] & columns[:, None, :])
    for axis, size in ((rows, height), (columns, width)):
        length = int(0.5 * size + 0.5)
        edges = nn.functional.pad(axis.int(), (1, 1)).diff(dim=1)
        assert (edges == 1).sum() == len(axis)  # one stretch a sample
        first = (edges == 1).int().argmax(1)
        after = (edges == -1).int().argmax(1)
        start = torch.where(first > 0, first, after - length)
        places = size + 1 - length % 2
        counts = torch.bincount(start + length // 2, minlength=places)
        assert len(counts) == places
        expected = len(axis) / places
        assert (counts - expected).abs().max() < 5 * expected**0.5


def test_cutout_keeps_the_rest():
    images = torch.randn(8, 3, 16, 16)
    result = diffaugment.cutout(images)
    assert torch.equal(result, torch.where(result == 0, 0.0, images))


# --- the whole ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [("color",), ("translation",), ("cutout",), ("color", "translation", "cutout")])
def test_samples_of_a_batch_are_changed_differently(policy):
    images = torch.randn(1, 3, 32, 32).expand(16, 3, 32, 32)
    result = DiffAugment(policy=policy)(images)
    distinct = {tuple(sample.flatten().tolist()) for sample in result}
    assert len(distinct) > 12


def test_draws_follow_torchs_global_generator():
    images, augment = torch.randn(4, 3, 16, 16), DiffAugment()
    torch.manual_seed(5)
    first = augment(images)
    again = augment(images)
    torch.manual_seed(5)
    assert torch.equal(augment(images), first)
    assert not torch.equal(again, first)


def test_operations_follow_the_policys_order():
    images = torch.ones(8, 1, 16, 16)
    after = DiffAugment(policy=("cutout", "color"))(images)
    before = DiffAugment(policy=("color", "cutout"))(images)
    assert ((before == 0).flatten(1).sum(1) > 0).all()
    assert (after != 0).all()  # brightness fills the hole


@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (2, 3, 6, 10), (1, 5, 3, 7), (3, 2, 1, 4), (0, 3, 8, 8)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_any_channels_sizes_and_types(shape, dtype):
    result = DiffAugment()(torch.rand(shape).to(dtype))
    assert result.shape == shape
    assert result.dtype == dtype
    assert result.isfinite().all()


def test_memory_format_is_kept():
    images = torch.randn(2, 3, 8, 8)
    assert DiffAugment()(images).is_contiguous()
    last = images.contiguous(memory_format=torch.channels_last)
    torch.manual_seed(1)
    result = DiffAugment()(last)
    assert result.is_contiguous(memory_format=torch.channels_last)
    torch.manual_seed(1)
    torch.testing.assert_close(result, DiffAugment()(images), check_stride=False)


@pytest.mark.parametrize(
    "policy",
    [
        *(pytest.param((alone,), marks=pytest.mark.slow) for alone in ("color", "translation", "cutout")),
        ("color", "translation", "cutout"),
    ],
)
def test_differentiable_twice(policy):
    augment = DiffAugment(policy=policy)

    def same_draws(images):
        torch.manual_seed(3)
        return augment(images).sin()

    images = torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(same_draws, images)
    assert torch.autograd.gradgradcheck(same_draws, images)


# --- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "policy"),
    [
        ({}, ("color", "translation", "cutout")),
        ({"policy": ["cutout"]}, ("cutout",)),
        ({"policy": "color, cutout"}, ("color", "cutout")),
    ],
)
def test_policy_is_a_list_or_a_string_with_commas(settings, policy):
    part = read_part("augment", {"name": "diffaugment", **settings})
    assert part.build().policy == policy
    assert part.table() == {"name": "diffaugment", "policy": list(policy)}
    assert read_part("augment", part.table()) == part
    assert DiffAugment(**settings).policy == policy


@pytest.mark.parametrize("settings", [{"policy": "colour"}, {"policy": []}, {"policy": 3}, {"probability": 0.5}])
def test_other_policies_are_refused(settings):
    with pytest.raises(ValidationError):
        read_part("augment", {"name": "diffaugment", **settings})


def test_a_wrong_policy_in_a_script_is_refused():
    with pytest.raises(gankit.GankitError, match="has no blur; it has color, translation, cutout"):
        DiffAugment(policy=("blur",))


# --- scopes ---------------------------------------------------------------------------------------------------------


class Tones(Generator):
    latent_dim = 2

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 3 * 64).double()

    def forward(self, z, labels=None):
        return self.linear(z).tanh().reshape(-1, 3, 8, 8)


class Patches(Critic):
    """Remembers what it was shown."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 3).double()
        self.seen = []

    def forward(self, images, labels=None):
        self.seen.append(images)
        return self.conv(images).square()


def turn(side, scope, augment):
    real = torch.rand(4, 3, 8, 8, dtype=torch.float64)
    return Turn(
        side,
        Tones(),
        Patches(),
        real=lambda: real,
        labels=None,
        latents=torch.randn(4, 2, dtype=torch.float64),
        step=0,
        random=None,
        augment=augment,
        scope=scope,
    )


AUGMENTED = {  # scope and side: are reals, are fakes
    ("critic", "critic"): (True, True),
    ("critic", "generator"): (True, True),
    ("critic-turn", "critic"): (True, True),
    ("critic-turn", "generator"): (False, False),
    ("real", "critic"): (True, False),
    ("real", "generator"): (True, False),
    ("on-request", "critic"): (False, False),
    ("on-request", "generator"): (False, False),
}


@pytest.mark.parametrize(("case", "expected"), AUGMENTED.items(), ids=lambda value: "-".join(map(str, value)))
def test_scope_decides_what_the_critic_sees(case, expected):
    scope, side = case
    given = turn(side, scope, DiffAugment())
    assert torch.equal(given.real, given.raw_real) != expected[0]
    assert torch.equal(given.fake, given.raw_fake) != expected[1]
    assert given.real_scores.shape == given.fake_scores.shape == (4, 1, 6, 6)
    seen = torch.cat(given.critic.seen)
    assert torch.equal(seen, torch.cat([given.real, given.fake]))
    # Views for consistency losses are there in every scope.
    assert not torch.equal(given.augmented(given.raw_real), given.raw_real)


@pytest.mark.parametrize("side", ["critic", "generator"])
def test_raw_images_are_never_augmented(side):
    given = turn(side, "critic", DiffAugment())
    torch.testing.assert_close(given.raw_fake, given.generator(given.latents))
    assert given.raw_fake.abs().max() < 1
    assert given.raw_fake.requires_grad == (side == "generator")


@pytest.mark.parametrize(("scope", "through"), [("critic", True), ("critic-turn", False), ("on-request", False)])
def test_the_generators_gradient_flows_through_the_augment(scope, through):
    given = turn("generator", scope, DiffAugment(policy=("cutout",)))
    given.raw_fake.retain_grad()
    given.fake_scores.sum().backward()
    cut = given.fake == 0
    assert cut.any() == through
    slope = given.raw_fake.grad
    assert (slope[cut] == 0).all()
    assert (slope[~cut] != 0).all()
    assert given.generator.linear.weight.grad.abs().sum() > 0
