"""One step of a training: the critic's turns, then the generator's; the same for every recipe."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from gankit import distributed, seeds
from gankit.distributed import Shard
from gankit.errors import PartError
from gankit.experiments.experiment import Experiment
from gankit.interfaces import Augment, Critic, Generator, Loss, Side, Turn
from gankit.nn.compilation import Compilation
from gankit.nn.copies import buffers_of, copied, restore_buffers
from gankit.nn.modes import bfloat16
from gankit.runs import checkpoint
from gankit.runs.networks import describe_value, load_state, not_finite, place, step_hooks
from gankit.runs.run import choose_device
from gankit.training.assembly import Gan, build
from gankit.training.averaging import decay_at, new_average, update_average
from gankit.training.data import TrainingData
from gankit.training.execution.arithmetic import arithmetic
from gankit.training.execution.graphs import choose
from gankit.training.execution.work import LogValue, ReadInput, Work
from gankit.training.inputs import SIDES, Inputs
from gankit.training.log import TickLog, check_name, is_number
from gankit.training.objective import Objective
from gankit.training.optimizers import build_optimizer, move_rate


@final
class Stepper:
    """A GAN with its optimisers, trained step by step.

    Args:
        experiment: the settings.
        data: the images.
        log: gathers the value of every loss.
        checked: the same parts, built before, whose checks need not be repeated.

    Attributes:
        device: of the networks and images; `settings` are `experiment.training`.
        step: generator updates done.
        critic_updates: critic updates done in the present step; above 0 between calls only if `advance` was stopped.
        like: an empty tensor; images, latents and conditions take its dtype and device.
        hook_values: numbers by name that the parts' `before_step` returned, for the log line of this step.
        warnings: lines for the user; whoever shows them removes them.
        gan: the parts as they were built.
        generator, critic: in training mode, on the device.
        parts: networks, then losses, then the augment, by what errors call them: "critic dcgan", for example.
        averaged: its `module` is the averaged generator; None without averaging.
        optimizers: by side, "critic" and "generator".
        inputs, objective: what the turns read, and what they minimise.
        compilation, execution: how turns are compiled and executed.

    Raises:
        PartError: the parts do not fit together, or cannot have the device, precision or memory layout of the settings.
    """

    def __init__(self, experiment: Experiment, data: TrainingData, log: TickLog, checked: Gan | None = None) -> None:
        self.experiment, self.settings, self.data, self.log = experiment, experiment.training, data, log
        self.device = choose_device(self.settings.device)
        # With bf16 parameters stay float32, and autocast computes in bfloat16.
        dtype = torch.float64 if self.settings.precision == "float64" else torch.float32
        if dtype is torch.float64 and self.device.type == "mps":
            raise PartError("training.precision: Apple GPUs have no float64; set training.device=cpu")
        if self.settings.precision == "bf16" and self.device.type == "cuda" and not torch.cuda.is_bf16_supported():
            raise PartError("training.precision: this GPU has no bfloat16; set training.precision=float32")
        if self.device.type == "cuda" and self.device.index is not None and distributed.size() > 1:
            raise PartError("training.device: each process takes a GPU of its own; set training.device=cuda")
        self.like = torch.empty(0, dtype=dtype, device=self.device)
        self.gan: Gan = build(experiment, data.image, checked)
        self.generator: Generator = self._place("generator")
        self.critic: Critic = self._place("critic")
        # `frozen_critic` must not unfreeze parameters that `training.freeze` or a pretrained network freezes for good.
        self._trained_critic_parameters = [p for p in self.critic.parameters() if p.requires_grad]
        self.parts = self._parts()
        self._losses_and_augment = [part for part in self.parts.values() if isinstance(part, (Loss, Augment))]
        for part in self._losses_and_augment:
            if isinstance(part, nn.Module):
                part.to(self.device)
        self.averaged = new_average(self.generator, self.settings.averaging)
        self.optimizers = {side: build_optimizer(self.settings, getattr(self, side), side) for side in SIDES}
        self.inputs = Inputs(experiment, data, self.like, self.generator.latent_dim)
        self.objective = Objective(self.gan.losses, self.like)
        self.warnings: list[str] = []
        self.compilation = self._compilation()
        self.execution = choose(
            self.settings, self.device, self.parts, self.inputs.loss_rng, self.log.add, self.warnings.append,
            self.compilation,
        )  # fmt: skip
        self._hooks = [hook for part in self.parts.values() for hook in step_hooks(part)]
        self.hook_values: dict[str, float] = {}
        self.critic_updates = 0
        self.go_to(0)

    def _place(self, kind: Side) -> Any:
        """A network on the device, in training mode, in the type and the memory layout that it is trained in."""
        name, channels_last = f"{kind} {getattr(self.experiment, kind).name}", self.settings.channels_last
        network = place(name, getattr(self.gan, kind), self.device, self.like.dtype)
        network.train()
        if network.channels_last or channels_last is not None:
            tensors = [*network.parameters(), *network.buffers()]
            if channels_last is not False and any(tensor.dim() == 5 for tensor in tensors):
                raise PartError(f"training.channels_last: {name} has tensors of five dimensions; set it to false")
            # Weights alone: convolutions follow their layout, and images stay contiguous, as plug-ins expect.
            network.to(memory_format=torch.contiguous_format if channels_last is False else torch.channels_last)
        distributed.synchronise(network)
        return network

    def _compilation(self) -> Compilation:
        # A compiled turn that fails may have changed the state of these, which is then restored.
        stateful = [part for part in [*self.parts.values(), self.log] if hasattr(part, "state_dict")]
        compilation = Compilation(stateful, self.warnings.append, self.settings.compile == "all")
        if self.settings.compile and distributed.has_synchronised_norms(self.generator, self.critic):
            for side in self.optimizers:
                compilation.give_up(side, "batch normalisation is synchronised between processes")
        return compilation

    def _parts(self) -> dict[str, Any]:
        tables = self.experiment
        parts: dict[str, Any] = {
            f"generator {tables.generator.name}": self.generator,
            f"critic {tables.critic.name}": self.critic,
        }
        parts |= {f"loss {term.name}": term.loss for term in self.gan.losses}
        return parts if tables.augment is None else {**parts, f"augment {tables.augment.name}": self.gan.augment}

    def close(self) -> None:
        """Free the memory of recorded turns."""
        self.execution.close()

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """A context for steps outside of `Trainer.run`: they compute as the settings say; it ends with `close`."""
        with contextlib.closing(self), arithmetic(self.settings, self.device):
            yield

    def go_to(self, step: int) -> None:
        """Set the number of generator updates done, and call `before_step` of every part.

        Raises:
            PartError: one of them returns something other than numbers by name, or None; or a name is one of
                `log.OWN_NAMES`.
        """
        self.step, self.hook_values = step, {}
        self.objective.go_to(step)
        for hook in self._hooks:
            if (values := hook(step)) is None:
                continue
            if not isinstance(values, Mapping) or not all(map(is_number, values.values())):
                name = getattr(hook, "__qualname__", "before_step")
                raise PartError(f"{name} returned {describe_value(values)}: return numbers by name, or None")
            for name in values:
                check_name(name)
            self.hook_values.update(values)

    def advance(self, is_stopped: Callable[[], bool] = lambda: False) -> None:
        """One step: `critic_steps` critic updates, then one generator update; or the rest of a step that was stopped.

        It stops after an update if `is_stopped`; `critic_updates` then counts those that the next call need not do.
        """
        settings = self.settings
        self.move_rates(self.step)
        while self.critic_updates < settings.critic_steps:
            self.update("critic", settings.batch, self.step * settings.critic_steps + self.critic_updates)
            self.critic_updates += 1
            if is_stopped():
                return
        with self.frozen_critic():
            self.update("generator", settings.generator_batch or settings.batch, self.step)
        self.critic_updates = 0
        self.go_to(self.step + 1)
        if self.averaged is not None:
            age = max(self.step, int(self.averaged.n_averaged) + 1)  # above the step if it came from another run
            update_average(self.averaged, self.generator, decay_at(self.settings.averaging, age))

    def move_rates(self, step: int) -> None:
        """Set the optimisers' rates and betas for a step, by its number from 0."""
        for side, optimizer in self.optimizers.items():
            scale = self.gan.lazy_scale(side) if self.settings.lazy_scaling else 1.0
            move_rate(optimizer, self.settings, side, step, scale)

    @contextlib.contextmanager
    def frozen_critic(self) -> Iterator[None]:
        """A context in which the critic's parameters get no gradients, as on the generator's turn."""
        for parameter in self._trained_critic_parameters:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in self._trained_critic_parameters:
                parameter.requires_grad_(True)

    def update(self, side: Side, batch: int, index: int) -> None:
        """Do the `index`-th update of one side, on `batch` samples over all processes, if any loss has a value.

        Raises:
            PartError: losses have a value in other processes, but not in this one.
        """
        last_turn: Turn | None = None
        parameters = list(getattr(self, side).parameters())
        for piece, shard in self._pieces(batch):
            last_turn = self.execution.run(self._work(side, shard, index, piece)) or last_turn
        distributed.sum_gradients(parameters)  # even without a value: processes that have one would wait for this one
        if last_turn is not None:
            self.optimizers[side].step()
            for part in self._losses_and_augment:
                part.after_step(last_turn)  # the turns of other pieces are gone, which is what saves memory
        elif any(parameter.grad is not None for parameter in parameters):
            names = ", ".join(term.name for term in self.objective.due(side, index))
            raise PartError(
                f"losses: on the {side}'s turn {names} returned no value in process {distributed.rank()}, but one in "
                "another: a loss must return None in all processes or in none"
            )

    def _pieces(self, batch: int) -> Iterator[tuple[int, Shard]]:
        """This process's share of a batch in numbered pieces, each of which starts with the same buffers.

        In the end buffers hold their means over the pieces, so that running means are those of the whole batch.
        """
        share = distributed.shard(batch)
        pieces = share.parts(self.settings.accumulate)
        modules = [part for part in self.parts.values() if isinstance(part, nn.Module)] if len(pieces) > 1 else []
        before = buffers_of(modules)
        # A value that is not finite yet, such as a maximum that begins at -inf, allows no difference: 0 replaces it.
        bases = [old.where(old.isfinite(), 0) for old in before]
        means = [base.clone() for base in bases]
        for number, piece in enumerate(pieces):
            restore_buffers(modules, before)
            yield number, piece
            weight = piece.weight / share.weight
            for base, new, mean in zip(bases, buffers_of(modules), means, strict=True):
                mean.copy_(mean + (new - base) * weight if new.is_floating_point() else new)
        restore_buffers(modules, means)

    def _work(self, side: Side, shard: Shard, index: int, piece: int) -> Work:
        """The turn of an update, or of one piece of its batch where `training.accumulate` divides it.

        It holds functions, since an execution may do a turn twice: to record it, or because compiled code failed.
        """
        return Work(
            side=side,
            key=(side, *(term.name for term in self.objective.due(side, index))),
            network=getattr(self, side),
            inputs=self.inputs.of(side, shard, index),
            seed=lambda: self._seed_draws(side, index, piece),
            build_turn=lambda read, log: self.turn(side, shard, index, read, log),
            differentiate=lambda turn: self._differentiate(turn, shard, index, piece),
        )

    def _seed_draws(self, side: Side, index: int, piece: int) -> None:
        """Seed torch's own draws and those of the losses for a turn."""
        # A number for each process and piece of a batch, so that no two of them augment alike.
        number = distributed.rank() * self.settings.accumulate + piece
        seeds.seed_torch(self.settings.seed, f"{side} turn", index, *([number] if number else []))
        self.inputs.seed(side, index)

    def _differentiate(self, turn: Turn, shard: Shard, index: int, piece: int) -> bool:
        """Compute a turn's gradients, added to those of the batch's other pieces; False where no loss has a value."""
        if piece == 0:
            self.optimizers[turn.side].zero_grad(set_to_none=True)
        with bfloat16(self.device, self.settings.precision == "bf16"):
            total = self.objective(turn, index)
        if total is None:
            return False
        (shard.weight * total).backward()  # type: ignore[no-untyped-call]
        return True

    def turn(
        self, side: Side, shard: Shard, index: int, read: ReadInput | None = None, log: LogValue | None = None
    ) -> Turn:
        """Build what the losses of a side's `index`-th update read: its images, labels, latents and random numbers.

        Args:
            side: whose update.
            shard: this process's rows of the batch.
            index: the number of the update.
            read: returns an input by its name; whoever gives it seeds the losses' draws (`Inputs.seed`). None makes the
                inputs and seeds the draws here.
            log: takes what losses log; None for the training's log.
        """
        read_input, add_to_log = read or self._make_inputs(side, shard, index), log or self.log.add
        has_labels = self.data.labels is not None

        def held_out() -> tuple[Tensor, Tensor | None]:
            return read_input("held_out"), read_input("held_out_labels") if has_labels else None

        return Turn(
            side,
            self.generator,
            self.critic,
            real=lambda: read_input("real"),
            labels=read_input("labels") if has_labels else None,
            latents=read_input("latents"),
            step=self.step,
            random=self.inputs.loss_draws(shard),
            augment=self.gan.augment,
            scope=self.experiment.augment.scope if self.experiment.augment else "critic",
            critic_mixes=self.gan.critic_mixes_samples,
            held_out=None if self.data.held_out is None else held_out,
            batch=shard.total,
            average=distributed.average,
            log=lambda name, value: add_to_log(name, value.detach()),
        )

    def _make_inputs(self, side: Side, shard: Shard, index: int) -> ReadInput:
        """Seed the draws of the losses of an update, and return the function that makes its inputs."""
        self.inputs.seed(side, index)
        inputs = self.inputs.of(side, shard, index)
        return lambda name: inputs[name]()

    def averaged_generator(self) -> Generator:
        """A copy of the generator with the averaged weights, where there are any, and its own buffers."""
        network = copied(self.generator)
        distributed.synchronise(network, on=False)  # its batch normalisation must not wait for other processes
        if self.averaged is not None:
            for parameter, averaged in zip(network.parameters(), self.averaged.module.parameters(), strict=True):
                parameter.data.copy_(averaged.data)
        return network

    def stateful(self) -> dict[str, Any]:
        """All objects whose state a resumed training needs, by their names in checkpoints."""
        parts: dict[str, Any] = {"generator": self.generator, "critic": self.critic, "log": self.log}
        parts |= {f"{side} optimizer": optimizer for side, optimizer in self.optimizers.items()}
        parts |= {f"loss {term.name}": term.loss for term in self.gan.losses if hasattr(term.loss, "state_dict")}
        parts |= {"averaged": self.averaged, "augment": self.gan.augment}
        parts |= {"compilation": self.compilation if self.settings.compile else None}
        return {name: part for name, part in parts.items() if part is not None}

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed training needs, besides the experiment and the step."""
        return {name: checkpoint.plain(part.state_dict()) for name, part in self.stateful().items()}

    def load_state_dict(self, state: dict[str, Any], folder: Path) -> None:
        """Load a state of this experiment; raises a RunError that names the run's folder where it does not fit."""
        for name, part in self.stateful().items():
            if name == "compilation" and name not in state:  # saved before training.compile was set
                continue
            load_state(part, name, state, folder)

    def not_finite(self) -> list[str]:
        """The names of parameters that hold NaN or infinity, and of buffers that hold NaN, averaged ones too."""
        networks = {"generator": self.generator, "critic": self.critic}
        if self.averaged is not None:
            networks["averaged generator"] = self.averaged.module
        return not_finite(networks)
