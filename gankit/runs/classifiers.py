"""Networks that classify: a small one of gankit's own and those of torchvision; their files."""

import copy
import itertools
import math
import warnings
from pathlib import Path
from typing import Any, cast, final

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models
from torchvision.transforms.functional import normalize

from gankit import seeds
from gankit.errors import GankitError, PartError, RunError, one_line
from gankit.files import user_path
from gankit.interfaces import ImageSpec
from gankit.runs import checkpoint
from gankit.runs.networks import refuse_large, refuse_lossy

FILE = "classifier.safetensors"
SMALL = "small"  # the name of gankit's own network; others are torchvision's
MEAN, SPREAD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # of channels in [0, 1], as networks of torchvision expect


@final
class SmallNetwork(nn.Module):
    """A few convolutions for any number of channels and any size, with a linear head on a 4x4 map.

    Each level is a 3x3 convolution, batch normalisation, ReLU and 2x2 max-pooling. It is twice as wide as the level
    before, up to four times the first. After the last of one to five levels the shorter side is about 4 pixels long, or
    longer if the image's is above 181; the map is then averaged to 4x4, not to a single position, since some labels
    depend on where something lies.

    It has `width` channels at the first level, dropout before the head, and one output for each class, or one for a
    regression target.
    """

    def __init__(self, image: ImageSpec, outputs: int, width: int) -> None:
        super().__init__()
        levels = min(5, max(1, round(math.log2(min(image.height, image.width) / 4))))
        widths = [image.channels, *(width * min(2**level, 4) for level in range(levels))]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            convolution = nn.Conv2d(before, after, 3, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)]
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Dropout(0.2))
        self.head = nn.Linear(widths[-1] * 16, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """(n, c, h, w) images in [-1, 1] to (n, outputs)."""
        return cast(Tensor, self.head(self.body(images)))


@final
class TorchvisionNetwork(nn.Module):
    """A classification network, by torchvision's name, that takes images in gankit's range, [-1, 1].

    Grey images are shown to all three channels. Images are resized to `input_size` pixels, where that is not None.

    Raises:
        PartError: the images have neither one nor three channels, or are of a size that it cannot take.
    """

    def __init__(self, image: ImageSpec, outputs: int, name: str, input_size: int | None, table: str) -> None:
        super().__init__()
        if image.channels not in (1, 3):
            raise PartError(
                f"{table}.network: {name} takes grey or colour images, not {image.channels} channels; "
                f"set {table}.network={SMALL}"
            )
        self.input_size = input_size
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old networks warn about how they draw their first weights
            self.network = models.get_model(name, weights=None, num_classes=outputs)
        with seeds.own_draws():
            try:
                copy.deepcopy(self)(torch.zeros(2, *image.shape))  # a copy, so that batch statistics do not change
            except (RuntimeError, ValueError, AssertionError, IndexError) as error:
                images = f"images of {input_size or f'{image.height} x {image.width}'} ({one_line(error, 120)})"
                raise PartError(f"{table}.network: {name} cannot take {images}; set {table}.input_size=224") from None

    def forward(self, images: Tensor) -> Tensor:
        """(n, c, h, w) images in [-1, 1] to (n, outputs)."""
        if self.input_size is not None:
            images = F.interpolate(images, [self.input_size] * 2, mode="bilinear", antialias=True, align_corners=False)
        outputs = self.network(normalize(images.expand(-1, 3, -1, -1) * 0.5 + 0.5, MEAN, SPREAD))
        logits: Tensor = outputs[0] if isinstance(outputs, tuple) else outputs  # some have a second head in training
        return logits


def make_network(
    image: ImageSpec, outputs: int, name: str, width: int, input_size: int | None, table: str = "classifier"
) -> nn.Module:
    """The network that settings name; `table` is that of the settings, for errors.

    Raises:
        PartError: it cannot take these images, or is larger than the memory.
    """
    if name == SMALL:
        refuse_large(f"{table}.network {SMALL}", lambda: SmallNetwork(image, outputs, width), f"{table}.width")
        return SmallNetwork(image, outputs, width)
    return TorchvisionNetwork(image, outputs, name, input_size, table)


def load_weights(network: nn.Module, path: Path, name: str, table: str = "classifier") -> None:
    """Load those weights of a file that have the shapes of a network of torchvision: usually all but the head's.

    The file holds a state dict, as torchvision publishes them or in safetensors. Errors say the network's name and the
    table of its settings.

    Raises:
        PartError: the file holds no weights of this network.
    """
    safe = path.suffix == ".safetensors"
    try:
        tensors: Any = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file may raise anything
        raise PartError(f"{table}.weights: {path} cannot be read ({one_line(error, 120)}); give a state dict") from None
    state = network.state_dict()
    named = tensors.items() if isinstance(tensors, dict) else ()
    fitting = {
        key: value for key, value in named
        if isinstance(value, Tensor) and key in state and value.shape == state[key].shape
        and torch.can_cast(value.dtype, state[key].dtype)
    }  # fmt: skip
    # Some networks have a second head for training. Both heads depend on the classes: at most a weight and a bias each.
    if len(state) - len(fitting) > 4 or not fitting:
        raise PartError(
            f"{table}.weights: {path} is not of {name}: {len(fitting)} of its {len(state)} tensors are there; name "
            "the network that it belongs to"
        )
    network.load_state_dict(fitting, strict=False)


@final
class Classifier(nn.Module):
    """A trained classifier.

    Attributes:
        class_names: one per class; empty where it gives a number.
        image: channels, height and width of the images that it was trained on.
        facts: what its file says of it: `class_names`, and the arguments of `make_network` (`name` as `network`).
    """

    def __init__(self, network: nn.Module, facts: dict[str, Any], grey_levels: bool = False) -> None:
        super().__init__()
        self.network, self.facts, self.grey_levels = network, facts, grey_levels
        self.class_names: tuple[str, ...] = tuple(facts["class_names"])
        self.image = ImageSpec(*facts["image"])

    def forward(self, images: Tensor) -> Tensor:
        """(n, c, h, w) images in [-1, 1], or in [0, 255] if `grey_levels` was set, to (n, classes) logits.

        Raises:
            PartError: images of another shape than it was trained on.
        """
        if tuple(images.shape[1:]) != self.image.shape:
            raise PartError(
                f"the classifier was trained on images of {self.image.shape} (channels, height, width), and these are "
                f"{tuple(images.shape[1:])}; bring them to that size"
            )
        return cast(Tensor, self.network(images / 127.5 - 1 if self.grey_levels else images))


def load_classifier(path: str | Path, *, grey_levels: bool = False) -> Classifier:
    """A classifier that a study trained, in evaluation mode: images (n, c, h, w) in [-1, 1] to (n, classes) logits.

    Args:
        path: the file `classifier.safetensors`, or the folder that holds it.
        grey_levels: the classifier takes images in [0, 255] instead, as rankings by label pass them.

    Raises:
        RunError: there is no such file, or it holds no classifier.
    """
    location = user_path(path)
    file = location / FILE if location.is_dir() else location
    if not file.is_file():
        raise RunError(f"{file}: there is no classifier here; `gankit study classifier` writes one")
    try:
        tensors, facts = checkpoint.read_export(file)
        if facts.get("kind") != "classifier":
            raise RunError(f"{file} holds no classifier; give the {FILE} of a study")
        image = ImageSpec(*facts["image"])
        with seeds.own_draws():
            network = make_network(image, facts["outputs"], facts["network"], facts["width"], facts["input_size"])
        refuse_lossy(network.state_dict(), tensors)
        network.load_state_dict(tensors)
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise RunError(f"{file} does not fit the classifier that it says it holds: {one_line(error, 120)}") from error
    except GankitError as error:
        raise RunError(str(error)) from error
    return Classifier(network, facts, grey_levels).eval().requires_grad_(False)
