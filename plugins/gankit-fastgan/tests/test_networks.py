"""Generator and critic: shapes, sizes, refusals, parameter counts, and what an image depends on."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import gankit
import pytest
import torch
from gankit.errors import PartError
from gankit.interfaces import FeatureCritic, ImageSpec
from gankit.nn.noise import Noise

from gankit_fastgan import FastGANCritic, FastGANGenerator, Reconstructs

SIZES = [(16, 16), (28, 28), (24, 48), (32, 32), (64, 64), (128, 128), (256, 256), (40, 56), (32, 96), (128, 64)]
README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def count(module):
    """Number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES)
def test_shapes(size, channels):
    """Square, rectangular, other sizes than powers of two, grey and colour."""
    image = ImageSpec(channels, *size)
    generator, critic = FastGANGenerator(image, width=2, latent_dim=5), FastGANCritic(image, width=2)
    with torch.no_grad():
        images = generator(torch.randn(3, 5))
        assert images.shape == (3, *image.shape)
        assert images.abs().max() <= 1
        larger, last, second = features = critic.features(images)
        assert second.shape == last.shape
        levels = min(size).bit_length() - 3
        halvings = max(levels - 1, 2)
        assert last.shape[2:] == tuple(side >> halvings for side in size)
        assert larger.shape[2:] == tuple(2 * side for side in last.shape[2:])
        least = 8 if min(size) >= 32 else 4
        assert least <= min(last.shape[2:]) < 2 * least
        assert critic(images).shape == (3, 2, last.shape[2] - 3, last.shape[3] - 3)
        corners = torch.rand(3, 2)
        made, shown = critic.reconstruct(features, corners), critic.shown(images, corners)
        for a, b in zip(made, shown, strict=True):
            assert a.shape == b.shape
            assert a.abs().max() <= 1
        factor = max(1, 2 ** (levels - 5))  # at 256 and above the whole image is shown at 128, as in the paper
        assert made[0].shape[2:] == tuple(side // factor for side in size)


@pytest.mark.parametrize("side", [8, 16])
def test_generator_makes_smaller_images(side):
    """Down to 8 pixels, with the one gate that fits."""
    generator = FastGANGenerator(ImageSpec(1, side, side), width=2, latent_dim=5)
    assert generator(torch.randn(2, 5)).shape == (2, 1, side, side)
    assert len(generator.gates) == 1


def test_gates_are_sixteen_times_apart():
    """4 to 64, 8 to 128, 16 to 256; `reach` changes the distance."""
    image = ImageSpec(3, 256, 256)
    generator = FastGANGenerator(image, width=4)
    shapes = [(gate.squeeze.in_channels, gate.squeeze.out_channels) for gate in generator.gates]
    assert shapes == [(64, 4), (32, 3), (16, 3)]
    assert len(FastGANGenerator(image, width=4, reach=2).gates) == 5


def test_a_gate_acts_on_its_map():
    """A gate that is shut leaves nothing of the last map, so that the image is the same for all latents."""
    generator = FastGANGenerator(ImageSpec(3, 64, 64), width=2, latent_dim=5, spectral=False).eval()
    z = torch.randn(2, 5)
    assert not torch.equal(*generator(z))
    torch.nn.init.constant_(generator.gates[0].excite.bias, -1e9)
    assert torch.equal(*generator(z))


@pytest.mark.parametrize(
    ("part", "image", "message"),
    [
        (FastGANGenerator, ImageSpec(3, 36, 36), "generator fastgan does not fit images 36 high and 36 wide"),
        (FastGANGenerator, ImageSpec(3, 4, 4), "generator fastgan does not fit images of 4x4"),
        (FastGANCritic, ImageSpec(3, 36, 36), "critic fastgan does not fit images 36 high and 36 wide"),
        (FastGANCritic, ImageSpec(3, 14, 14), "critic fastgan does not fit images of 14x14"),
        (FastGANCritic, ImageSpec(3, 12, 64), "critic fastgan does not fit images of 12x64"),
    ],
)
def test_refuses_in_one_line(part, image, message):
    """What it cannot do, and what to do."""
    with pytest.raises(PartError, match=f"^{message}.*: .*set data") as caught:
        part(image)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", [FastGANGenerator, FastGANCritic])
def test_parameter_counts_are_those_of_docstring_and_readme(part):
    """At 64x64 in the docstring; at three sizes in the README."""
    with torch.device("meta"):
        counts = {side: f"{count(part(ImageSpec(3, side, side))):,}" for side in (64, 128, 256)}
    assert f"{counts[64]} parameters" in re.sub(r"\s+", " ", part.__doc__)
    row = next(line for line in README.splitlines() if line.startswith(f"| {part.__name__[7:].lower()} |"))
    assert [cell.strip() for cell in row.split("|")[2:5]] == list(counts.values())


def test_the_second_branch_sees_less_detail():
    """Half the side, and 128 pixels at most: what averaging removes changes the first branch's scores alone."""
    for side, cell in ((32, 2), (64, 2), (256, 2), (512, 4)):
        critic = FastGANCritic(ImageSpec(1, side, side), width=1, norm="none").eval()
        assert critic.reduction == cell
    critic = FastGANCritic(ImageSpec(1, 32, 32), width=4, norm="none").eval()
    images = torch.randn(2, 1, 16, 16).repeat_interleave(2, 2).repeat_interleave(2, 3)
    detail = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(16, 16)
    before, after = critic(images), critic(images + detail)
    torch.testing.assert_close(before[:, 1], after[:, 1])
    assert not torch.allclose(before[:, 0], after[:, 0])
    alone = FastGANCritic(ImageSpec(1, 32, 32), width=4, second=False)
    assert alone(images).shape == (2, 1, 5, 5)


@pytest.mark.parametrize("labels", [torch.tensor([0, 1, 2]), torch.tensor([[1.0, -1.0], [0.5, 2.0], [-1.5, 0.5]])])
def test_labels_matter(labels):
    """Classes or conditions: through every normalisation of the generator, through projection in either branch."""
    kind = {"conditions": 2} if labels.is_floating_point() else {"classes": 3}
    image = ImageSpec(3, 32, 32, **kind)
    generator = FastGANGenerator(image, width=2, latent_dim=5, noise=False).eval()
    critic = FastGANCritic(image, width=2, norm="none").eval()
    for network in (generator, critic):
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, 0.1, 0.3)
    z = torch.randn(1, 5).expand(3, 5)
    images = generator(z, labels)
    assert not torch.allclose(images[0], images[1])
    scores = critic(images[:1].expand(3, -1, -1, -1), labels)
    for branch in (0, 1):
        assert not torch.allclose(scores[0, branch], scores[1, branch])
        spread = scores[1, branch] - scores[0, branch]
        torch.testing.assert_close(spread, spread.mean().expand(5, 5), rtol=1e-3, atol=1e-5)  # the same everywhere


