"""Generator and critic: published parameter counts, sizes, styles, truncation, labels, refusals."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from gankit.errors import PartError
from gankit.interfaces import FeatureCritic, ImageSpec, Truncates

from gankit_stylegan2 import MapsLatents, StyleGAN2Critic, StyleGAN2Generator

SIZES = [(28, 28), (32, 32), (48, 48), (64, 64), (96, 96), (128, 128), (256, 256), (40, 56), (32, 96), (128, 64)]
SMALL = {"width": 2, "max_width": 4, "latent_dim": 5, "style_dim": 6, "mapping_layers": 2}
README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def count(part, side, **settings):
    """Number of parameters of a network for colour images."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in part(ImageSpec(3, side, side), **settings).parameters())


@pytest.mark.parametrize(
    ("side", "settings", "generator", "critic"),
    [
        (256, {}, 30_034_338, 28_864_129),  # config F
        (1024, {}, 30_370_060, 29_012_513),  # config F, as published for FFHQ
        (256, {"width": 256}, 24_767_458, 24_001_089),  # arXiv 2501.05441, table 2, config A: 24.767M and 24.001M
    ],
)
def test_parameter_counts_are_the_published_ones(side, settings, generator, critic):
    """Every weight, bias and factor of noise."""
    assert count(StyleGAN2Generator, side, **settings) == generator
    assert count(StyleGAN2Critic, side, **settings) == critic


@pytest.mark.parametrize("part", [StyleGAN2Generator, StyleGAN2Critic])
def test_parameter_counts_are_those_of_docstring_and_readme(part):
    """At 256x256 in the docstring; at three sizes in the README."""
    counts = {side: f"{count(part, side):,}" for side in (64, 128, 256)}
    assert f"{counts[256]} parameters" in re.sub(r"\s+", " ", part.__doc__)
    row = next(line for line in README.splitlines() if line.startswith(f"| {part.__name__[9:].lower()} |"))
    assert [cell.strip() for cell in row.split("|")[2:5]] == list(counts.values())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES)
def test_shapes(size, channels):
    """Square, rectangular, other sizes than powers of two, grey and colour."""
    image = ImageSpec(channels, *size)
    generator, critic = StyleGAN2Generator(image, **SMALL), StyleGAN2Critic(image, width=2, max_width=4)
    with torch.no_grad():
        images = generator(torch.randn(2, 5))
        assert images.shape == (2, *image.shape)
        assert images.abs().max() <= 1
        assert critic(images).shape == (2,)


@pytest.mark.parametrize("part", [StyleGAN2Generator, StyleGAN2Critic])
def test_refuses_sizes_that_do_not_fit(part):
    """In one line that says what to do."""
    with pytest.raises(
        PartError, match=r"stylegan2 does not fit images 36 high and 36 wide: .*set data\.size"
    ) as caught:
        part(ImageSpec(3, 36, 36))
    assert "\n" not in str(caught.value)


def built(image=None, **settings):
    """A small generator whose noise matters."""
    torch.manual_seed(0)
    generator = StyleGAN2Generator(image or ImageSpec(3, 16, 16), **{**SMALL, **settings})
    for layer in generator.layers:
        torch.nn.init.constant_(layer.noise.factor, 0.3)
    return generator


def test_has_the_abilities():
    """Of a generator that maps latents and truncates, and of a critic whose features losses read."""
    assert isinstance(built(), MapsLatents)
    assert isinstance(built(), Truncates)
    assert isinstance(StyleGAN2Critic(ImageSpec(3, 8, 8), width=2), FeatureCritic)


def test_images_are_a_synthesis_of_mapped_latents():
    """In evaluation the style of every layer is that of the latent."""
    generator, z = built().eval(), torch.randn(3, 5)
    styles = generator.mapping(z)[:, None].expand(-1, generator.style_layers, -1)
    assert generator.style_layers == 6
    assert torch.equal(generator(z), generator.synthesis(styles))


def test_every_layer_listens_to_its_own_style():
    """Each of the style layers changes the image; the first changes nothing that comes before it."""
    generator = built().eval()
    styles = torch.randn(1, generator.style_layers, 6)
    image = generator.synthesis(styles)
    for layer in range(generator.style_layers):
        changed = styles.clone()
        changed[:, layer] += 1
        assert not torch.allclose(generator.synthesis(changed), image, atol=1e-4), layer


