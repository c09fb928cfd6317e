"""Use gankit's penalty and distances in your own loop with your own networks: 8x8 digits, plain perceptrons."""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn

from gankit.losses.gradient_penalty import gradient_penalty
from gankit.metrics.frechet import frechet_distance
from gankit.metrics.kid import kernel_distance

settings = {"steps": 2000} | {key: int(value) for key, value in (pair.split("=") for pair in sys.argv[1:])}

torch.manual_seed(0)
digits = torch.from_numpy(load_digits().data).float() / 8 - 1  # (1797, 64) in [-1, 1]
digits = digits[torch.randperm(len(digits))]
train, reference, other = digits[:897], digits[897:1347], digits[1347:]  # `other`: reals to evaluate as if generated

generator = nn.Sequential(nn.Linear(16, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 64), nn.Tanh())
critic = nn.Sequential(nn.Linear(64, 128), nn.LeakyReLU(0.2), nn.Linear(128, 128), nn.LeakyReLU(0.2), nn.Linear(128, 1))
optimizers = {net: torch.optim.Adam(net.parameters(), lr=5e-4, betas=(0.0, 0.9)) for net in (generator, critic)}


def update(network: nn.Module, loss: torch.Tensor) -> None:
    optimizers[network].zero_grad()
    loss.backward()
    optimizers[network].step()


for _ in range(settings["steps"]):
    for _ in range(3):
        real, fake = train[torch.randint(len(train), (64,))], generator(torch.randn(64, 16)).detach()
        penalty = gradient_penalty(critic, real, fake)  # (64,): one per sample; weight and average them yourself
        update(critic, critic(fake).mean() - critic(real).mean() + 10 * penalty.mean())
    update(generator, -critic(generator(torch.randn(64, 16))).mean())

with torch.no_grad():
    samples = generator(torch.randn(450, 16))
# A distance alone says little. Compare it with the best possible value: that of other reals at the same n.
for name, images in (("generated", samples), ("real", other), ("noise", torch.rand(450, 64) * 2 - 1)):
    kid, error = kernel_distance(images.numpy(), reference.numpy())
    print(f"{name}: frechet {frechet_distance(images.numpy(), reference.numpy()):.3f}, kid {kid:.4f} +- {error:.4f}")
