"""From an experiment to its parts; every combination that cannot work is refused before training starts."""

import inspect
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gankit import seeds
from gankit.errors import PartError, blame, first_of
from gankit.experiments.experiment import Experiment, Training
from gankit.experiments.tables import LossTable
from gankit.images.room import too_many
from gankit.interfaces import Augment, ClassHead, Critic, Generator, ImageSpec, Loss, Side
from gankit.nn.copies import copied
from gankit.nn.layers import influence_at, label_layers
from gankit.registry import Schedule
from gankit.runs.networks import PROBE_BATCH, build_network, call_part, probe_inputs
from gankit.training.mixing import mixes_samples, setting_without_mixing


@dataclass(frozen=True)
class LossTerm:
    """A loss of the experiment, which trains critic, generator or both, with its factor and interval."""

    name: str  # in logs; numbered where an experiment names a loss twice
    loss: Loss
    weight: float | Schedule[float]  # the factor that the experiment gives it, or the loss's own
    every: int  # the loss is computed on every `every`-th update only, with its weight times `every`

    def trains(self, side: Side) -> bool:
        """Whether the loss has a term for a side: it overrides the method of that name, in its class or in itself."""
        return getattr(getattr(self.loss, side), "__func__", None) is not getattr(Loss, side)


@dataclass(frozen=True)
class Gan:
    """The parts of an experiment that take part in training, built and checked."""

    generator: Generator  # freshly initialised from the seed
    critic: Critic  # freshly initialised from the seed
    losses: tuple[LossTerm, ...]  # in the experiment's order
    augment: Augment | None
    critic_mixes_samples: bool  # whether a sample's score depends on the other samples of its batch

    def lazy_scale(self, side: Side) -> float:
        """k / (k + 1) (StyleGAN2), with k the longest interval of the side's losses; 1 if none is above 1."""
        longest = max((term.every for term in self.losses if term.trains(side)), default=1)
        return longest / (longest + 1) if longest > 1 else 1.0


def build(experiment: Experiment, image: ImageSpec, checked: Gan | None = None) -> Gan:
    """Build every part of an experiment for images of this kind.

    `checked` are the same parts, built before: a training builds them several times, and checks them once.

    Raises:
        PartError: a part refuses the image, makes wrong shapes, lacks what a loss needs, or a critic that mixes samples
            meets a loss that differentiates sample by sample; the error names the part.
    """
    training, evaluation = experiment.training, experiment.evaluation
    for setting, count, dtype in (
        ("training.batch", training.batch, torch.float32),
        ("training.generator_batch", training.generator_batch, torch.float32),
        ("evaluation.count", evaluation.count, torch.uint8),
    ):
        if count is not None and (reason := too_many(count, image.shape, dtype.itemsize)):
            raise PartError(f"{setting}: {reason}")
    with seeds.own_draws([]):
        seeds.seed_torch(training.seed, "initial weights")
        generator: Generator = build_network(experiment, "generator", image)
        critic: Critic = build_network(experiment, "critic", image)
        _freeze(critic, experiment)
        augment: Augment | None = experiment.augment.part.build(image) if experiment.augment else None
        losses = tuple(_build_losses(experiment.losses, image))
        if augment is not None:
            augment.use_losses({term.name: term.loss for term in losses})
        if checked is not None:
            return Gan(generator, critic, losses, augment, checked.critic_mixes_samples)
        _check_needs(experiment, losses, [part for part in (generator, critic, augment) if part is not None])
        _check_fade(experiment, image, {"generator": generator, "critic": critic})
        _check_held_out(experiment, losses, augment)
        _check_shapes(experiment, generator, critic, augment, image)
        mixes = mixes_samples(critic, image.shape, image, f"critic {experiment.critic.name}")
        if training.accumulate > 1:
            name = f"generator {experiment.generator.name}"
            _check_divisible(experiment, image, mixes, mixes_samples(generator, (generator.latent_dim,), image, name))
    if mixes and not training.mixed_penalties:
        _check_penalties(experiment, image, losses)
    for side in ("critic", "generator"):
        if not any(term.trains(side) for term in losses):
            names = ", ".join(term.name for term in losses)
            raise PartError(f"losses: none of {names} trains the {side}; add one that does")
    return Gan(generator, critic, losses, augment, mixes)


SCOPE_WARNINGS = {
    "critic-turn": "the critic is not trained on raw images of the generator; DiffAugment's authors report divergence",
    "real": "the generator learns the augmented images; use it as a control only",
}


def experiment_warnings(experiment: Experiment) -> list[str]:
    """What a user should know before this experiment trains, one line each."""
    lines = list(_without_effect(experiment))
    scope = experiment.augment.scope if experiment.augment else "critic"
    if scope in SCOPE_WARNINGS:
        lines.append(f"augment.scope={scope}: {SCOPE_WARNINGS[scope]}")
    fade, steps = experiment.training.label_fade, experiment.training.steps
    if fade is not None and (influence := influence_at(steps, *fade)) < 1:
        lines.append(f"training.label_fade: labels have {influence:.0%} of their influence when the training ends")
    threads, cores = experiment.training.threads, os.cpu_count() or 1
    if threads != "auto" and threads > cores:
        lines.append(f"training.threads={threads}: this machine has {cores} cores, and more threads are slower")
    return lines


