"""Generators and critics: parameter counts, sizes, conditioning, what each refuses."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm

import gankit
from gankit.errors import PartError
from gankit.interfaces import ClassHead, Critic, ImageSpec
from gankit.nn.copies import copied
from gankit.nn.layers import Norm, pyramid
from gankit.registry import registry
from gankit.registry.parts import read_part
from gankit.training.assembly import build
from gankit.training.mixing import mixes_samples, setting_without_mixing


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("recipe", "generator", "critic"),
    [("wgan-gp", 1_204_483, 1_053_825), ("wgan-gp-64", 8_540_483, 7_491_841), ("dcgan", 3_576_704, 2_765_568)],
)
def test_parameter_counts_of_the_recipes(recipe: str, generator: int, critic: int) -> None:
    experiment = gankit.load(recipe)
    size = experiment.data.size
    gan = build(experiment, ImageSpec(3, size, size))  # type: ignore[arg-type]
    assert parameters(gan.generator) == generator
    assert parameters(gan.critic) == critic


@pytest.mark.parametrize("recipe", ["sngan", "wgan", "wgan-gp-diffaugment", "r3gan-loss"])
def test_the_other_recipes_build(recipe: str) -> None:
    experiment = gankit.load(recipe)
    size = experiment.data.size
    gan = build(experiment, ImageSpec(1, size, size))  # type: ignore[arg-type]
    assert gan.critic_mixes_samples == (recipe == "wgan")


SPECS = [
    ImageSpec(3, 32, 32), ImageSpec(1, 28, 28), ImageSpec(3, 64, 128), ImageSpec(4, 16, 24), ImageSpec(1, 96, 32),
    ImageSpec(3, 20, 20, classes=3), ImageSpec(1, 16, 16, conditions=2),
]  # fmt: skip


def labels_of(spec: ImageSpec, n: int) -> Tensor | None:
    if spec.classes:
        return torch.arange(n) % spec.classes
    return torch.randn(n, spec.conditions) if spec.conditions else None


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("name", ["resnet", "dcgan", "r3gan"])
def test_shapes_ranges_and_gradients(name: str, spec: ImageSpec) -> None:
    if name == "dcgan" and spec.conditional:
        for kind in ("generator", "critic"):
            with pytest.raises(PartError, match=r"cannot use labels: set data\.conditional=false"):
                gankit.build(kind, name, spec)
        return
    torch.manual_seed(0)
    generator = gankit.build("generator", name, spec, width=4, latent_dim=5)
    critic = gankit.build("critic", name, spec, width=4)
    labels = labels_of(spec, 3)
    images = generator(torch.randn(3, 5), labels)
    assert images.shape == (3, *spec.shape)
    assert images.abs().max() <= 1
    scores = critic(images, labels)
    assert scores.shape == (3,)
    scores.sum().backward()
    for network in (generator, critic):
        for parameter_name, parameter in network.named_parameters():
            assert parameter.grad is not None, parameter_name
            assert torch.isfinite(parameter.grad).all(), parameter_name


@pytest.mark.parametrize("spec", [ImageSpec(3, 16, 16, classes=3), ImageSpec(3, 16, 16, conditions=2)], ids=str)
def test_labels_change_images_and_scores_once_learnt(spec: ImageSpec) -> None:
    torch.manual_seed(0)
    generator = gankit.build("generator", "resnet", spec, width=8)
    critic = gankit.build("critic", "resnet", spec, width=8)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    z = torch.randn(1, 128).expand(2, -1)
    labels = torch.tensor([0, 2]) if spec.classes else torch.tensor([[0.0, 1.0], [2.0, -1.0]])
    images = generator(z, labels)
    assert not torch.allclose(images[0], images[1], atol=1e-3)
    same = images[:1].expand(2, -1, -1, -1)
    scores = critic(same, labels)
    assert not torch.isclose(scores[0], scores[1])
    with pytest.raises(PartError, match="give it labels"):
        generator(z)
    with pytest.raises(PartError, match="give it labels"):
        critic(same)


def test_before_training_conditional_normalisation_is_plain() -> None:
    x = torch.randn(4, 6, 5, 5)
    for spec, labels in (
        (ImageSpec(1, 8, 8, classes=3), torch.tensor([0, 1, 2, 0])),
        (ImageSpec(1, 8, 8, conditions=2), torch.randn(4, 2)),
    ):
        torch.testing.assert_close(Norm("batch", 6, spec)(x, labels), nn.BatchNorm2d(6)(x))
        torch.testing.assert_close(Norm("layer", 6, spec)(x, labels), nn.GroupNorm(1, 6)(x))


def test_projection_is_an_inner_product_with_the_features() -> None:
    """Miyato and Koyama 2018, equation 4: f(x, y) = linear(phi(x)) + <e(y), phi(x)>."""
    critic = gankit.build("critic", "resnet", ImageSpec(3, 16, 16, classes=3), width=4)
    images, labels = torch.randn(5, 3, 16, 16), torch.tensor([0, 1, 2, 1, 0])
    features = critic.features(images)
    embedded = dict(critic.named_parameters())["projection.table.weight"][labels]
    expected = critic.linear(features)[:, 0] + (embedded * features).sum(1)
    torch.testing.assert_close(critic(images, labels), expected)


def test_a_class_head_stands_on_the_features() -> None:
    image = ImageSpec(3, 16, 16, classes=3)
    torch.manual_seed(0)
    plain = gankit.build("critic", "resnet", image, width=4)
    torch.manual_seed(0)
    critic = gankit.build("critic", "resnet", image, width=4, class_head=True)
    assert isinstance(critic, ClassHead)
    assert not isinstance(plain, ClassHead)
    state = plain.state_dict()
    added = {name: value for name, value in critic.state_dict().items() if name not in state}
    assert {name: tuple(value.shape) for name, value in added.items()} == {
        "logits.linear.weight": (3, 4), "logits.linear.bias": (3,),
    }  # fmt: skip
    for name, value in state.items():
        assert torch.equal(critic.state_dict()[name], value), f"{name} starts elsewhere"
    images, labels = torch.randn(5, 3, 16, 16), torch.tensor([0, 1, 2, 1, 0])
    features = critic.features(images)
    expected = features @ added["logits.linear.weight"].T + added["logits.linear.bias"]
    torch.testing.assert_close(critic.class_logits(features), expected)
    torch.testing.assert_close(critic(images, labels), plain(images, labels))
    copied = copy.deepcopy(critic)
    with torch.no_grad():
        copied.logits.linear.bias.add_(1)
    torch.testing.assert_close(copied.class_logits(features), expected + 1)  # the copy's own head


def test_a_copy_has_hooks_of_its_own_and_shares_what_was_shared() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    network[0].notes = network[1].notes = OrderedDict()
    twin = copied(network)
    twin[0].register_forward_hook(lambda *_: torch.full((1, 2), 7.0))
    assert twin[0](torch.zeros(1, 2)).tolist() == [[7, 7]]
    assert network[0](torch.zeros(1, 2)).tolist() != [[7, 7]]
    assert twin[0].notes is twin[1].notes is not network[0].notes


def test_a_class_head_can_stand_in_for_the_projection() -> None:
    image = ImageSpec(3, 16, 16, classes=3)
    critic = gankit.build("critic", "resnet", image, width=4, class_head=True, projection=False)
    assert critic.projection is None
    images = torch.randn(3, 3, 16, 16)
    assert torch.equal(critic(images, torch.tensor([0, 1, 2])), critic(images))
    with pytest.raises(PartError, match="would ignore the labels"):
        gankit.build("critic", "resnet", image, width=4, projection=False)
    for spec in (ImageSpec(3, 16, 16), ImageSpec(3, 16, 16, conditions=2)):
        with pytest.raises(PartError, match="class_head needs classes"):
            gankit.build("critic", "resnet", spec, width=4, class_head=True)


def test_layer_normalisation_is_over_all_of_a_sample_with_gain_per_channel() -> None:
    critic = gankit.build("critic", "resnet", ImageSpec(3, 16, 16), width=4, norm="layer")
    norms = [module for module in critic.modules() if isinstance(module, nn.GroupNorm)]
    assert norms
    assert {(norm.num_groups, norm.eps, norm.weight.shape) for norm in norms} == {(1, 1e-5, torch.Size([4]))}
    assert not mixes_samples(critic, (3, 16, 16), ImageSpec(3, 16, 16))


def test_spectral_normalisation_bounds_every_layer() -> None:
    torch.manual_seed(0)
    critic = gankit.build("critic", "resnet", ImageSpec(3, 16, 16, classes=2), width=4, spectral=True)
    for _ in range(60):  # power iterations
        critic(torch.randn(2, 3, 16, 16), torch.tensor([0, 1]))
    critic.eval()
    checked = 0
    for module in critic.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.Embedding)):
            top = torch.linalg.matrix_norm(module.weight.flatten(1), ord=2)
            assert top.item() == pytest.approx(1, abs=0.02)
            checked += 1
    assert checked == 9


def test_spectral_normalisation_iterates_on_no_network_that_is_only_sized(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_SpectralNorm, "_power_method", lambda *_: pytest.fail("there are no values"))
    with torch.device("meta"):
        critic = gankit.build("critic", "resnet", ImageSpec(3, 16, 16), width=4, spectral=True)
    assert parameters(critic) == parameters(gankit.build("critic", "resnet", ImageSpec(3, 16, 16), width=4))


@given(base=st.integers(4, 7), k=st.integers(0, 6), times=st.integers(1, 5), flat=st.booleans())
def test_pyramid_takes_what_it_says(base: int, k: int, times: int, flat: bool) -> None:
    short = base << k
    long = max(short, (times + 3) << k)
    spec = ImageSpec(1, short, long) if flat else ImageSpec(1, long, short)
    levels, height, width = pyramid(spec, "test")
    assert levels == k
    assert (height << k, width << k) == (spec.height, spec.width)
    assert min(height, width) == base


@settings(max_examples=50)
@given(height=st.integers(1, 300), width=st.integers(1, 300))
def test_pyramid_refuses_the_rest_and_names_sizes_that_fit(height: int, width: int) -> None:
    fits = any(
        min(height, width) in (4 << k, 5 << k, 6 << k, 7 << k) and max(height, width) % (1 << k) == 0 for k in range(9)
    )
    if fits:
        pyramid(ImageSpec(1, height, width), "test")
        return
    with pytest.raises(PartError, match=r"data\.size, for example") as caught:
        pyramid(ImageSpec(1, height, width), "test")
    for side in str(caught.value).rsplit("example ", 1)[1].split(" or "):
        pyramid(ImageSpec(1, int(side), int(side)), "test")


def test_sizes_near_a_large_one_are_named() -> None:
    with pytest.raises(PartError, match="for example 4096 or 5120"):
        pyramid(ImageSpec(1, 5001, 5001), "test")


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("generator", {"widths": [4, 4]}, "generator.widths has 2 numbers; a 16x16 image takes 3"),
        (
            "critic",
            {"widths": [4] * 5},
            "halves the image 5 times, .+: give critic.widths at most 4 numbers, or",
        ),
        ("critic", {"norm": "batch"}, "norm"),
        ("generator", {"width": 0}, "width"),
    ],
)
def test_settings_that_cannot_work(kind: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(PartError, match=message):
        gankit.build(kind, "resnet", ImageSpec(3, 16, 16), **settings)


def test_a_critic_that_cannot_halve_an_odd_image_says_what_works() -> None:
    image = ImageSpec(1, 5, 7)
    advice = r"halves the image 1 time, which 5x7 does not allow: set critic.stem=conv and critic.widths=\[8\], or"
    with pytest.raises(PartError, match=advice):
        gankit.build("critic", "resnet", image, width=8)
    with pytest.raises(PartError, match=r"give critic\.widths at most 1 number, or"):
        gankit.build("critic", "resnet", image, width=8, stem="conv")
    critic = gankit.build("critic", "resnet", image, stem="conv", widths=[8])
    assert critic(torch.rand(2, 1, 5, 7)).shape == (2,)


@pytest.mark.parametrize(
    ("side", "fitting"),
    [
        (28, r"32,"),  # not 56, for which 28x28 pictures would be blown up
        (64, r"32,"),
        (112, r"56,"),
    ],
)
def test_the_size_for_too_many_or_too_few_widths_is_near_that_of_the_images(side: int, fitting: str) -> None:
    with pytest.raises(PartError, match=rf"set data\.size={fitting}"):
        gankit.build("generator", "resnet", ImageSpec(3, side, side), widths=[4] * 4)


def test_a_generator_without_normalisation_refuses_labels() -> None:
    with pytest.raises(PartError, match=r"generator\.norm to batch or layer"):
        gankit.build("generator", "resnet", ImageSpec(3, 16, 16, classes=2), norm="none")


class Draws(nn.Module):
    """Mixes nothing but draws."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(3 * 64, 1))

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        scores: Tensor = self.layers(images)
        return scores


