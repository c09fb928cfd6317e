"""The augment in experiments: its settings, exact resume, and a critic that overfits."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import gankit
import numpy as np
import pytest
import torch
from gankit.errors import PartError, SettingsError
from gankit.interfaces import Critic, Turn
from gankit.recipes import TrainingImages
from torch import Tensor, nn

from gankit_adaptive_augment import AdaptiveAugment, Transforms, adaptive_table
from gankit_adaptive_augment.recipe import R3GANAda

FOLDER = Path(__file__).parents[1]
SIGN = ["augment.start=0.3", 'losses=["non-saturating", {name="r1", weight=0.1}]']
Small = Callable[..., list[str]]

gankit.augments.register("adaptive")(AdaptiveAugment)  # of this process: it need not be installed
gankit.augments.register("transforms")(Transforms)
gankit.recipes.register("r3gan-ada")(R3GANAda)


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("GANKIT_CACHE", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def small(tmp_path: Path) -> Small:
    """Overrides for a training of a second on 40 images of 8x8."""
    path = tmp_path / "images.npz"
    draw = np.random.default_rng(0)
    np.savez(path, images=draw.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8), labels=np.arange(40) % 2)

    def overrides(*more: str) -> list[str]:
        return [
            "data.name=npz", f"data.path={path}", "generator.width=4", "generator.latent_dim=6", "critic.width=4",
            "critic.flat_blocks=1", "augment.name=adaptive", "augment.images=200", "augment.interval=3",
            "training.steps=8", "training.batch=4", "training.generator_batch=4", "training.critic_steps=2",
            "training.tick_every=1", "training.checkpoint_every=4", "evaluation.features=pixels",
            'evaluation.metrics=["frechet"]', *more,
        ]  # fmt: skip

    return overrides


# --- settings ---------------------------------------------------------------------------------------------------------


def test_defaults() -> None:
    augment = gankit.build("augment", "adaptive")
    assert (augment.rule, augment.target, augment.interval, augment.images) == ("sign", 0.6, 4, 500_000)
    assert (augment.p, augment.p_max) == (0, 1)
    assert type(augment.inner) is Transforms
    assert gankit.build("augment", "adaptive", rule="held-out").target == 0.5


def test_the_inner_augment_is_a_table_of_its_own(small: Small, tmp_path: Path) -> None:
    experiment = gankit.load("wgan-gp", *small(*SIGN, 'augment.inner={name="diffaugment", policy=["cutout"]}'))
    run = gankit.train(experiment, tmp_path / "run")
    recorded = run.experiment.augment
    assert recorded is not None
    assert recorded.part.build().inner.policy == ("cutout",)
    assert recorded.table()["inner"] == {"name": "diffaugment", "policy": ["cutout"]}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("augment.target=1.5", r"augment.target"),
        ("augment.target=nan", r"augment.target"),
        ("augment.start=0.9 augment.p_max=0.8", "start=0.9 is above p_max=0.8"),
        ("augment.interval=0", r"augment.interval"),
        ("augment.rule=rt", r"augment.rule"),
        ("augment.speed=3", r"augment.speed"),
        ("augment.inner=diffaugmnt", "did you mean 'diffaugment'"),
        ("augment.inner.polic=[]", r"augment.inner.polic"),
    ],
)
def test_settings_that_do_not_fit_are_refused(override: str, message: str, small: Small) -> None:
    more = ["augment.inner.name=diffaugment"] if override.startswith("augment.inner.") else []
    with pytest.raises(SettingsError, match=message):
        gankit.load("wgan-gp", *small(*more, *override.split()))


def test_a_negative_gap_is_no_target_of_the_held_out_rule(small: Small) -> None:
    gankit.load("wgan-gp", *small("augment.target=-0.2"))
    with pytest.raises(SettingsError, match=r"target=-0\.2 with rule held-out"):
        gankit.load("wgan-gp", *small("augment.target=-0.2", "augment.rule=held-out"))


def test_the_held_out_rule_asks_for_held_out_images(small: Small, tmp_path: Path) -> None:
    with pytest.raises(PartError, match=r"augment adaptive looks at held-out images: set data\.held_out"):
        gankit.train(gankit.load("wgan-gp", *small("augment.rule=held-out")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# --- training ---------------------------------------------------------------------------------------------------------


def test_an_inner_augment_is_told_once_of_each_step(small: Small, tmp_path: Path) -> None:
    told: list[int] = []

    @gankit.augments.register("curious")
    class Curious(gankit.Augment):
        def forward(self, images: Tensor) -> Tensor:
            return images

        def before_step(self, step: int) -> None:
            told.append(step)

    experiment = gankit.load("wgan-gp", *small(*SIGN, "augment.inner=curious", "training.steps=2"))
    gankit.train(experiment, tmp_path / "run")
    assert told[-2:] == [1, 2]  # after those of a rehearsal


class Killed(BaseException):
    pass


def die_at_step_6(row: dict[str, Any]) -> None:
    if row["step"] == 6:
        raise Killed


def log(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in ("seconds", "images_per_second")} for row in rows]


HELD_OUT = ["augment.rule=held-out", "augment.start=0.3", "data.held_out=0.25"]
KINDS = {
    "sign": SIGN,
    "differences": [
        "augment.start=0.3",
        'losses=["relativistic", {name="r1", weight=0.1}]',
        "augment.inner=diffaugment",
    ],
    "held-out": HELD_OUT,
    "conditional": [*HELD_OUT, "data.conditional=true", "augment.scope=critic-turn"],
    "reals": [*HELD_OUT, "augment.scope=real", "critic.spectral=true"],
    "bf16": [*HELD_OUT, "training.precision=bf16"],
    "float64": [*SIGN, "training.precision=float64", "training.averaging=0"],
    "clipping": [*HELD_OUT, 'losses=["wasserstein", "weight-clipping"]', "training.optimizer=RMSprop"],
}


# The others differ in what gankit does beside the augment.
QUICKLY = {"sign", "conditional"}


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind in QUICKLY else pytest.mark.slow) for kind in KINDS]
)
def test_killed_and_resumed_is_bitwise_as_never_stopped(kind: str, small: Small, tmp_path: Path) -> None:
    experiment = gankit.load("wgan-gp", *small(*KINDS[kind]))
    whole = gankit.train(experiment, tmp_path / "whole")
    with pytest.raises(Killed):
        gankit.train(experiment, tmp_path / "cut", on_tick=die_at_step_6)
    torch.manual_seed(7)  # what the resuming process drew before must not matter
    cut = gankit.resume(tmp_path / "cut")
    assert cut.finished
    files = [run.path / "generator.safetensors" for run in (whole, cut)]
    assert files[0].read_bytes() == files[1].read_bytes()
    rows = log(whole.path)
    assert log(cut.path) == rows
    assert len({row["augment/p"] for row in rows}) > 2  # it went up or down before and after
    assert all(0 <= row["augment/p"] <= 1 for row in rows)


class Learner(Critic):
    """A critic for 4x4 images with more than enough weights to know a few of them by heart."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(16, 128), nn.ReLU(), nn.Linear(128, 1))

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        scores: Tensor = self.layers(images)
        return scores


