"""Features of timm's networks (Wightman 2019, PyTorch Image Models) for gankit, with weights from a local file."""

from gankit_timm.features import Timm

__all__ = ["Timm"]
