"""One step of a training: the critic's turns, then the generator's; the same for every recipe."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from gankit import distributed, seeds
from gankit.errors import PartError, RunError
from gankit.experiments.experiment import Experiment
from gankit.interfaces import Critic, Generator, Side, Turn
from gankit.nn.compilation import Compilation
from gankit.nn.layers import set_influence
from gankit.runs.run import choose_device
from gankit.training.assembly import Parts, build
from gankit.training.data import TrainingData
from gankit.training.log import TickLog

DTYPES = {"float32": torch.float32, "bf16": torch.float32, "float64": torch.float64}


@final
class Updates:
    """Both networks with their optimisers, and what changes them.

    Args:
        experiment: the settings.
        data: the images.
        log: gathers the value of every loss.

    Attributes:
        step: generator updates done.
        cautions: lines to tell the user, gathered until somebody takes them.
        generator: in training mode, on the device.
        critic: in training mode, on the device.
        averaged: the averaged generator's parameters, or None.
        parts: the losses and the augment beside them.
    """

    def __init__(self, experiment: Experiment, data: TrainingData, log: TickLog) -> None:
        self.experiment, self.settings, self.data, self.log = experiment, experiment.training, data, log
        self.device = choose_device(self.settings.device)
        self.parts: Parts = build(experiment, data.image)
        self.like = torch.empty(0, dtype=DTYPES[self.settings.precision], device=self.device)
        self.generator: Generator = self._placed(self.parts.generator)
        self.critic: Critic = self._placed(self.parts.critic)
        # Not all of them: a critic may hold a pretrained network that its author froze.
        self._trained = [parameter for parameter in self.critic.parameters() if parameter.requires_grad]
        if self.parts.augment is not None:
            self.parts.augment.to(self.device)
        for weighted in self.parts.losses:
            if isinstance(weighted.loss, nn.Module):
                weighted.loss.to(self.device)
        self.step = 0
        self.cautions: list[str] = []
        changing = [self.generator, self.critic, self.parts.augment, self.log, *(w.loss for w in self.parts.losses)]
        changing = [part for part in changing if hasattr(part, "state_dict")]
        self.compilation = Compilation(changing, self.cautions.append, self.settings.compile == "all")
        if self.settings.compile and distributed.has_synchronised_norms(self.generator, self.critic):
            for side in ("critic", "generator"):
                self.compilation.give_up(side, "batch normalisation is synchronised between processes")
        self.averaged = AveragedModel(self.generator, multi_avg_fn=self._average) if self.settings.averaging else None
        self.optimizers = {
            "critic": self._optimizer(self.critic, self.settings.critic_lr),
            "generator": self._optimizer(self.generator, self.settings.generator_lr),
        }
        seed, held = self.settings.seed, data.held_out
        self.orders = {side: data.order(seed, f"{side} images") for side in self.optimizers}
        self.held_out_orders = {side: held.order(seed, f"{side} held-out") for side in self.optimizers if held}

    def _placed(self, network: Any) -> Any:
        network = network.to(self.device, self.like.dtype, memory_format=torch.channels_last).train()
        distributed.synchronise(network)
        return network

    def _optimizer(self, network: nn.Module, rate: float) -> torch.optim.Optimizer:
        if self.settings.optimizer in ("LBFGS", "SparseAdam"):
            why = "evaluates its own steps" if self.settings.optimizer == "LBFGS" else "takes sparse gradients alone"
            raise PartError(f"training.optimizer: {self.settings.optimizer} {why}; choose another, for example Adam")
        kind = getattr(torch.optim, self.settings.optimizer)
        known = inspect.signature(kind).parameters
        options: dict[str, Any] = {"lr": rate}
        if "betas" in known:
            options["betas"] = self.settings.betas
        if "fused" in known:
            options["fused"] = True
        options |= self.settings.optimizer_options
        try:
            optimizer: torch.optim.Optimizer = kind(network.parameters(), **options)
        except (TypeError, ValueError, RuntimeError) as error:
            raise PartError(f"training.optimizer_options: {self.settings.optimizer} refuses them: {error}") from error
        return optimizer

    @torch.no_grad()
    def _average(self, averaged: Any, current: Any, _: Any) -> None:
        # A warm-up: the first, poor weights are forgotten quickly.
        decay = min(self.settings.averaging, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(averaged, current, 1 - decay)

    def advance(self) -> None:
        """One generator update, after `critic_steps` critic updates."""
        remaining = 1 - self.step / self.settings.steps if self.settings.lr_decay == "linear" else 1.0
        for side, rate in (("critic", self.settings.critic_lr), ("generator", self.settings.generator_lr)):
            for group in self.optimizers[side].param_groups:
                group["lr"] = rate * remaining
        if self.settings.label_fade:
            for network in (self.generator, self.critic):
                set_influence(network, self.settings.label_influence(self.step))
        for k in range(self.settings.critic_steps):
            self._update("critic", self.critic, self.settings.batch, self.step * self.settings.critic_steps + k)
        self._freeze_critic(True)
        self._update("generator", self.generator, self.settings.generator_batch or self.settings.batch, self.step)
        self._freeze_critic(False)
        self.step += 1
        if self.averaged is not None:
            self.averaged.update_parameters(self.generator)

    def _freeze_critic(self, frozen: bool) -> None:
        for parameter in self._trained:
            parameter.requires_grad_(not frozen)

    def _update(self, side: Side, network: nn.Module, batch: int, number: int) -> None:
        shard = distributed.shard(batch)
        if self.settings.compile:
            turn = self.compilation.attempt(side, lambda: self._differentiated(side, shard, number))
        else:
            turn = self._differentiated(side, shard, number)
        if turn is not None:
            distributed.sum_gradients(network.parameters())
            self.optimizers[side].step()
            for part in [*(weighted.loss for weighted in self.parts.losses), self.parts.augment]:
                if part is not None:
                    part.after_step(turn)

    def _differentiated(self, side: Side, shard: distributed.Shard, number: int) -> Turn | None:
        """A turn whose gradients are there, or None where no loss is due."""
        rank = distributed.rank()  # processes that draw alike would augment alike
        seeds.seed_torch(self.settings.seed, f"{side} turn", *([number, rank] if rank else [number]))
        turn = self._turn(side, shard, number)
        self.optimizers[side].zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"):
            total = self._objective(turn, number)
        if total is None:
            return None
        (shard.weight * total).backward()  # type: ignore[no-untyped-call]
        return turn

    def _turn(self, side: Side, shard: distributed.Shard, number: int) -> Turn:
        seed, indices = self.settings.seed, self.orders[side].batch(number, shard.total)[shard.rows]
        draws = self._draws(f"{side} losses", number, shard, self.like)
        source = seeds.generator(seed, f"{side} latents", number)
        latents = torch.randn(shard.total, self.generator.latent_dim, generator=source)[shard.rows].to(self.like)
        return Turn(
            side,
            self.generator,
            self.critic,
            real=lambda: self._images(self.data, f"{side} reals", indices, number, shard),
            labels=self._labels(self.data, indices),
            latents=latents,
            step=self.step,
            random=draws,
            augment=self.parts.augment,
            scope=self.experiment.augment.scope if self.experiment.augment else "critic",
            critic_mixes=self.parts.critic_mixes,
            held_out=None if self.data.held_out is None else lambda: self._held_out(side, shard, number),
            batch=shard.total,
            average=distributed.average,
            log=lambda name, value: self.log.add(name, value.detach()),
        )

    def _labels(self, data: TrainingData, indices: NDArray[np.int64]) -> Tensor | None:
        if data.labels is None:
            return None
        labels = data.labels[indices].to(self.device)
        return labels.to(self.like.dtype) if labels.is_floating_point() else labels

    def _draws(self, stream: str, number: int, shard: distributed.Shard, like: Tensor) -> seeds.TurnDraws:
        rows = (shard.start, shard.stop, shard.total)
        return seeds.TurnDraws(self.settings.seed, stream, number, like, rows if distributed.size() > 1 else None)

    def _held_out(self, side: Side, shard: distributed.Shard, number: int) -> tuple[Tensor, Tensor | None]:
        assert self.data.held_out is not None
        indices, held = self.held_out_orders[side].batch(number, shard.total)[shard.rows], self.data.held_out
        return self._images(held, f"{side} held-out", indices, number, shard), self._labels(held, indices)

    def _images(
        self, data: TrainingData, stream: str, indices: NDArray[np.int64], number: int, shard: distributed.Shard
    ) -> Tensor:
        draws = self._draws(stream, number, shard, torch.empty(0))
        mirrored = draws.uniform(len(indices)) < 0.5 if self.experiment.data.flip else None
        images = data.batch(indices, self.like, mirrored)
        if self.settings.dequantise and data.dataset.dtype.kind == "u":  # floats have no grey levels
            low, high = data.value_range
            grey_level = 2 / (high - low)
            images = images + (draws.uniform(*images.shape).to(self.like) - 0.5) * grey_level
        return images

    def _objective(self, turn: Turn, number: int) -> Tensor | None:
        total: Tensor | None = None
        for weighted in self.parts.losses:
            if number % weighted.every == 0 and (value := getattr(weighted.loss, turn.side)(turn)) is not None:
                self.log.add(f"{turn.side}/{weighted.name}", value.detach())
                total = weighted.weight * value if total is None else total + weighted.weight * value
        return total

    def _stateful(self) -> dict[str, Any]:
        parts: dict[str, Any] = {"generator": self.generator, "critic": self.critic}
        parts |= {f"{side} optimizer": optimizer for side, optimizer in self.optimizers.items()}
        if self.averaged is not None:
            parts["averaged"] = self.averaged
        if self.parts.augment is not None:
            parts["augment"] = self.parts.augment
        parts["log"] = self.log
        if self.settings.compile:
            parts["compilation"] = self.compilation
        parts |= {f"loss {w.name}": w.loss for w in self.parts.losses if hasattr(w.loss, "state_dict")}
        return parts

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed training needs, beside the experiment."""
        return {name: part.state_dict() for name, part in self._stateful().items()}

    def load_state_dict(self, state: dict[str, Any], origin: Path, names: list[str] | None = None) -> None:
        """Take up a state, or only the parts that are named.

        Raises:
            RunError: it does not fit the experiment; names `origin`.
        """
        parts = self._stateful()
        for name in names or parts:
            if name == "compilation" and name not in state:
                continue  # training.compile was set since
            try:
                if isinstance(parts[name], torch.optim.Optimizer):
                    _load_optimizer(parts[name], state[name])
                else:
                    parts[name].load_state_dict(state[name])
            except (KeyError, ValueError, RuntimeError) as error:
                reason = " ".join(str(error).split())[:200]
                raise RunError(f"{origin}: the checkpoint's {name} does not fit this experiment: {reason}") from error


def _load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take up an optimiser's state; its options stay those of the experiment.

    Raises:
        ValueError: the state is of another optimiser.
    """
    options = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    own, saved = options[0].keys(), state["param_groups"][0].keys() - {"params"}
    if not (own <= saved or saved <= own):  # a newer torch may know more of them
        raise ValueError("it is the state of another optimizer")
    optimizer.load_state_dict(state)
    for group, option in zip(optimizer.param_groups, options, strict=True):
        group.update(option)
