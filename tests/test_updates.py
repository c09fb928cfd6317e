"""What changes the networks: frozen parts, dequantisation, optimisers and their options."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gankit
from gankit.distributed import shard
from gankit.errors import RunError, SettingsError
from gankit.experiments.experiment import Training
from gankit.interfaces import Critic, ImageSpec
from gankit.training.optimizers import _check_and_keep_options, build_optimizer
from gankit.training.trainer import Trainer

Small = Callable[..., list[str]]


def test_what_a_critics_author_froze_stays_frozen(small: Small, tmp_path: Path) -> None:
    @gankit.critics.register("half-frozen")
    class HalfFrozen(Critic):
        def __init__(self, image: ImageSpec) -> None:
            super().__init__()
            self.pretrained = nn.Conv2d(image.channels, 4, 3).requires_grad_(False)
            self.head = nn.Linear(4, 1)

        def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
            scores: Tensor = self.head(self.pretrained(images).relu().mean((2, 3)))
            return scores

    # Weight decay would change a parameter whose gradient is zero, too.
    options = ["critic={name='half-frozen'}", "training.optimizer_options={weight_decay=0.5}"]
    stepper = Trainer(gankit.load("wgan-gp", *small(*options)), tmp_path / "run", None).stepper
    pretrained, head = (part.weight.detach().clone() for part in (stepper.critic.pretrained, stepper.critic.head))  # type: ignore[attr-defined]
    for _ in range(3):
        stepper.advance()
    assert torch.equal(stepper.critic.pretrained.weight, pretrained)  # type: ignore[attr-defined]
    assert not torch.equal(stepper.critic.head.weight, head)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("dtype", "top", "level"), [("uint8", 255, 1), ("uint16", 65535, 1), ("float32", 1.0, 0)])
def test_dequantisation_is_within_half_a_grey_level(
    dtype: str, top: float, level: int, small: Small, tmp_path: Path
) -> None:
    images = (np.random.default_rng(0).random((12, 1, 8, 8)) * top).astype(dtype)
    data = gankit.wrap("dataset", images, value_range=(0, top))
    experiment = gankit.load("wgan-gp", *small("training.dequantise=true", "training.precision=float64"))
    stepper = Trainer(experiment, tmp_path / "run", data).stepper
    exact = images.astype(np.float64) / top * 2 - 1
    drawn = stepper.turn("critic", shard(12), 0).raw_real.cpu().numpy()  # all images, in the order of the first epoch
    order = [np.abs(exact - image).max((1, 2, 3)).argmin() for image in drawn]
    assert sorted(order) == list(range(12))
    off = (drawn - exact[order]) / (2 / top)
    assert np.abs(off).max() <= level / 2 + 1e-6
    if level:
        assert off.std() == pytest.approx(12**-0.5, rel=0.1)


@pytest.mark.parametrize("optimizer", ["LBFGS", "SparseAdam"])
def test_optimisers_that_cannot_train_networks(optimizer: str) -> None:
    with pytest.raises(SettingsError, match=rf"training\.optimizer: {optimizer} .*choose another"):
        gankit.load("wgan-gp", f"training.optimizer={optimizer}")


def test_a_resumed_run_has_the_options_of_its_experiment(small: Small, tmp_path: Path) -> None:
    """Somebody who edits experiment.toml sees the edit take effect, or is told that it cannot."""
    run = gankit.train(gankit.load("wgan-gp", *small()), tmp_path / "run")
    trainer = Trainer(gankit.load(run.path, "training.betas=[0.3, 0.8]"), run.path, None)
    trainer.restore()
    assert trainer.stepper.step == 6
    assert trainer.stepper.optimizers["critic"].param_groups[0]["betas"] == (0.3, 0.8)
    with pytest.raises(RunError, match=r"saved critic optimizer does not fit .* another optimizer"):
        Trainer(gankit.load(run.path, "training.optimizer=RMSprop"), run.path, None).restore()


@pytest.mark.parametrize(
    "name", ["Adam", "AdamW", "Adamax", "Adafactor", "Adagrad", "ASGD", "NAdam", "RAdam", "RMSprop", "Rprop", "SGD"]
)
def test_an_optimiser_takes_up_its_own_state_and_no_other(name: str) -> None:
    def trained(*widths: int) -> torch.optim.Optimizer:
        network = nn.Sequential(*(nn.Linear(5, width, bias=False) for width in widths))
        optimizer = build_optimizer(Training(optimizer=name, critic_lr=0.1), network, "critic")
        network[0](torch.ones(2, 5)).sum().backward()  # the last is not used
        optimizer.step()
        return optimizer

    optimizer, state = trained(3, 4), trained(3, 4).state_dict()
    optimizer.load_state_dict(state)
    assert str(optimizer.state_dict()["state"]) == str(state["state"])
    for key in state["state"].get(0, {}):
        for wrong in (torch.zeros(3, 7), torch.zeros((), dtype=torch.complex64), "x"):
            with pytest.raises(ValueError, match="of other parameters"):
                optimizer.load_state_dict({**state, "state": {0: {**state["state"][0], key: wrong}}})
    for others in ({0: {"x": torch.zeros(3, 5)}}, {7: state["state"].get(0, {"x": 1})}):
        with pytest.raises(ValueError, match="of other parameters"):
            optimizer.load_state_dict({**state, "state": others})
    groups = [{**state["param_groups"][0], "params": [0, 0]}]
    with pytest.raises(ValueError, match="of other parameters"):
        optimizer.load_state_dict({**state, "param_groups": groups})


class LoadedElsewhere(Tensor):
    """A number of steps that was loaded to a GPU."""

    def to(self, *places: Any, **named: Any) -> Tensor:
        return torch.tensor(float(places[0] == torch.device("cpu")))


def test_the_number_of_steps_stays_where_an_optimiser_reads_it() -> None:
    optimizer = build_optimizer(Training(optimizer="RAdam"), nn.Linear(1, 1, bias=False), "critic")
    optimizer.param_groups[0]["params"][0].grad = torch.zeros(1, 1)
    optimizer.step()
    state = optimizer.state_dict()
    state["state"] = {0: {**state["state"][0], "step": torch.tensor(5.0).as_subclass(LoadedElsewhere)}}
    loaded = _check_and_keep_options(optimizer, state)["state"][0]["step"]
    assert type(loaded) is Tensor
    assert loaded == 1


def test_the_fused_form_is_for_devices_that_have_it() -> None:
    for device, fused in (("cpu", True), ("meta", False)):
        optimizer = build_optimizer(Training(), nn.Linear(1, 1, device=device), "critic")
        assert optimizer.param_groups[0]["fused"] is fused


def test_conditions_have_the_type_of_the_networks(small: Small, tmp_path: Path) -> None:
    options = ['data.conditional=["severity"]', "training.precision=float64"]
    stepper = Trainer(gankit.load("wgan-gp", *small(*options)), tmp_path / "run", None).stepper
    labels = stepper.turn("critic", shard(4), 0).labels
    assert labels is not None
    assert labels.dtype == torch.float64