def test_spectral_normalisation_leaves_out_gains():
    """They would shrink with the number of classes."""
    generator = FastGANGenerator(ImageSpec(3, 32, 32, classes=50), width=2)
    normalised = {
        name.rpartition(".parametrizations")[0] for name, _ in generator.named_parameters() if "parametr" in name
    }
    assert normalised
    assert not any("gain" in name or "shift" in name for name in normalised)
    assert {"linear", "conv", "blocks.0.conv", "gates.0.squeeze"} <= normalised


def test_decoders_are_counted_apart():
    """In the critic's docstring."""
    critic = FastGANCritic(ImageSpec(3, 64, 64))
    assert f"{count(critic.wholes) + count(critic.part):,} of them" in re.sub(r"\s+", " ", FastGANCritic.__doc__)


def test_critic_has_the_abilities():
    """Of a critic whose features losses read, and that draws them."""
    critic = FastGANCritic(ImageSpec(3, 32, 32), width=2)
    assert isinstance(critic, FeatureCritic)
    assert isinstance(critic, Reconstructs)


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
def test_only_batch_normalisation_mixes_samples(norm):
    """In training the score of an image depends on its neighbours with "batch" alone."""
    critic = FastGANCritic(ImageSpec(3, 32, 32), width=4, norm=norm, spectral=False)
    images = torch.rand(4, 3, 32, 32) * 2 - 1
    others = torch.cat([images[:1], images[1:] / 5])
    alike = torch.allclose(critic(images)[0], critic(others)[0], rtol=1e-4, atol=1e-6)
    assert alike == (norm != "batch")


