"""Small trainings that several processes share."""

from __future__ import annotations

SMALL = [
    "data.counts=[12, 10, 12]", "data.size=16", "data.flip=true", "generator.latent_dim=6", "training.steps=6",
    "training.batch=6", "training.generator_batch=5", "training.critic_steps=2", "training.tick_every=3",
    "training.sample_every=6", "training.checkpoint_every=2", "training.device=cpu", "training.threads=1",
]  # fmt: skip
DOUBLE = [*SMALL, "training.precision=float64"]
RESNET = ["wgan-gp", "generator.width=6", "critic.width=6", "critic.flat_blocks=1"]
DCGAN = ["dcgan", "generator.width=6", "critic.width=6"]
LABELS = [
    *RESNET, "data.conditional=true", "data.weights=agreement", "data.balance=0.5", "critic.class_head=true",
    "training.label_fade=[1, 8]", 'losses=["hinge", "auxiliary-class"]',
]  # fmt: skip
R3GAN = [
    "wgan-gp", "generator={name='r3gan', width=8}", "critic={name='r3gan', width=8}",
    'losses=["relativistic", {name="r1", weight=0.5}, {name="r2", weight=0.5}]',
]  # fmt: skip
LAZY = 'losses=[{name="wasserstein", every=2}, {name="gradient-penalty"}]'
