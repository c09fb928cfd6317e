"""Four small trainings, one that works and three that fail: what collapse, divergence and a leak look like."""

import sys
from pathlib import Path

import torch
from torchvision.utils import save_image

import gankit

out, *overrides = sys.argv[1:] or ["runs/bad"]

# --8<-- [start:cases]
SMALL = [
    "data.size=32", "generator.name=dcgan", "generator.width=16", "critic.name=dcgan", "critic.width=16",
    "critic.norm=layer", "training.batch=16", "training.generator_batch=16", "training.critic_steps=1",
    "training.steps=2500",
]  # fmt: skip
CASES = {
    "works": [],
    "collapse": [  # the generator learns ten times as fast as the critic
        "losses=[{name='non-saturating'}]", "training.generator_lr=2e-3", "training.critic_lr=2e-4",
        "training.betas=[0.5, 0.999]", "training.averaging=0", "training.steps=700",
    ],
    "divergence": [  # a Wasserstein critic without its penalty, and rates fifty times too high
        "losses=[{name='wasserstein'}]", "training.generator_lr=1e-2", "training.critic_lr=1e-2",
        "training.betas=[0.9, 0.999]", "training.averaging=0", "training.steps=500",
    ],
    "leak": ["augment={name='diffaugment', policy=['cutout'], scope='real'}"],  # only reals are augmented
}  # fmt: skip
# --8<-- [end:cases]

for name, changes in CASES.items():
    run = gankit.train(gankit.load("wgan-gp", *SMALL, *changes, *overrides), Path(out) / name)
    pictures = torch.tensor(run.sample(8, seed=1)) / 255
    save_image(pictures.repeat_interleave(3, 2).repeat_interleave(3, 3), Path(out) / f"{name}.png", nrow=8)
    losses = {key: value for key, value in run.log[-1].items() if "/" in key}
    print(name, ", ".join(f"{key} {value:.3g}" for key, value in losses.items()))
