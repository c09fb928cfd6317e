"""The transformations beside those of NVIDIA's published code, for equal draws, in float64.

Where a clone of github.com/NVlabs/stylegan2-ada-pytorch is here: `STYLEGAN2_ADA=CLONE pytest tests/test_published.py`.
They turn the other way by the same draw, which is alike where no way is preferred. They continue an image only as far
as most of the filter reaches, so that a few pixels of corners differ by a millionth, and not further than it is wide or
high.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import types
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from gankit_adaptive_augment import Transforms, transforms

CLONE = os.environ.get("STYLEGAN2_ADA")
pytestmark = pytest.mark.skipif(not CLONE, reason="STYLEGAN2_ADA names no clone of NVlabs/stylegan2-ada-pytorch")
NAMES = {
    "flip": "xflip", "quarter_turns": "rotate90", "shift": "xint", "scale": "scale", "rotation": "rotate",
    "stretch": "aniso", "slide": "xfrac", "brightness": "brightness", "contrast": "contrast", "inversion": "lumaflip",
    "hue": "hue", "saturation": "saturation",
}  # fmt: skip
"""Our transformations, and theirs."""


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Their class, which computes in float64 what it asks to have in float32."""
    names = set(sys.modules)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        monkeypatch.syspath_prepend(CLONE)
        with contextlib.suppress(ImportError):
            importlib.import_module("distutils.util")
        for name in ("distutils", "distutils.util"):  # newer Pythons have none; a function of it is imported
            monkeypatch.setitem(sys.modules, name, sys.modules.get(name) or types.SimpleNamespace(strtobool=bool))
        module = importlib.import_module("training.augment")
        monkeypatch.setattr(torch, "float32", torch.float64)
        torch.set_default_dtype(torch.float64)
        yield module.AugmentPipe
    torch.set_default_dtype(torch.float)
    for name in set(sys.modules) - names:
        if name.partition(".")[0] in ("training", "torch_utils", "dnnlib"):
            del sys.modules[name]


def rig(monkeypatch: pytest.MonkeyPatch, uniform: Tensor, normal: Tensor) -> None:
    """Every draw of a sample is the same: its uniform number, its normal one, or a whole one that follows from it."""

    def each(values: Tensor, size: tuple[Any, ...]) -> Tensor:
        shape = torch.Size(size[0] if isinstance(size[0], (list, tuple, torch.Size)) else size)
        first = shape[0] == len(values)
        return values.view(-1, *[1] * (len(shape) - 1)).expand(shape) if first else values.expand(shape)

    monkeypatch.setattr(torch, "rand", lambda *size, **_: each(uniform, size))
    monkeypatch.setattr(torch, "randn", lambda *size, **_: each(normal, size))
    monkeypatch.setattr(torch, "randint", lambda high, size, **_: each((uniform * high).floor(), (size,)))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("probability", [0.6, 1.0])
@pytest.mark.parametrize("names", [*([name] for name in NAMES), list(NAMES)], ids="-".join)
def test_images_and_slopes_are_theirs(
    pipeline: Any, names: list[str], probability: float, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.randn(7, channels, 20, 26, requires_grad=True)
    weights = torch.randn(7, channels, 20, 26)
    rig(
        monkeypatch,
        torch.tensor([0.1, 0.3, 0.45, 0.55, 0.58, 0.75, 0.95]),
        torch.tensor([0.5, -0.8, 0.3, -0.4, 0.7, -0.2, 0.6]),
    )
    turned = transforms._rotation
    monkeypatch.setattr(transforms, "_rotation", lambda angle: turned(-angle))
    theirs = pipeline(**{NAMES[name]: 1 for name in names})
    theirs.p.fill_(probability)
    ours = Transforms(probability=probability, **{name: name in names for name in NAMES})  # type: ignore[arg-type]
    expected, found = theirs.double()(images), ours(images)
    grey = channels == 1 and set(names) <= {"hue", "saturation"}
    assert torch.equal(found, images) == grey, "something was done"
    slopes = [torch.autograd.grad((views * weights).sum(), images)[0] for views in (found, expected)]
    for own, published in ((found, expected), slopes):
        differences = (own - published).abs()
        assert differences.max() < 1e-5
        assert differences.quantile(0.98) < 1e-9
