"""Four small trainings, one that works and three that fail: what collapse, divergence and a leak look like."""

import sys
from pathlib import Path

import numpy as np
import torch
from torchvision.utils import save_image

import gankit

out, *overrides = sys.argv[1:] or ["runs/bad"]

# --8<-- [start:cases]
SMALL = [
    "data.size=32", "generator.name=dcgan", "generator.width=16", "critic.name=dcgan", "critic.width=16",
    "critic.norm=layer", "training.batch=16", "training.generator_batch=16", "training.critic_steps=1",
    "training.steps=1500",
]  # fmt: skip
CASES = {
    "works": [],
    "collapse": [
        "losses=[{name='non-saturating'}]", "critic.norm=none", "training.generator_lr=3e-3",
        "training.critic_lr=3e-3", "training.betas=[0.9, 0.999]", "training.averaging=0",
    ],
    "divergence": ["losses=[{name='wasserstein'}]", "training.critic_lr=3e-3", "training.averaging=0"],
    "leak": ["augment={name='diffaugment', policy=['cutout'], scope='real'}"],
}  # fmt: skip
# --8<-- [end:cases]

for name, changes in CASES.items():
    run = gankit.train(gankit.load("wgan-gp", *SMALL, *changes, *overrides), Path(out) / name)
    pictures = torch.tensor(np.stack(run.sample(8, seed=1))) / 255
    save_image(pictures.repeat_interleave(3, 2).repeat_interleave(3, 3), Path(out) / f"{name}.png", nrow=8)
    last = {key: value for key, value in run.log[-1].items() if "/" in key}
    print(name, ", ".join(f"{key} {value:.3g}" for key, value in last.items()))