def test_spectral_normalisation_leaves_out_the_decoders():
    """Scores do not depend on them."""
    critic = FastGANCritic(ImageSpec(3, 32, 32), width=2)
    normalised = {name.split(".")[0] for name, _ in critic.named_parameters() if "parametrizations" in name}
    assert normalised == {"encoders", "heads"}
    plain = FastGANCritic(ImageSpec(3, 32, 32), width=2, spectral=False)
    assert not any("parametrizations" in name for name, _ in plain.named_parameters())


def noisy(side=32):
    """A generator whose noise matters."""
    generator = FastGANGenerator(ImageSpec(3, side, side), width=2, latent_dim=5)
    for module in generator.modules():
        if isinstance(module, Noise):
            torch.nn.init.constant_(module.factor, 1.0)
    return generator


def test_noise_in_training_comes_from_torch_s_own_generator():
    """The trainer seeds it before every turn."""
    generator, z = noisy(), torch.randn(4, 5)
    torch.manual_seed(1)
    first = generator(z)
    assert not torch.allclose(generator(z), first, atol=1e-3)
    # Spectral normalisation goes on estimating with each pass, so that a fresh copy is needed for equal values.
    copies = [noisy(), noisy()]
    copies[1].load_state_dict(copies[0].state_dict())
    images = []
    for one in copies:
        torch.manual_seed(1)
        images.append(one(z))
    assert torch.equal(*images)


def test_no_noise_where_it_is_switched_off():
    """`noise = false`."""
    generator = FastGANGenerator(ImageSpec(3, 32, 32), noise=False)
    assert not any(isinstance(module, Noise) for module in generator.modules())


def test_a_sampled_image_depends_on_its_latent_alone():
    """Neither on its neighbours nor on torch's generator."""
    generator, z = noisy().eval(), torch.randn(70, 5)
    with torch.no_grad():
        together = generator(z)
        torch.manual_seed(9)
        alone = torch.cat([generator(z[i : i + 1]) for i in (0, 1, 69)])
    torch.testing.assert_close(together[[0, 1, 69]], alone, rtol=1e-5, atol=1e-5)
    assert torch.equal(generator(z[:3]), generator(z[:3]))


def started(tmp_path, *settings):
    """The parameters of the critics of runs, each of which starts from the one before and learns nothing."""
    small = (
        "data.subset=16", "data.counts=[5, 5, 10]", "generator.width=2", "generator.latent_dim=6", "critic.width=2",
        "training.batch=4", "training.steps=1", "training.critic_lr=1e-30", "training.device=cpu",
        "training.threads=1",
    )  # fmt: skip
    recipe, runs = Path(__file__).parents[1] / "fastgan.toml", []
    for number, more in enumerate(settings):
        start = [f"training.start_from={runs[-1].path}"] if runs else []
        runs.append(gankit.train(gankit.load(recipe, *small, *more, *start), tmp_path / str(number)))
    return [dict(run.critic.named_parameters()) for run in runs]


def test_a_run_that_starts_from_another_takes_each_branch_s_weights(tmp_path):
    """With the second branch, then without, then with it."""
    settings = (["data.size=32", f"critic.second={second}"] for second in ("true", "false", "true"))
    for old, new in pairwise(started(tmp_path, *settings)):
        shared = [name for name in old if name in new]
        assert len(shared) == min(len(old), len(new)) < max(len(old), len(new))
        assert all(torch.allclose(old[name], new[name], rtol=0, atol=1e-20) for name in shared)


@pytest.mark.parametrize("sides", [(28, 64, 32), (16, 64)])
def test_a_run_with_images_of_another_size_takes_the_layers_of_the_same_level(sides, tmp_path):
    """The blocks of both encoders, and of the decoders, that have as many pixels as before."""
    for old, new in pairwise(started(tmp_path, *([f"data.size={side}"] for side in sides))):
        shared = [name for name in old if ".level" in name and name in new]
        assert {name.split(".")[0] for name in shared} >= {"encoders", "wholes"}
        assert all(torch.allclose(old[name], new[name], rtol=0, atol=1e-20) for name in shared)