def test_styles_are_mixed_in_training_alone():
    """Later layers from a second latent, with the given probability, sample by sample."""
    generator = built(mixing=0.5)
    style = generator.mapping(torch.randn(400, 5))
    styles = generator._mixed(style, None)
    own = (styles == style[:, None]).all(2)
    assert own[:, 0].all(), "the first layer always has the sample's own style"
    mixed = ~own[:, -1]
    assert 0.4 < mixed.float().mean() < 0.6
    first = own[mixed].sum(1)
    assert sorted(first.unique().tolist()) == [1, 2, 3, 4, 5]
    assert torch.equal(own, torch.arange(6) < own.sum(1, keepdim=True)), "one change of style a sample"
    generator = built(mixing=0.0, noise=True)
    torch.manual_seed(1)
    with torch.no_grad():
        torch.manual_seed(1)
        first, style = generator(torch.ones(2, 5)), generator.mapping(torch.ones(2, 5))
        torch.manual_seed(1)
        assert torch.equal(first, generator.synthesis(style[:, None].expand(-1, 6, -1)))


def test_truncation_draws_styles_towards_their_mean():
    """The mean follows the styles of training; 0 gives the mean's image, 1 changes nothing."""
    generator = built(ImageSpec(3, 4, 4), mixing=0.0)
    with torch.no_grad():
        for _ in range(800):
            generator(torch.randn(32, 5))
        z = torch.randn(300, 5)
        styles = generator.eval().mapping(z)
        assert (generator.mean_style - styles.mean(0)).norm() < 0.3 * (styles - styles.mean(0)).norm(dim=1).mean()
        mean = generator.synthesis(generator.mean_style.expand(1, 2, -1))
        torch.testing.assert_close(generator.truncated(0.0)(z[:2]), mean.expand(2, -1, -1, -1))
        two = generator.mapping(z[:2])  # of as many rows as below: a matrix product of more may round otherwise
        half = torch.lerp(generator.mean_style, two, 0.5)[:, None].expand(-1, 2, -1)
        assert torch.equal(generator.truncated(0.5)(z[:2]), generator.synthesis(half))
        assert torch.equal(generator.truncated(1.0)(z[:2]), generator(z[:2]))
        assert generator.truncation == 1.0, "the original is as it was"


@pytest.mark.parametrize("image", [ImageSpec(3, 8, 8, classes=3), ImageSpec(3, 8, 8, conditions=2)], ids=str)
def test_labels_act_through_mapping_and_projection(image):
    """Other labels, other styles; the score has <e(label), features> over the root of their number."""
    generator, critic = built(image).eval(), StyleGAN2Critic(image, width=2, max_width=4).eval()
    labels = torch.tensor([0, 2]) if image.classes else torch.tensor([[0.0, 1.0], [2.0, -1.0]])
    z = torch.randn(1, 5).expand(2, -1)
    assert not torch.allclose(*generator.mapping(z, labels), atol=1e-3)
    images = generator(z, labels)
    features = critic.features(images)
    expected = critic.linear(features)[:, 0] + (critic.projection(labels) * features).sum(1) / 2
    torch.testing.assert_close(critic(images, labels), expected)
    for network, inputs in ((generator, z), (critic, images)):
        with pytest.raises(PartError, match="give it labels"):
            network(inputs)


def test_the_size_of_a_condition_acts():
    """Not its direction alone, although what is made of labels is normalised."""
    generator, z = built(ImageSpec(3, 8, 8, conditions=1)).eval(), torch.randn(1, 5).expand(3, -1)
    styles = generator.mapping(z, torch.tensor([[0.0], [0.5], [1.0]]))
    assert torch.pdist(styles).min() > 0.01 * styles.norm(dim=1).mean()


@pytest.mark.parametrize("image", [ImageSpec(3, 8, 8, classes=3), ImageSpec(3, 8, 8, conditions=2)], ids=str)
def test_labels_have_an_equalised_rate(image):
    """What is made of them is drawn from a standard normal distribution, as all other weights."""
    torch.manual_seed(0)
    for parameter in StyleGAN2Generator(image, style_dim=512).embedding.parameters():
        assert parameter.std().item() == pytest.approx(1, rel=0.1)


def test_only_statistics_of_the_minibatch_mix_samples():
    """In training and with groups; never in evaluation."""
    images = torch.rand(4, 3, 16, 16) * 2 - 1
    others = torch.cat([images[:1], images[1:] / 5])
    for group, training, alike in ((4, True, False), (1, True, True), (4, False, True)):
        torch.manual_seed(0)
        critic = StyleGAN2Critic(ImageSpec(3, 16, 16), width=4, group=group).train(training)
        assert torch.allclose(critic(images)[0], critic(others)[0], rtol=1e-4, atol=1e-6) == alike
