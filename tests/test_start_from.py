"""`training.start_from`: each layer begins with the weights of the layer that does the same in the other run."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import gankit
from gankit.errors import RunError
from gankit.interfaces import ImageSpec
from gankit.training.start import _load_matching


def build(kind: Literal["generator", "critic"], name: str, side: int, **settings: Any) -> Any:
    """A network of little width for colour images."""
    return gankit.build(kind, name, ImageSpec(3, side, side), width=4, **settings)


def taken(new: nn.Module, old: nn.Module, kind: str) -> dict[str, str]:
    """The convolution and linear weights of `new` that come from `old`, and which of its weights each is."""
    fresh = _load_matching(new, kind, {kind: old.state_dict()}, Path("first"))
    weights = {key: value for key, value in old.state_dict().items() if value.dim() > 1}
    found = {}
    for key, value in new.state_dict().items():
        if value.dim() > 1 and key not in fresh:
            found[key] = next(name for name, weight in weights.items() if torch.equal(weight, value))
    return found


def halving(n: int, saved: int) -> dict[str, str]:
    """The weights of a block that halves the map."""
    return {f"blocks.{n}.{part}.weight": f"blocks.{saved}.{part}.weight" for part in ("conv1", "conv2", "shortcut")}


def flat(n: int, saved: int) -> dict[str, str]:
    """The weights of a block that keeps the map's size."""
    return {f"blocks.{n}.{part}.weight": f"blocks.{saved}.{part}.weight" for part in ("conv1", "conv2")}


@pytest.mark.parametrize(
    ("sides", "flats", "blocks"),
    [
        ((32, 32), (2, 0), halving(0, 0)),
        ((32, 32), (0, 2), halving(0, 0)),
        ((32, 64), (2, 0), halving(1, 0)),
        ((64, 32), (0, 2), halving(0, 1)),
        ((32, 64), (2, 1), halving(1, 0) | flat(2, 2)),
        ((32, 64), (2, 2), halving(1, 0) | flat(2, 1) | flat(3, 2)),
    ],
)
def test_blocks_that_halve_do_not_become_blocks_that_keep_the_size(
    sides: tuple[int, int], flats: tuple[int, int], blocks: dict[str, str]
) -> None:
    old, new = (build("critic", "resnet", side, flat_blocks=n) for side, n in zip(sides, flats, strict=True))
    found = taken(new, old, "critic")
    assert {key: name for key, name in found.items() if key.startswith("blocks.")} == blocks


@pytest.mark.parametrize("norms", [("batch", "none"), ("none", "batch"), ("layer", "batch")])
def test_convolutions_are_found_where_a_setting_adds_or_removes_normalisations(norms: tuple[str, str]) -> None:
    old, new = (build("critic", "dcgan", 64, norm=norm) for norm in norms)
    convolutions = [[key for key, value in network.state_dict().items() if value.dim() == 4] for network in (new, old)]
    assert taken(new, old, "critic") == dict(zip(*convolutions, strict=True))


@pytest.mark.parametrize("kind", ["generator", "critic"])
@pytest.mark.parametrize("sides", [(32, 64), (128, 64)])
def test_widths_that_belong_to_the_image_s_side_are_counted_from_there(
    kind: Literal["generator", "critic"], sides: tuple[int, int]
) -> None:
    """DCGAN has its `width` next to the image: counted from the smallest map, none of its layers fits another size."""
    old, new = (build(kind, "dcgan", side) for side in sides)
    smaller = min(len(network.layers) for network in (old, new))
    assert len(taken(new, old, kind)) >= sum(isinstance(layer, nn.Conv2d) for layer in old.layers[: smaller - 1]) - 1


@pytest.mark.parametrize("spectral", [(True, False), (False, True)])
@pytest.mark.parametrize("name", ["resnet", "dcgan"])
def test_weights_are_taken_with_and_without_spectral_normalisation(name: str, spectral: tuple[bool, bool]) -> None:
    old, new = (build("critic", name, 32, spectral=each) for each in spectral)
    images = torch.rand(4, 3, 32, 32) * 2 - 1
    for _ in range(30):
        old(images)  # each pass goes on estimating the singular values
    fresh = _load_matching(new, "critic", {"critic": old.state_dict()}, Path("first"))
    assert all(key.endswith(("_u", "_v")) for key in fresh)
    if spectral[0]:
        torch.testing.assert_close(new.eval()(images), old.eval()(images))
    else:
        weight = "linear" if name == "resnet" else "layers.0"
        torch.testing.assert_close(
            new.get_parameter(f"{weight}.parametrizations.weight.original"), old.get_parameter(f"{weight}.weight")
        )


@pytest.mark.parametrize("sides", [(28, 64), (64, 28), (32, 128)])
@pytest.mark.parametrize("kind", ["generator", "critic"])
def test_a_recipe_s_networks_start_from_those_of_another_size(
    kind: Literal["generator", "critic"], sides: tuple[int, int]
) -> None:
    """Of `resnet-small` too, whose critic has its widths at other levels below 32 pixels."""
    for recipe in ("resnet-small", "r3gan"):
        networks = []
        for side in sides:
            part = getattr(gankit.load(recipe, f"data.size={side}", "data.counts=[10, 10, 10]"), kind).part
            networks.append(part.build(ImageSpec(3, side, side)))
        blocks = [name for name in taken(networks[1], networks[0], kind) if name.startswith(("blocks.", "stages."))]
        assert blocks, recipe