class Noise(gankit.Generator):
    latent_dim = 16

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return z.view(-1, 1, 4, 4)


def train_critic(augment: AdaptiveAugment, images: int, shift: float, loss: Literal["wasserstein", "logistic"]) -> None:
    """150 steps against noise, on as many images of noise that is shifted."""
    training, others = (torch.randn(n, 1, 4, 4) + shift for n in (images, 512))
    critic = Learner()
    optimizer = torch.optim.Adam(critic.parameters(), lr=3e-3)
    for step in range(150):
        turn = Turn(
            "critic",
            Noise(),
            critic,
            real=lambda: training[torch.randint(len(training), (32,))],
            labels=None,
            latents=torch.randn(32, 16),
            step=step,
            random=None,  # type: ignore[arg-type]
            augment=augment,
            held_out=lambda: (others[torch.randint(len(others), (32,))], None),
        )
        gap = turn.fake_scores - turn.real_scores
        if loss == "wasserstein":
            weights = sum(weight.square().sum() for weight in critic.parameters())
            value = gap.mean() + 0.01 * weights
        else:
            softplus = nn.functional.softplus
            value = softplus(turn.fake_scores).mean() + softplus(-turn.real_scores).mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        augment.after_step(turn)


@pytest.mark.parametrize(
    ("rule", "loss"),
    [
        ("sign", "logistic"),
        ("held-out", "wasserstein"),
        pytest.param("held-out", "logistic", marks=pytest.mark.slow),
    ],
)
def test_p_rises_while_a_critic_overfits_and_falls_where_it_does_not(rule: Any, loss: Any) -> None:
    settings: dict[str, Any] = {"inner": "diffaugment", "rule": rule, "start": 0.1, "images": 5000, "p_max": 0.8}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        # Eight images of the very noise that the generator draws: whatever tells them apart is learnt by heart.
        overfit = gankit.build("augment", "adaptive", **settings)
        train_critic(overfit, images=8, shift=0.0, loss=loss)
        # Many images: what is learnt holds for others too. A small shift, so that not every sign is right either.
        sound = gankit.build("augment", "adaptive", **settings)
        train_critic(sound, images=4096, shift=0.15, loss=loss)
    # What p does to r is little enough for the gap, which stays high, and enough for the signs, of which p finds the
    # target on the way up.
    assert overfit.p > (0.18 if rule == "sign" else 0.7)
    assert sound.p < 0.05
    assert sound.r < sound.target


