"""A training loop written by hand with gankit's parts: no trainer, no experiment, and you can change every line."""

import sys
from pathlib import Path

import torch
from torchvision.utils import save_image

import gankit
from gankit.losses.gradient_penalty import gradient_penalty

out, *overrides = sys.argv[1:] or ["runs/by-hand"]
settings = {"steps": 1000, "batch": 32, "critic_steps": 3, "width": 16, "images": 300}
settings |= {key: int(value) for key, value in (override.split("=") for override in overrides)}

torch.manual_seed(0)
data = gankit.build("dataset", "eyes", (32, 32), counts=(settings["images"],) * 3)
reals = torch.tensor(data.images) / 127.5 - 1  # (n, 3, 32, 32), bytes to [-1, 1]

# --8<-- [start:loop]
image = gankit.ImageSpec(3, 32, 32)  # data.image also has the classes; networks built for it would require labels
generator = gankit.build("generator", "resnet", image, width=settings["width"])
critic = gankit.build("critic", "resnet", image, width=settings["width"])
# With a high first beta, momentum from an outdated critic would persist for too many steps.
critic_optimizer = torch.optim.Adam(critic.parameters(), lr=2e-4, betas=(0.0, 0.9))
generator_optimizer = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.0, 0.9))


def fakes() -> torch.Tensor:
    return generator(torch.randn(settings["batch"], generator.latent_dim))


for step in range(settings["steps"]):
    for _ in range(settings["critic_steps"]):
        real = reals[torch.randint(len(reals), (settings["batch"],))]
        with torch.no_grad():  # the critic's turn: no gradient may reach the generator
            fake = fakes()
        gap = critic(real).mean() - critic(fake).mean()
        loss = 10 * gradient_penalty(critic, real, fake).mean() - gap
        critic_optimizer.zero_grad()
        loss.backward()
        critic_optimizer.step()

    critic.requires_grad_(False)  # the generator's turn: gradients pass through the critic but are not stored in it
    loss = -critic(fakes()).mean()
    generator_optimizer.zero_grad()
    loss.backward()
    generator_optimizer.step()
    critic.requires_grad_(True)
    if step % 100 == 0 or step + 1 == settings["steps"]:
        print(f"step {step + 1}: gap {gap.item():.3f}")
# --8<-- [end:loop]

Path(out).mkdir(parents=True, exist_ok=True)
generator.eval()  # batch normalisation then uses its running statistics: an image does not depend on its batch
with torch.no_grad():
    images = generator(torch.randn(64, generator.latent_dim))
save_image(images, Path(out) / "grid.png", nrow=8, normalize=True, value_range=(-1, 1))