@pytest.mark.parametrize("kind", ["generator", "critic"])
@pytest.mark.parametrize("widths", [(4, 8), (8, 4), (4, 16)])
def test_networks_of_another_width_are_refused(kind: Literal["generator", "critic"], widths: tuple[int, int]) -> None:
    """Other levels of theirs have the same widths."""
    old, new = (gankit.build(kind, "dcgan", ImageSpec(3, 64, 64), width=width) for width in widths)
    with pytest.raises(RunError, match="give the networks the names and widths"):
        _load_matching(new, kind, {kind: old.state_dict()}, Path("first"))


class Blocks(nn.Module):
    """Blocks of three convolutions each, by the channels before and after each block; numbered ones have attention."""

    def __init__(self, *channels: int, attention: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        for number, (a, b) in enumerate(itertools.pairwise(channels)):
            sizes = ((a, b), (b, b), (b, b))
            block = nn.Sequential(*itertools.chain(*((nn.Conv2d(*size, 3), nn.ReLU()) for size in sizes)))
            if number in attention:
                block.add_module("attention", nn.Conv2d(b, b, 1))
            self.blocks.append(block)


@pytest.mark.parametrize(
    ("kind", "old", "new", "blocks"),
    [
        ("critic", (4, 4, 8), (8, 8, 16, 16), (0, 1)),
        ("critic", (4, 4, 4, 8), (4, 8, 16), (0, 2)),
        ("generator", (8, 8, 4, 4), (16, 16, 8), (1, 0)),
        ("generator", (16, 16, 8), (8, 8, 4, 4), (0, 1)),
    ],
)
def test_layers_keep_their_places_within_blocks(
    kind: str, old: tuple[int, ...], new: tuple[int, ...], blocks: tuple[int, int]
) -> None:
    found = taken(Blocks(*new), Blocks(*old), kind)
    places = [key.removeprefix(f"blocks.{blocks[0]}") for key in found]
    assert {".2.weight", ".4.weight"} <= {*places}
    assert [*found.values()] == [f"blocks.{blocks[1]}{place}" for place in places]


@pytest.mark.parametrize("kind", ["generator", "critic"])
@pytest.mark.parametrize("blocks", [((), (1,)), ((1,), ()), ((), (1, 2)), ((2,), (1,)), ((1,), (1, 2))])
def test_blocks_keep_their_places_where_others_have_attention(kind: str, blocks: tuple[tuple[int, ...], ...]) -> None:
    old, new = (Blocks(4, 4, 4, 4, 4, attention=each) for each in blocks)
    both = set(blocks[0]) & set(blocks[1])
    kept = [
        key for key in new.state_dict() if key.endswith("weight") and ("attention" not in key or int(key[7]) in both)
    ]
    assert taken(new, old, kind) == dict(zip(kept, kept, strict=True))


@pytest.mark.parametrize("kind", ["generator", "critic"])
def test_attention_in_a_block_leaves_networks_of_another_size_their_places(kind: str) -> None:
    old, new = Blocks(4, 4, 4, 4), Blocks(4, 4, 4, 4, 4, attention=(1,))
    shift = 1 if kind == "critic" else 0
    kept = {
        f"blocks.{n}.{i}.weight": f"blocks.{n - shift}.{i}.weight" for n in range(shift, shift + 3) for i in (0, 2, 4)
    }
    assert taken(new, old, kind) == kept


@pytest.mark.parametrize("normalise", [parametrizations.spectral_norm, nn.utils.spectral_norm])
@pytest.mark.parametrize("channels", [(8, 4), (8, 8)])
@pytest.mark.parametrize("layer", [nn.ConvTranspose2d, nn.Conv2d])
def test_weights_lose_their_normalisation_as_torch_computed_it(
    layer: Any, channels: tuple[int, int], normalise: Any
) -> None:
    old, new = nn.Sequential(normalise(layer(*channels, 3))), nn.Sequential(layer(*channels, 3))
    images = torch.randn(2, 8, 5, 5)
    for _ in range(30):
        old(images)
    _load_matching(new, "generator", {"generator": old.state_dict()}, Path("first"))
    torch.testing.assert_close(new(images), old.eval()(images))


@pytest.mark.parametrize("sides", [(64, 32), (32, 64)])
@pytest.mark.parametrize("spectral", [(True, False), (False, True)])
def test_blocks_of_another_size_are_found_with_and_without_spectral_normalisation(
    sides: tuple[int, int], spectral: tuple[bool, bool]
) -> None:
    old, new = (build("critic", "resnet", side, spectral=each) for side, each in zip(sides, spectral, strict=True))
    for bias in (old_biases := [block.conv1.bias for block in old.blocks]):
        nn.init.normal_(bias)
    fresh = _load_matching(new, "critic", {"critic": old.state_dict()}, Path("first"))
    for bias, block in zip(old_biases[-3:], new.blocks[-3:], strict=True):
        torch.testing.assert_close(block.conv1.bias, bias)
    last = len(new.blocks) - 1
    assert not [key for key in fresh if key.startswith(f"blocks.{last}.") and not key.endswith(("_u", "_v"))]