class MinibatchStatistics(Draws):
    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        return super().forward(images, labels) + images.std(0).mean()


class ZeroHead(nn.Module):
    """Mixes, which its last layer hides until it has been trained."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = nn.BatchNorm2d(3), nn.Linear(3 * 64, 1)
        nn.init.zeros_(self.head.weight)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        scores: Tensor = self.head(self.norm(images).flatten(1))
        return scores


@pytest.mark.parametrize(
    ("make", "mixes"),
    [
        (lambda: gankit.build("critic", "resnet", ImageSpec(3, 8, 8), width=4), False),
        (lambda: gankit.build("critic", "resnet", ImageSpec(3, 8, 8), width=4, spectral=True), False),
        (lambda: gankit.build("critic", "dcgan", ImageSpec(3, 16, 16), width=4, norm="layer"), False),
        (lambda: gankit.build("critic", "dcgan", ImageSpec(3, 16, 16), width=4), True),
        (Draws, False),
        (MinibatchStatistics, True),
        (ZeroHead, True),
    ],
)
def test_critics_that_mix_samples_are_found_and_left_untouched(make: Callable[[], nn.Module], mixes: bool) -> None:
    critic = make()
    spec = ImageSpec(3, 8, 8) if not isinstance(critic, registry("critic").get("dcgan")) else ImageSpec(3, 16, 16)
    before = {name: value.clone() for name, value in critic.state_dict().items()}
    state = torch.random.get_rng_state()
    assert mixes_samples(critic, spec.shape, spec) is mixes
    assert all(torch.equal(value, before[name]) for name, value in critic.state_dict().items())
    torch.random.set_rng_state(state)


class Switched(Critic):
    """Mixes samples unless a switch and the type of a norm say otherwise; its numbers have nothing to do with it."""

    def __init__(self, image: ImageSpec, *, width: int = 4, mix: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(image.channels * image.height * image.width, width)
        self.mix = mix

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        x = self.linear(images.flatten(1))
        return (x - x.mean(0) if self.mix else x).sum(1)


class Stubborn(Switched):
    """Mixes samples whatever its settings, and one of them breaks it."""

    def __init__(self, image: ImageSpec, *, width: int = 4, whole: bool = True) -> None:
        if not whole:
            raise RuntimeError("broken")
        super().__init__(image, width=width)


@pytest.mark.parametrize(("part", "setting"), [(Switched, "mix=false"), (Stubborn, None)])
def test_the_setting_without_which_a_critic_mixes_samples_is_found(part: type[Critic], setting: str | None) -> None:
    registry("critic").register(part.__name__.lower())(part)
    assert setting_without_mixing(read_part("critic", part.__name__.lower()), ImageSpec(3, 8, 8)) == setting


@pytest.mark.parametrize("loss", ["gradient-penalty", "r1", "r2"])
def test_a_critic_that_mixes_is_refused_together_with_a_per_sample_penalty(loss: str) -> None:
    experiment = gankit.load("dcgan", f'losses=["hinge", "{loss}"]')
    with pytest.raises(PartError, match=f"critic.norm: critic dcgan mixes .* loss {loss} .* critic.norm=layer, or"):
        build(experiment, ImageSpec(3, 64, 64))
    build(gankit.load(experiment, "critic.norm=layer"), ImageSpec(3, 64, 64))


def test_initial_weights_depend_on_the_seed_alone() -> None:
    spec = ImageSpec(3, 8, 8)
    torch.manual_seed(1)
    first = build(gankit.load("wgan-gp", "generator.width=4", "critic.width=4"), spec).generator.state_dict()
    torch.manual_seed(2)
    second = build(gankit.load("wgan-gp", "generator.width=4", "critic.width=4"), spec).generator.state_dict()
    other = build(gankit.load("wgan-gp", "generator.width=4", "critic.width=4", "training.seed=1"), spec)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(other.generator.state_dict()["linear.weight"], first["linear.weight"])


def test_block_convolutions_start_with_the_papers_spread() -> None:
    """Gulrajani et al.: uniform with std sqrt(4 / (fan_in + fan_out)) inside blocks; Glorot elsewhere; zero biases."""
    torch.manual_seed(0)
    generator = gankit.build("generator", "resnet", ImageSpec(3, 32, 32))
    weights = dict(generator.named_parameters())
    for name, fan, gain in (("blocks.0.conv1", 9 * 256, 4), ("blocks.0.shortcut", 256, 2), ("linear", 128 + 2048, 2)):
        assert weights[f"{name}.weight"].std().item() == pytest.approx((gain / fan) ** 0.5, rel=0.02)
        assert not weights[f"{name}.bias"].any()


def test_the_sum_head_is_the_mean_head_times_the_pixels() -> None:
    torch.manual_seed(0)
    mean = gankit.build("critic", "resnet", ImageSpec(1, 16, 16), width=4, head="mean")
    total = gankit.build("critic", "resnet", ImageSpec(1, 16, 16), width=4, head="sum")
    total.load_state_dict(mean.state_dict())
    images = torch.rand(3, 1, 16, 16)
    torch.testing.assert_close(total.features(images), 64 * mean.features(images))
