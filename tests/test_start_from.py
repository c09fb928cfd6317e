"""`training.start_from`: each layer begins with the weights of the layer that does the same in the other run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import nn

import gankit
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
