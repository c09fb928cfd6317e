"""What the tests of studies of classifiers share: networks that train in a moment, and npz files of labelled images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def small_networks(data: Path) -> list[str]:
    """Overrides of `wgan-gp` for two steps of small networks on the images of an npz file."""
    return [
        "data.name=npz", f"data.path={data}", "generator.name=resnet", "generator.width=4", "generator.latent_dim=6",
        "critic.name=resnet", "critic.width=4", "critic.flat_blocks=1", "augment=none", "training.steps=2",
        "training.batch=4", "training.generator_batch=4", "training.critic_steps=1", "training.tick_every=2",
        "training.sample_every=2", "training.checkpoint_every=1",
    ]  # fmt: skip


def save_arrays(path: Path, arrays: Mapping[str, Any]) -> Path:
    """Write an npz file of the arrays that are not None."""
    np.savez(path, **{name: values for name, values in arrays.items() if values is not None})
    return path
