"""Other libraries' training steps, run as their authors wrote them: torch-mimicry, torchgan and vegans.

They come from PyPI into a folder of their own (`make bench` fills it), without what they depend on: torch and the like
are those of gankit's environment. Modules that no longer exist, or that only their metrics need, are stood in for while
they are imported.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
import tempfile
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

FOLDER = Path(__file__).parents[2] / ".bench"
VERSIONS = {"torch-mimicry": "0.1.16", "torchgan": "0.1.0", "vegans": "0.4.0"}
ABSENT = ("tensorflow", "torch._six", "skimage")
CRITIC_STEPS = 5
ADAM = {"lr": 2e-4, "betas": (0.0, 0.9)}


class Missing(Exception):
    """A peer is not in its folder."""


class StandIn(types.ModuleType):
    """A module in which everything can be found and nothing works."""

    __path__: list[str] = []

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


@contextlib.contextmanager
def importable() -> Iterator[None]:
    """While entered, peers can be imported."""
    for name in ("torch._dynamo", "torch.utils.tensorboard", "torchvision"):
        importlib.import_module(name)  # they look for tensorflow themselves, and must not find the stand-in
    os.environ |= {"TENSORBOARD_LOGGING": "0", "CONSOLE_LOGGING": "0", "VISDOM_LOGGING": "0"}  # torchgan reads them
    stood_in = [name for name in ABSENT if name not in sys.modules]
    sys.modules |= {name: StandIn(name) for name in stood_in}
    sys.path.append(str(FOLDER))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.path.remove(str(FOLDER))
        for name in stood_in:
            del sys.modules[name]


def peer(module: str) -> Any:
    """A module of a peer.

    Raises:
        Missing: the peer is not installed.
    """
    try:
        with importable():
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        named = " ".join(f"{name}=={version}" for name, version in VERSIONS.items())
        raise Missing(f"{error}: pip install --no-deps --target {FOLDER.name} {named}") from error


def mimicry(batch: int, width: int, device: str = "cpu") -> Callable[[], None]:
    """One generator step after five critic steps of torch-mimicry's WGAN-GP at 32x32, with batches that are there."""
    nets = peer("torch_mimicry.nets.wgan_gp")
    log = peer("torch_mimicry.training.metric_log").MetricLog
    place = torch.device(device)
    generator = nets.WGANGPGenerator32(ngf=width).to(place)
    critic = nets.WGANGPDiscriminator32(ndf=width).to(place)
    optimizers = [torch.optim.Adam(network.parameters(), **ADAM) for network in (generator, critic)]
    batches = [(torch.rand(batch, 3, 32, 32, device=place) * 2 - 1, torch.zeros(batch)) for _ in range(CRITIC_STEPS)]

    def step() -> None:
        said = log()
        for real in batches:
            critic.train_step(real_batch=real, netG=generator, optD=optimizers[1], log_data=said, device=place)
        generator.train_step(real_batch=real, netD=critic, optG=optimizers[0], log_data=said, device=place)

    return step


def torchgan(generator: nn.Module, critic: nn.Module, images: Tensor, latent_dim: int) -> Callable[[], None]:
    """The same of torchgan's trainer, given networks: what its `train` does with five batches.

    Each of its losses is an update of its own, which `ncritic` counts; so two a batch, and ten between generator steps.
    """
    models, losses, trainers = (peer(f"torchgan.{name}") for name in ("models", "losses", "trainer"))

    class Made(models.Generator):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__(latent_dim)
            self.network = generator

        def forward(self, z: Tensor) -> Tensor:
            return self.network(z)

    class Judge(models.Discriminator):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__(3)
            self.network = critic

        def forward(self, x: Tensor) -> Tensor:
            return self.network(x)

    adam = {"name": torch.optim.Adam, "args": ADAM}
    with tempfile.TemporaryDirectory() as name:  # it makes folders that nothing is written to here
        trainer = trainers.Trainer(
            {"generator": {"name": Made, "optimizer": adam}, "discriminator": {"name": Judge, "optimizer": adam}},
            [losses.WassersteinGeneratorLoss(), losses.WassersteinDiscriminatorLoss(),
             losses.WassersteinGradientPenalty()],
            device=torch.device("cpu"), ncritic=2 * CRITIC_STEPS, checkpoints=f"{name}/model", recon=name,
        )  # fmt: skip

    def step() -> None:
        for _ in range(CRITIC_STEPS):
            trainer.real_inputs = images
            lgen, ldis, gen_iter, dis_iter = trainer.train_iter()
            for key, value in (("generator_losses", lgen), ("discriminator_losses", ldis),
                               ("generator_iters", gen_iter), ("discriminator_iters", dis_iter)):  # fmt: skip
                trainer.loss_information[key] += value
            trainer.logger.run_mid_epoch(trainer)

    return step


class _OldLoader(DataLoader[Tensor]):
    """Iterators of loaders had a method `next` when vegans was written."""

    def __iter__(self) -> Any:
        class Batches:
            def __init__(self, batches: Iterator[Any]) -> None:
                self.batches = batches

            def __iter__(self) -> Any:
                return self

            def __next__(self) -> Tensor:
                return next(self.batches)[0]

            next = __next__

        return Batches(super().__iter__())


def vegans(generator: nn.Module, critic: nn.Module, images: Tensor, latent_dim: int) -> Callable[[], None]:
    """The same of vegans's `fit`, given networks; it is held to the five critic steps that it forgets."""
    kind = peer("vegans.models.unconditional.WassersteinGANGP").WassersteinGANGP

    class Held(kind):  # type: ignore[misc, valid-type]
        def _create_steps(self, steps: Any) -> dict[str, int]:
            return {"Generator": 1, "Adversary": CRITIC_STEPS}

    model = Held(
        generator, critic, x_dim=tuple(images.shape[1:]), z_dim=latent_dim, optim=torch.optim.Adam,
        optim_kwargs={"Generator": ADAM, "Adversary": ADAM}, device="cpu", ngpu=0, folder=None, secure=False,
    )  # fmt: skip
    loader = _OldLoader(TensorDataset(images), batch_size=len(images))  # type: ignore[arg-type]

    def step() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            model.fit(loader, epochs=1, batch_size=len(images), print_every=None, save_losses_every=None)

    return step