QUICK = [
    "data.counts=[20, 20, 20]", "data.size=32", "training.steps=2", "training.batch=4", "training.tick_every=1",
    "evaluation.features=pixels",
]  # fmt: skip


def test_the_example_trains(tmp_path: Path) -> None:
    widths = ["generator.widths=[8, 4, 4, 4]", "critic.widths=[4, 4, 4, 8]"]
    run = gankit.train(gankit.load(FOLDER / "adaptive.toml", *QUICK, *widths), tmp_path / "run")
    assert run.finished
    assert {"augment/p", "augment/r"} <= log(run.path)[-1].keys()


def test_r3gan_ada_is_r3gan_with_adaptive_augmentation(tmp_path: Path) -> None:
    settings = [*QUICK, "generator.width=8", "critic.width=8"]
    ours, plain = (gankit.load(recipe, *settings).tables() for recipe in ("r3gan-ada", "r3gan"))
    augment, _ = ours.pop("augment"), plain.pop("augment")
    assert ours == plain
    assert (augment["name"], augment["rule"], augment["inner"]["name"]) == ("adaptive", "sign", "transforms")
    assert {key for key, on in augment["inner"].items() if on is False} == {"flip", "quarter_turns", "inversion", "hue"}
    run = gankit.train(gankit.load("r3gan-ada", *settings), tmp_path / "run")
    assert run.finished
    assert {"augment/p", "augment/r"} <= log(run.path)[-1].keys()


def test_grey_levels_that_may_be_measurements_are_not_changed() -> None:
    image = gankit.ImageSpec(1, 32, 32)
    inner = [adaptive_table(TrainingImages(image, 300, pictures))["inner"] for pictures in (True, False)]
    assert inner[1] == inner[0] | dict.fromkeys(("brightness", "contrast", "saturation"), False)


def test_beside_a_wasserstein_loss_the_sign_rule_is_refused_before_anything_is_written(
    small: Small, tmp_path: Path
) -> None:
    with pytest.raises(PartError, match="beside wasserstein, gradient-penalty a score of 0"):
        gankit.train(gankit.load("wgan-gp", *small()), tmp_path / "run")
    assert not (tmp_path / "run").exists()
