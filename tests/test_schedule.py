"""Settings that move while a network trains: rates, betas, weights of losses, the probability of an augment."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import gankit
from gankit.errors import SettingsError
from gankit.experiments.experiment import load
from gankit.registry import Schedule, value_at
from gankit.training.assembly import build
from gankit.training.averaging import decay_at

SMALL = (
    "data.size=16", "data.counts=[4, 4, 4]", "generator.width=4", "generator.latent_dim=4", "critic.width=4",
    "training.batch=4", "training.steps=6", "training.tick_every=1", "training.checkpoint_every=2",
    "training.device=cpu", "training.threads=1",
)  # fmt: skip
MOVING = (
    "training.critic_lr={start=4e-4, end=2e-4, steps=4}",
    "training.generator_lr={start=1e-4, end=3e-4, steps=2, shape='linear'}",
    "training.betas=[0, {start=0.9, end=0.99, steps=4}]",
    "losses.r1.weight={start=2, end=1, steps=4}",
    "augment.probability={start=0, end=1, steps=4}",
    "training.averaging={start=0, end=0.9, steps=4}",
)
HALF_WAY = [0.0, (1 - math.sqrt(0.5)) / 2, 0.5, (1 + math.sqrt(0.5)) / 2, 1.0, 1.0, 1.0]


def test_a_schedule_moves_by_half_a_cosine_or_a_line_and_stays() -> None:
    cosine = Schedule[float](start=3.0, end=1.0, steps=4)
    assert [cosine.at(step) for step in range(7)] == pytest.approx([3 - 2 * done for done in HALF_WAY])
    linear = Schedule[float](start=0.0, end=1.0, steps=4, shape="linear")
    assert [linear.at(step) for step in (0, 1, 3, 4, 9)] == [0.0, 0.25, 0.75, 1.0, 1.0]
    assert [value_at(setting, 2) for setting in (0.7, linear)] == [0.7, 0.5]


def test_the_half_life_of_the_average_is_that_of_r3gans_code() -> None:
    """Its average forgets half in so many images, 500,000 after 20 million, and `0.5 ** (batch / images)` an update."""
    batch, most, steps = 256, 500_000, 20_000_000 // 256
    moving = Schedule[float](start=0.0, end=0.5 ** (batch / most), steps=steps)
    for step in (1000, 20_000, steps // 2, steps - 1, steps, 2 * steps):
        progress = min(step / steps, 1)
        half_life = most * (1 - math.cos(math.pi * progress)) / 2
        assert decay_at(moving, step) == pytest.approx(0.5 ** (batch / half_life), abs=1e-9)
    assert [decay_at(moving, step) for step in (0, 1)] == [0.0, 0.0]
    assert decay_at(0.75, 3) == 0.75
    lengthening = Schedule[float](start=0.5, end=0.5**0.25, steps=4, shape="linear")  # half-lives of 1 and 4 steps
    assert [decay_at(lengthening, step) for step in range(5)] == pytest.approx(
        [0.5 ** (1 / half_life) for half_life in (1, 1.75, 2.5, 3.25, 4)]
    )


def test_each_step_averages_with_its_decay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[float] = []
    monkeypatch.setattr("gankit.training.step.update_average", lambda average, network, decay: seen.append(decay))
    experiment = gankit.load(gankit.load("r3gan"), *SMALL, *MOVING)
    gankit.train(experiment, tmp_path / "run")
    decays = [decay_at(experiment.training.averaging, step) for step in range(1, 7)]
    assert seen[-6:] == decays  # those before are of the rehearsal
    assert decays[0] < decays[1] < decays[2] < decays[3] == decays[5] == pytest.approx(0.9)


def test_an_average_from_another_run_is_as_old_as_it_was(
    run: tuple[gankit.Run, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[float] = []
    monkeypatch.setattr("gankit.training.step.update_average", lambda average, network, decay: seen.append(decay))
    words = (*SMALL, *MOVING, f"training.start_from={run[0].path}")
    gankit.train(gankit.load(gankit.load("r3gan"), *words), tmp_path / "run")
    assert seen[-6:] == pytest.approx([0.9] * 6)  # a decay of 0, as that of a new one, would forget it


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[gankit.Run, list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    experiment = gankit.load(gankit.load("r3gan"), *SMALL, *MOVING)
    return gankit.train(experiment, tmp_path_factory.mktemp("run") / "run", on_tick=rows.append), rows


def test_rates_and_probability_are_in_the_log(run: tuple[gankit.Run, list[dict[str, Any]]]) -> None:
    _, rows = run
    assert [row["critic_lr"] for row in rows] == pytest.approx([4e-4 - 2e-4 * done for done in HALF_WAY[:6]])
    assert [row["generator_lr"] for row in rows] == pytest.approx([1e-4, 2e-4, 3e-4, 3e-4, 3e-4, 3e-4])
    assert [row["augment_probability"] for row in rows] == pytest.approx(HALF_WAY[1:])


def test_a_run_with_schedules_resumes_bitwise(run: tuple[gankit.Run, list[dict[str, Any]]], tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(row: dict[str, Any]) -> None:
        if row["step"] == 3:
            raise Stopped

    with pytest.raises(Stopped):
        gankit.train(run[0].experiment, tmp_path / "stopped", on_tick=stop)
    resumed = gankit.resume(tmp_path / "stopped")
    assert resumed.exported.read_bytes() == run[0].exported.read_bytes()
    assert load(tmp_path / "stopped").losses[1].weight == Schedule(start=2.0, end=1.0, steps=4)


def test_betas_and_weights_are_those_of_the_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    betas, steps = [], torch.optim.Adam.step

    def record(self: Any, *arguments: Any) -> Any:
        betas.append(self.param_groups[0]["betas"])
        return steps(self, *arguments)

    monkeypatch.setattr(torch.optim.Adam, "step", record)
    gankit.train(gankit.load(gankit.load("r3gan"), *SMALL, *MOVING, "training.steps=3"), tmp_path / "run")
    moved = [0.9 + 0.09 * done for done in HALF_WAY[:3]]
    assert [second for _, second in betas[-6:]] == pytest.approx([value for value in moved for _ in "ab"])


def test_lazy_scaling_changes_rate_and_betas_of_the_side_with_a_lazy_loss_as_stylegan2_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    groups, steps = [], torch.optim.Adam.step

    def record(self: Any, *arguments: Any) -> Any:
        groups.append(dict(self.param_groups[0]))
        return steps(self, *arguments)

    monkeypatch.setattr(torch.optim.Adam, "step", record)
    settings = ("training.lazy_scaling=true", "training.betas=[0.5, 0.9]", "training.lr_decay=none", "training.steps=1")
    widths = ("generator.widths=[4, 4, 4]", "critic.widths=[4, 4, 4]")
    gankit.train(gankit.load("demo", *SMALL, *widths, *settings), tmp_path / "run")
    (critic, generator), share = groups[-2:], 4 / 5  # demo computes its penalty on each fourth update of the critic
    assert critic["lr"] == pytest.approx(share * 1e-3)
    assert critic["betas"] == pytest.approx((0.5**share, 0.9**share))
    assert (generator["lr"], tuple(generator["betas"])) == (1e-3, (0.5, 0.9))


@pytest.mark.parametrize("step", [0, 2, 9])
def test_the_weight_of_a_loss_is_that_of_the_step(step: int) -> None:
    from gankit.training.data import prepare
    from gankit.training.log import TickLog
    from gankit.training.step import Stepper

    values = []
    for weight in ("{start=2, end=1, steps=4}", str(2 - {0: 0.0, 2: 0.5, 9: 1.0}[step])):
        experiment = gankit.load(gankit.load("r3gan"), *SMALL, f"losses.r1.weight={weight}", "losses.r1.every=2")
        data = prepare(experiment.data, 0, None)
        stepper = Stepper(experiment, data, TickLog(Path("unused"), False))
        stepper.go_to(step)
        total = stepper.objective(stepper.turn("critic", gankit.distributed.Shard(0, 4, 4), 0), 0)
        assert total is not None
        values.append(total.item())
    assert values[0] == pytest.approx(values[1])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.critic_lr.end=3", r"training\.critic_lr\.end: input should be less than 1, not 3"),
        ("training.critic_lr.ende=3", r"training\.critic_lr\.ende: there is no such setting; did you mean 'end'\?"),
        ("training.critic_lr.steps=0", r"training\.critic_lr\.steps: input should be greater than or equal to 1"),
        ("training.critic_lr=fast", r"training\.critic_lr: a number is needed"),
        ("training.betas=[0, {start=0, end=1, steps=2}]", r"training\.betas\.1\.end: input should be less than 1"),
        ("losses.r1.weight.start=-1", r"losses\.1\.weight\.start: input should be greater than or equal to 0, not -1"),
        ("losses.r1.weight.shape=round", r"losses\.1\.weight\.shape: input should be 'cosine' or 'linear'"),
        ("augment.probability.end=2", r"augment\.probability\.end: input should be less than or equal to 1, not 2"),
        ("augment.probability=2", r"augment\.probability: input should be less than or equal to 1, not 2"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_in_one_line(override: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        gankit.load("r3gan", override)
    assert "\n" not in str(caught.value)


def test_the_recipe_survives_its_file_and_fits_its_images() -> None:
    experiment = gankit.load("r3gan")
    assert load(json.loads(json.dumps(experiment.tables()))) == experiment
    gan = build(experiment, gankit.ImageSpec(3, 32, 32))
    assert not gan.critic_mixes_samples


class Curious(gankit.Augment):
    """Remembers the losses that it is shown."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images

    def use_losses(self, losses: Mapping[str, gankit.Loss]) -> None:
        self.losses = losses


def test_an_augment_learns_what_the_losses_make_of_scores() -> None:
    gankit.augments.register("curious")(Curious)
    override = 'augment={name="sometimes", inner="curious"}'
    augment = build(gankit.load("r3gan", override), gankit.ImageSpec(3, 32, 32)).augment
    signs = {name: loss.positive_for_reals for name, loss in augment.inner.losses.items()}  # type: ignore[union-attr]
    assert signs == {"relativistic": "differences", "r1": None, "r2": None}


def test_a_probability_decides_for_each_sample() -> None:
    torch.manual_seed(0)
    augment = gankit.build("augment", "sometimes", inner={"name": "diffaugment", "policy": "color"}, probability=0.25)
    images = torch.rand(400, 1, 2, 2)
    changed = (augment(images) != images).flatten(1).any(1)
    assert 0.18 < changed.float().mean() < 0.32
    assert augment.before_step(7) is None
    never, always = (gankit.augments.get("sometimes")(probability=p) for p in (0.0, 1.0))
    assert torch.equal(never(images), images)
    assert (always(images) != images).flatten(1).any(1).all()
