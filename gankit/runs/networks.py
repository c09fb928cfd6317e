"""Networks as an experiment describes them, with the weights that a run's files hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from gankit.errors import RunError
from gankit.experiments.experiment import Experiment
from gankit.interfaces import Critic, Generator, ImageSpec
from gankit.nn.layers import label_layers, set_influence
from gankit.runs import checkpoint

Hook = Callable[[int], Mapping[str, float] | None]


def build_network(experiment: Experiment, kind: Literal["generator", "critic"], image: ImageSpec) -> Any:
    """A network with its first weights, whose labels come in as `training.label_fade` says.

    Raises:
        PartError: the part refuses the image.
    """
    network: nn.Module = getattr(experiment, kind).part.build(image)
    if experiment.training.label_fade is not None:
        for layer in label_layers(network):
            layer.fade_in(*experiment.training.label_fade)
    return network


def step_hooks(part: object) -> list[Hook]:
    """The method `before_step` of a part and of every module inside it."""
    modules: Iterable[Any] = part.modules() if isinstance(part, nn.Module) else [part]
    return [module.before_step for module in modules if hasattr(type(module), "before_step")]


def load_generator(experiment: Experiment, image: ImageSpec, file: Path) -> Generator:
    """The generator that a file holds.

    Args:
        experiment: the run's.
        image: what the generator makes.
        file: written by `checkpoint.export`.

    Raises:
        RunError: the file is missing, or does not fit the experiment.
    """
    tensors, config = checkpoint.read_export(file)
    generator: Generator = build_network(experiment, "generator", image)
    _load(generator, tensors, "generator", file.parent)
    if "label_influence" in config:  # format 1 had it beside the weights
        set_influence(generator, config["label_influence"])
    return generator


def load_critic(experiment: Experiment, image: ImageSpec, folder: Path) -> Critic | None:
    """The critic of a run's newest checkpoint, or None where there is none.

    Args:
        experiment: the run's.
        image: what the critic scores.
        folder: the run's.

    Raises:
        RunError: no checkpoint can be read, or the newest does not fit the experiment.
    """
    restored = checkpoint.restore(folder / "checkpoints")
    if restored is None:
        return None
    step, state = restored
    critic: Critic = build_network(experiment, "critic", image)
    _load(critic, state["critic"], "critic", folder)
    for hook in step_hooks(critic):  # format 1 lacks what they set
        hook(step)
    return critic


def _load(network: nn.Module, tensors: dict[str, Tensor], name: str, folder: Path) -> None:
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise RunError(f"{folder}: the {name}'s weights do not fit experiment.toml: {reason}") from error