def _without_effect(experiment: Experiment) -> Iterator[str]:
    """A line for each setting that is not at its default and has no effect, because of another one."""
    for kind in ("generator", "critic"):
        settings = getattr(experiment, kind).settings
        width = type(settings).model_fields.get("width")
        if width and getattr(settings, "widths", None) and settings.width != width.default:
            yield f"{kind}.width: it has no effect beside {kind}.widths; set {kind}.widths=none, or change that one"
    training = experiment.training
    options = inspect.signature(getattr(torch.optim, training.optimizer)).parameters
    if "betas" not in options and training.betas != Training.model_fields["betas"].default:
        yield f"training.betas: {training.optimizer} has none, so they do nothing; see training.optimizer_options"
    if training.lazy_scaling and all(table.every == 1 for table in experiment.losses):
        yield "training.lazy_scaling: it does nothing where no loss has `every` above 1"


def _freeze(critic: Critic, experiment: Experiment) -> None:
    """Freeze the first layers; a layer is a weight of two or more dimensions with the biases and norms after it."""
    count = experiment.training.freeze
    if not count:
        return
    if experiment.training.start_from is None:
        raise PartError(
            "training.freeze keeps layers as they are: set training.start_from to the run that they come from"
        )
    total = sum(parameter.dim() > 1 for parameter in critic.parameters())
    if count >= total:
        raise PartError(f"training.freeze: the critic has {total} layers; freeze at most {total - 1} of them")
    layers_seen = 0
    for parameter in dict.fromkeys(_in_order(critic)):  # a layer that is used twice counts once
        layers_seen += parameter.dim() > 1
        if layers_seen <= count:
            parameter.requires_grad_(False)


def _in_order(module: nn.Module) -> Iterator[nn.Parameter]:
    """Parameters layer by layer: a module's own follow its children's, as a bias follows a parametrized weight."""
    for child in module.children():
        yield from _in_order(child)
    yield from module.parameters(recurse=False)


def _build_losses(tables: list[LossTable], image: ImageSpec) -> list[LossTerm]:
    names = [table.name for table in tables]
    terms = []
    for number, table in enumerate(tables):
        loss: Loss = table.part.build(image)
        weight = loss.default_weight if table.weight is None else table.weight
        name = table.name if names.count(table.name) == 1 else f"{table.name}-{names[: number + 1].count(table.name)}"
        terms.append(LossTerm(name, loss, weight, table.every))
    return terms


def _check_needs(experiment: Experiment, losses: tuple[LossTerm, ...], parts: list[Any]) -> None:
    hints: dict[type, str] = {Augment: "; add an [augment] table"}
    if hasattr(experiment.critic.settings, "class_head"):
        hints[ClassHead] = "; set critic.class_head=true"
    for term in losses:
        for need in term.loss.needs:
            if not any(isinstance(part, need) for part in parts):
                what = f"an {need.__name__}" if need.__name__[0] in "AEIOU" else f"a {need.__name__}"
                raise PartError(
                    f"loss {term.name} needs {what}, but no part of the experiment is one{hints.get(need, '')}"
                )


def _check_fade(experiment: Experiment, image: ImageSpec, networks: dict[str, nn.Module]) -> None:
    if experiment.training.label_fade is None:
        return
    if not image.conditional:
        raise PartError("training.label_fade: there are no labels to fade in; set data.conditional")
    for kind, network in networks.items():
        if not label_layers(network):
            raise PartError(
                f"training.label_fade: {kind} {getattr(experiment, kind).name} uses no label layer of "
                "gankit.nn.layers, so its labels cannot fade in; leave label_fade out"
            )


def _check_held_out(experiment: Experiment, losses: tuple[LossTerm, ...], augment: Augment | None) -> None:
    names = [f"loss {term.name}" for term in losses if term.loss.needs_held_out]
    if experiment.augment and augment is not None and augment.needs_held_out:
        names.append(f"augment {experiment.augment.name}")
    if names and not experiment.data.held_out:
        raise PartError(f"{names[0]} looks at held-out images: set data.held_out, for example data.held_out=0.1")


def _check_penalties(experiment: Experiment, image: ImageSpec, losses: tuple[LossTerm, ...]) -> None:
    """Refuse losses that differentiate sample by sample, beside a critic that mixes samples."""
    for term in losses:
        if term.loss.per_sample:
            setting = setting_without_mixing(experiment.critic.part, image)
            raise PartError(
                f"critic.{setting.partition('=')[0] if setting else 'name'}: critic {experiment.critic.name} mixes the "
                f"samples of a batch (batch normalisation or batch statistics), but loss {term.name} differentiates "
                f"each sample's score by itself; choose {f'critic.{setting}, or ' if setting else ''}another critic, "
                "or allow it with training.mixed_penalties=true, as StyleGAN2 does"
            )


