"""Features from a user's own network in a `.pt2` file of torch.export."""

import io
import logging
from typing import ClassVar, Self, cast, final

import torch
from torch import Tensor, nn

from gankit.errors import PartError
from gankit.features._network_file import NetworkFile


@final
class TorchExport(NetworkFile):
    """The output of a network that `torch.export.save` wrote, which must be one vector per image.

    The network is called with (n, channels, height, width) float32 images and returns (n, d) or (n, d, 1, 1). Export it
    in evaluation mode and with a dynamic batch. Distances between these features mean as much as the network is good;
    Woodland et al. 2024 (arXiv 2311.13717) compare some networks on medical images.
    """

    name: ClassVar[str] = "torch-export"
    remedy: ClassVar[str] = (
        "set size or channels, or export it with a dynamic batch, dynamic_shapes=({0: torch.export.Dim('batch')},)"
    )

    def load(self, content: bytes) -> nn.Module:
        """The network of a file that `torch.export.save` wrote.

        Raises:
            PartError: the bytes are no such file, or one of another version of torch.
        """
        log = logging.getLogger("torch.export")  # where torch.export.load logs a traceback before it raises
        before, log.disabled = log.disabled, True
        try:
            return _Exported(torch.export.load(io.BytesIO(content)).module())
        except Exception as error:  # torch passes on what zipfile, json and its own readers raise
            raise PartError(
                f"{self.path} is not a torch.export file that torch {torch.__version__} can read; save one with "
                "torch.export.save"
            ) from error
        finally:
            log.disabled = before


@final
class _Exported(nn.Module):
    """An exported network. It keeps the mode that it was exported in: torch refuses to switch it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        for module in self.modules():
            module.training = False

    def forward(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.network(images))

    def train(self, mode: bool = True) -> Self:
        return self
