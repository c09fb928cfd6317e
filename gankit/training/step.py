"""One step of a training: the critic's turns, then the generator's; the same for every recipe."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from gankit import distributed, seeds
from gankit.distributed import Shard
from gankit.errors import PartError, RunError
from gankit.experiments.experiment import Experiment
from gankit.interfaces import Critic, Generator, Side, Turn
from gankit.nn.compilation import Compilation
from gankit.nn.copies import copied
from gankit.registry import value_at
from gankit.runs import checkpoint
from gankit.runs.networks import described, load_state, step_hooks
from gankit.runs.run import choose_device, open_run
from gankit.training.assembly import Gan, build
from gankit.training.data import TrainingData
from gankit.training.log import TickLog
from gankit.training.optimizers import betas_at, build_optimizer

PARAMETER_DTYPES = {"float32": torch.float32, "bf16": torch.float32, "float64": torch.float64}
"""By `training.precision`; bf16 is autocast over float32 parameters."""


@final
class Stepper:
    """A GAN with its optimisers, trained step by step.

    Args:
        experiment: the settings.
        data: the images.
        log: gathers the value of every loss.

    Attributes:
        step: generator updates done.
        like: an empty tensor; images, latents and conditions take its dtype and device.
        hook_values: numbers by name that the parts' `before_step` returned, for the log line of this step.
        warnings: lines for the user; whoever shows them removes them.
        gan: the parts as they were built.
        generator: in training mode, on the device.
        critic: in training mode, on the device.
        averaged: the averaged generator's parameters, or None.
        optimizers: by side, "critic" and "generator".
    """

    def __init__(self, experiment: Experiment, data: TrainingData, log: TickLog) -> None:
        self.experiment, self.settings, self.data, self.log = experiment, experiment.training, data, log
        self.device = choose_device(self.settings.device)
        self.like = torch.empty(0, dtype=PARAMETER_DTYPES[self.settings.precision], device=self.device)
        self.gan: Gan = build(experiment, data.image)
        self.generator: Generator = self._place(self.gan.generator)
        self.critic: Critic = self._place(self.gan.critic)
        # Without the parameters that the critic's author froze, such as those of a pretrained network.
        self._trained_critic_parameters = [p for p in self.critic.parameters() if p.requires_grad]
        self._losses_and_augment: list[Any] = [term.loss for term in self.gan.losses]
        self._losses_and_augment += [] if self.gan.augment is None else [self.gan.augment]
        for part in self._losses_and_augment:
            if isinstance(part, nn.Module):
                part.to(self.device)
        self.averaged = self._new_average()
        self._rates: dict[Side, Any] = {"critic": self.settings.critic_lr, "generator": self.settings.generator_lr}
        self._scales = {side: self.gan.lazy_scale(side) if self.settings.lazy_scaling else 1.0 for side in self._rates}
        self.optimizers = {
            side: build_optimizer(self.settings, getattr(self, side), value_at(rate, 0))
            for side, rate in self._rates.items()
        }
        seed, held_out = self.settings.seed, data.held_out
        self._orders = {side: data.order(seed, f"{side} images") for side in self.optimizers}
        self._held_out_orders = {side: held_out.order(seed, f"{side} held-out") for side in self.optimizers if held_out}
        self.warnings: list[str] = []
        self.compilation = self._compilation()
        parts = (self.generator, self.critic, *self._losses_and_augment)
        self._hooks = [hook for part in parts for hook in step_hooks(part)]
        self.hook_values: dict[str, float] = {}
        self.go_to(0)

    def _place(self, network: Any) -> Any:
        network = network.to(self.device, self.like.dtype).train()
        asked = self.settings.channels_last
        if network.channels_last or asked is not None:
            # Weights alone: convolutions follow their layout, and images stay contiguous, as plug-ins expect.
            network.to(memory_format=torch.contiguous_format if asked is False else torch.channels_last)
        distributed.synchronise(network)
        return network

    def _compilation(self) -> Compilation:
        # What a turn can change before the optimiser's step: it is restored when a compiled turn fails.
        changed = [self.generator, self.critic, *self._losses_and_augment, self.log]
        stateful = [part for part in changed if hasattr(part, "state_dict")]
        compilation = Compilation(stateful, self.warnings.append, self.settings.compile == "all")
        if self.settings.compile and distributed.has_synchronised_norms(self.generator, self.critic):
            for side in self.optimizers:
                compilation.give_up(side, "batch normalisation is synchronised between processes")
        return compilation

    def _new_average(self) -> AveragedModel | None:
        if not self.settings.averaging:
            return None
        return AveragedModel(copied(self.generator), multi_avg_fn=self._update_average)

    @torch.no_grad()
    def _update_average(self, averaged: Any, current: Any, _: Any) -> None:
        # A warm-up: the first, poor weights are forgotten quickly.
        decay = min(self.settings.averaging, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(averaged, current, 1 - decay)

    def go_to(self, step: int) -> None:
        """Set the number of generator updates done, and call `before_step` of every part."""
        self.step, self.hook_values = step, {}
        for hook in self._hooks:
            self.hook_values.update(hook(step) or {})

    def advance(self) -> None:
        """One step: `critic_steps` critic updates, then one generator update."""
        settings = self.settings
        self._move_rates()
        for k in range(settings.critic_steps):
            self.update("critic", settings.batch, self.step * settings.critic_steps + k)
        with self.frozen_critic():
            self.update("generator", settings.generator_batch or settings.batch, self.step)
        self.go_to(self.step + 1)
        if self.averaged is not None:
            self.averaged.update_parameters(self.generator)

    def _move_rates(self) -> None:
        remaining = 1 - self.step / self.settings.steps if self.settings.lr_decay == "linear" else 1.0
        first, second = betas_at(self.settings, self.step)
        for side, rate in self._rates.items():
            scale = self._scales[side]
            for group in self.optimizers[side].param_groups:
                group["lr"] = value_at(rate, self.step) * remaining * scale
                if "betas" in group:
                    group["betas"] = first**scale, second**scale

    @contextlib.contextmanager
    def frozen_critic(self) -> Iterator[None]:
        """The critic without gradients of its parameters, as on the generator's turn."""
        for parameter in self._trained_critic_parameters:
            parameter.requires_grad_(False)
        yield
        for parameter in self._trained_critic_parameters:
            parameter.requires_grad_(True)

    def update(self, side: Side, batch: int, index: int) -> None:
        """Do the `index`-th update of one side, on `batch` samples over all processes; nothing where no loss is due."""
        shard = distributed.shard(batch)
        if self.settings.compile:
            turn = self.compilation.attempt(side, lambda: self._backward(side, shard, index))
        else:
            turn = self._backward(side, shard, index)
        if turn is not None:
            distributed.sum_gradients(getattr(self, side).parameters())
            self.optimizers[side].step()
            for part in self._losses_and_augment:
                part.after_step(turn)

    def _backward(self, side: Side, shard: Shard, index: int) -> Turn | None:
        """Compute the gradients of one turn, and return it; None where no loss is due."""
        rank = distributed.rank()  # added to the seed in all processes but the first: no two may augment alike
        seeds.seed_torch(self.settings.seed, f"{side} turn", index, *([rank] if rank else []))
        turn = self.turn(side, shard, index)
        self.optimizers[side].zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"):
            total = self.objective(turn, index)
        if total is None:
            return None
        (shard.weight * total).backward()  # type: ignore[no-untyped-call]
        return turn

    def objective(self, turn: Turn, index: int) -> Tensor | None:
        """The weighted sum of the losses that are due at an update, a scalar; None where none is.

        Raises:
            PartError: a loss returns something other than one number.
        """
        total: Tensor | None = None
        for term in self.gan.losses:
            if index % term.every == 0 and (value := getattr(term.loss, turn.side)(turn)) is not None:
                if not isinstance(value, Tensor) or value.numel() != 1:
                    raise PartError(
                        f"loss {term.name} returned {described(value)} on the {turn.side}'s turn: return one number as "
                        "a tensor, such as the mean over samples"
                    )
                self.log.add(f"{turn.side}/{term.name}", value.detach())
                weight = value_at(term.weight, turn.step) * term.every
                total = weight * value if total is None else total + weight * value
        return total

    def turn(self, side: Side, shard: Shard, index: int) -> Turn:
        """Build what the losses of an update read: its images, labels, latents and random numbers."""
        indices = self._orders[side].batch(index, shard.total)[shard.rows]
        draws = seeds.generator(self.settings.seed, f"{side} latents", index)
        latents = torch.randn(shard.total, self.generator.latent_dim, generator=draws)[shard.rows].to(self.like)
        return Turn(
            side,
            self.generator,
            self.critic,
            real=lambda: self._images(self.data, f"{side} reals", indices, index, shard),
            labels=self._labels(self.data, indices),
            latents=latents,
            step=self.step,
            random=self._draws(f"{side} losses", index, shard, self.like),
            augment=self.gan.augment,
            scope=self.experiment.augment.scope if self.experiment.augment else "critic",
            critic_mixes=self.gan.critic_mixes_samples,
            held_out=None if self.data.held_out is None else lambda: self._held_out(side, shard, index),
            batch=shard.total,
            average=distributed.average,
            log=lambda name, value: self.log.add(name, value.detach()),
        )

    def _labels(self, data: TrainingData, indices: NDArray[np.int64]) -> Tensor | None:
        if data.labels is None:
            return None
        labels = data.labels[indices].to(self.device)
        return labels.to(self.like.dtype) if labels.is_floating_point() else labels

    def _draws(self, stream: str, index: int, shard: Shard, like: Tensor) -> seeds.TurnDraws:
        rows = (shard.start, shard.stop, shard.total)
        return seeds.TurnDraws(self.settings.seed, stream, index, like, rows if distributed.size() > 1 else None)

    def _held_out(self, side: Side, shard: Shard, index: int) -> tuple[Tensor, Tensor | None]:
        assert self.data.held_out is not None
        indices, held_out = self._held_out_orders[side].batch(index, shard.total)[shard.rows], self.data.held_out
        return self._images(held_out, f"{side} held-out", indices, index, shard), self._labels(held_out, indices)

    def _images(self, data: TrainingData, stream: str, indices: NDArray[np.int64], index: int, shard: Shard) -> Tensor:
        draws = self._draws(stream, index, shard, torch.empty(0))
        mirrored = draws.uniform(len(indices)) < 0.5 if self.experiment.data.flip else None
        images = data.batch(indices, self.like, mirrored)
        if self.settings.dequantise and data.dataset.dtype.kind == "u":  # floats have no grey levels
            low, high = data.dataset.value_range
            grey_level = 2 / (high - low)
            images = images + (draws.uniform(*images.shape).to(self.like) - 0.5) * grey_level
        return images

    def averaged_generator(self) -> Generator:
        """A copy of the generator with the averaged weights, where there are any."""
        network = copied(self.generator)
        distributed.synchronise(network, on=False)  # its batch normalisation must not wait for other processes
        if self.averaged is not None:
            averaged = dict(self.averaged.module.named_parameters())
            for name, parameter in network.named_parameters():
                parameter.data.copy_(averaged[name].data)
        return network

    def stateful(self) -> dict[str, Any]:
        """All that has a state which a resumed training needs, by its name in checkpoints."""
        parts: dict[str, Any] = {"generator": self.generator, "critic": self.critic, "log": self.log}
        parts |= {f"{side} optimizer": optimizer for side, optimizer in self.optimizers.items()}
        parts |= {f"loss {term.name}": term.loss for term in self.gan.losses if hasattr(term.loss, "state_dict")}
        parts |= {"averaged": self.averaged, "augment": self.gan.augment}
        parts |= {"compilation": self.compilation if self.settings.compile else None}
        return {name: part for name, part in parts.items() if part is not None}

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed training needs, beside the experiment and the step."""
        return {name: _plain(part.state_dict()) for name, part in self.stateful().items()}

    def load_state_dict(self, state: dict[str, Any], folder: Path) -> None:
        """Take up a state of this experiment; a RunError names the folder of a run whose state does not fit."""
        for name, part in self.stateful().items():
            if name != "compilation" or name in state:  # training.compile may have been set since
                load_state(part, name, state, folder)

    def load_start_weights(self) -> None:
        """Load the weights of the run that `training.start_from` names, if it names one.

        Raises:
            RunError: there is no such run, it has no checkpoint, or its networks do not fit.
        """
        if self.settings.start_from:
            folder = open_run(self.settings.start_from).path
            restored = checkpoint.restore(
                folder / "checkpoints", self.device, lambda state: self.load_networks(state, folder)
            )
            if restored is None:
                raise RunError(f"training.start_from: {folder} has no checkpoint to start from")

    def not_finite(self) -> list[str]:
        """The names of parameters that hold NaN or infinity, and of buffers that hold NaN, averaged ones too."""
        networks = {"generator": self.generator, "critic": self.critic}
        if self.averaged is not None:
            networks["averaged generator"] = self.averaged.module
        wrong = {f"{name}.{key}": ~p.isfinite().all() for name, network in networks.items()
                 for key, p in network.named_parameters()}  # fmt: skip
        # A buffer may hold infinity on purpose, as masks do.
        wrong |= {f"{name}.{key}": b.isnan().any() for name, network in networks.items()
                  for key, b in network.named_buffers()}  # fmt: skip
        found = torch.stack([flag.to(self.device) for flag in wrong.values()]).tolist()  # one look at the device
        return [name for name, is_wrong in zip(wrong, found, strict=True) if is_wrong]

    def load_networks(self, state: dict[str, Any], folder: Path) -> None:
        """Load only the networks of another experiment's state, with the averages if both experiments use them."""
        load_state(self.generator, "generator", state, folder)
        load_state(self.critic, "critic", state, folder)
        self.averaged = self._new_average()
        if self.averaged is not None and "averaged" in state:
            load_state(self.averaged, "averaged", state, folder)
        self.go_to(self.step)


def _plain(state: Any) -> Any:
    """A state with numbers of NumPy, which a checkpoint cannot hold, as numbers of Python."""
    if isinstance(state, np.generic):
        return state.item()
    if type(state) in (list, tuple, dict):  # others, such as a module's state, may be more than what they hold
        items = state.items() if isinstance(state, dict) else enumerate(state)
        plain = {key: _plain(value) for key, value in items}
        return plain if isinstance(state, dict) else type(state)(plain.values())
    return state