def _check_shapes(
    experiment: Experiment, generator: Generator, critic: Critic, augment: Augment | None, image: ImageSpec
) -> None:
    """Refuse parts that take or give wrong shapes, on the way from latents to scores, or that cannot be trained."""
    z, labels = probe_inputs(generator, image)
    images = _checked_images(experiment, generator, image, z, labels)
    if augment is not None and experiment.augment is not None:
        augment_name = f"augment {experiment.augment.name}"
        seen = call_part(augment_name, _copy(augment_name, augment), images)
        if seen.shape != images.shape:
            before, after = tuple(images.shape[1:]), tuple(seen.shape[1:])
            raise PartError(f"{augment_name} changes the shape {before} of images to {after}")
        _check_type(augment_name, seen, images, "images")
    name = f"critic {experiment.critic.name}"
    scores = call_part(name, _copy(name, critic), images, labels)
    if scores.dim() == 0 or len(scores) != PROBE_BATCH or not scores.numel():
        raise PartError(
            f"{name} gives scores of shape {tuple(scores.shape)} for {PROBE_BATCH} images; the first size must be the "
            "number of images, and no size may be 0"
        )
    for kind, network in (("generator", generator), ("critic", critic)):
        _check_parameters(f"{kind} {getattr(experiment, kind).name}", network)


def _checked_images(
    experiment: Experiment, generator: Generator, image: ImageSpec, z: Tensor, labels: Tensor | None
) -> Tensor:
    """The generator's images of (n, latent_dim) latents; refuses one that takes or makes other shapes."""
    name = f"generator {experiment.generator.name}"
    copy = _copy(name, generator)
    try:
        images = call_part(name, copy, z, labels)
    except PartError as error:
        if _takes(generator, z[:, :, None, None], labels):
            latents = f"{len(z)}, {generator.latent_dim}"
            raise PartError(
                f"{name} takes latents of shape ({latents}, 1, 1); it must take ({latents}): let its forward begin "
                "with z = z[:, :, None, None]"
            ) from error
        raise
    # One latent fewer: sampling uses other batch sizes than training.
    fewer = call_part(name, copy, z[1:], None if labels is None else labels[1:])
    for n, shape in ((len(z), tuple(images.shape)), (len(z) - 1, tuple(fewer.shape))):
        if shape != (n, *image.shape):
            made = f"{shape[1:]} images" if shape[:1] == (n,) else f"{shape} of {n} latents"
            raise PartError(f"{name} makes {made}; the data are {image.shape}")
    _check_type(name, images, z, "z")
    return images


def _check_type(name: str, images: Tensor, given: Tensor, argument: str) -> None:
    if images.dtype != given.dtype:
        raise PartError(
            f"{name} makes images of {images.dtype} from {given.dtype}: let it return images.to({argument}.dtype)"
        )


def _check_parameters(name: str, network: nn.Module) -> None:
    parameters = list(network.parameters())
    if not any(parameter.requires_grad for parameter in parameters):
        layers = "hold its layers as attributes, several of them in a torch.nn.ModuleList"
        advice = "all are frozen; call requires_grad_(True)" if parameters else layers
        raise PartError(f"{name} has no parameters to train: {advice}")
    if whole := [key for key, p in network.named_parameters() if not (p.is_floating_point() or p.is_complex())]:
        raise PartError(f"{name} has integer parameters, {first_of(whole)}: make them buffers")
    if not all(parameter.is_leaf for parameter in parameters):
        raise PartError(
            f"{name} has parameters that no optimizer can train, as copies of TorchScript modules have: give the "
            "module that was scripted or traced"
        )


def _copy(name: str, part: Any) -> Any:
    with blame(PartError, f"{name} cannot be copied, which sampling requires:"):
        return copied(part)


def _takes(network: nn.Module, *inputs: Tensor | None) -> bool:
    try:
        call_part("", copied(network), *inputs)
    except PartError:
        return False
    return True


def _check_divisible(experiment: Experiment, image: ImageSpec, critic_mixes: bool, generator_mixes: bool) -> None:
    """Refuse to compute a batch in pieces if that would give other gradients than the whole batch."""
    if experiment.training.compile:
        raise PartError("training.accumulate: training.compile works on whole batches; set one of the two")
    for kind, mixes in (("critic", critic_mixes), ("generator", generator_mixes)):
        if mixes:
            table = getattr(experiment, kind)
            setting = setting_without_mixing(table.part, image)
            advice = f"set {kind}.{setting}" if setting else f"choose another {kind}"
            raise PartError(
                f"training.accumulate: {kind} {table.name} mixes the samples of a batch (batch normalisation or "
                f"batch statistics), so pieces differ from the whole; {advice}, or a smaller training.batch"
            )
