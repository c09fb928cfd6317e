"""Features from a user's own network in a TorchScript file."""

import io
from typing import ClassVar, final

import torch
from torch import nn

from gankit.errors import PartError
from gankit.features._network import reason, without_deprecations
from gankit.features._network_file import NetworkFile


@final
class TorchScript(NetworkFile):
    """The output of a scripted or traced module, which must be one vector per image.

    The module is called with (n, channels, height, width) float32 images and returns (n, d) or (n, d, 1, 1). Distances
    between these features mean as much as the network is good; Woodland et al. 2024 (arXiv 2311.13717) compare some
    networks on medical images. torch deprecates TorchScript: for a new file use the features `torch-export`.
    """

    name: ClassVar[str] = "torchscript"
    remedy: ClassVar[str] = "set size or channels"

    def load(self, content: bytes) -> nn.Module:
        """The network of an archive that `torch.jit.save` wrote.

        Raises:
            PartError: the bytes are no such archive.
        """
        try:
            with without_deprecations():
                module: nn.Module = torch.jit.load(io.BytesIO(content), map_location="cpu")  # type: ignore[no-untyped-call]
                return module.eval()
        except (RuntimeError, ValueError) as error:
            raise PartError(
                f"{self.path} is not a TorchScript archive ({reason(error)}); save one with torch.jit.save"
            ) from error
