"""Parts made of a stranger's modules, functions and arrays."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import gankit
from gankit.errors import DataError, GankitError, PartError
from gankit.interfaces import ClassHead, FeatureCritic, Loss, Turn
from gankit.runs import checkpoint

Small = Callable[..., list[str]]


class Painter(nn.Module):
    """A generator as a stranger writes it: no gankit, positional arguments, some without annotations."""

    def __init__(self, image: Any, latent: int = 5, hidden=3, bias=True) -> None:  # type: ignore[no-untyped-def]
        super().__init__()
        self.shape = (image.channels, image.height, image.width)
        self.body = nn.Sequential(
            nn.Linear(latent, hidden, bias), nn.Linear(hidden, int(np.prod(self.shape))), nn.Tanh()
        )

    def forward(self, z: Tensor) -> Tensor:
        images: Tensor = self.body(z).view(-1, *self.shape)
        return images


class Judge(nn.Module):
    def __init__(self, width: int = 2, *, pixels: int = 192) -> None:
        super().__init__()
        self.layer = nn.Linear(pixels, width)

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.layer(images.flatten(1))
        return scores


class Labelled(Judge):
    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        assert labels is not None
        return super().forward(images) * (1 + labels[:, None])


class Fade(nn.Module):
    def __init__(self, share: float = 0.5) -> None:
        super().__init__()
        self.share = share

    def forward(self, images: Tensor) -> Tensor:
        return images * self.share


class Means(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))


def loss() -> Any:
    return gankit.wrap(
        "loss",
        critic=lambda turn: turn.fake_scores.mean() - turn.real_scores.mean(),
        generator=lambda turn: -turn.fake_scores.mean(),
    )


def trained(overrides: list[str], out: Path, *more: str, **options: Any) -> gankit.Run:
    kept = [text for text in overrides if not text.startswith(("generator.", "critic."))]
    return gankit.train(gankit.load("wgan-gp", *kept, "training.steps=2", *more), out, **options)


def test_classes_of_every_kind_train(small: Small, tmp_path: Path) -> None:
    gankit.generators.register("painter")(gankit.wrap("generator", Painter, latent_dim=7))
    gankit.critics.register("judge")(gankit.wrap("critic", Judge))
    gankit.augments.register("fade")(gankit.wrap("augment", Fade))
    gankit.features.register("means")(gankit.wrap("features", Means, dim=3))
    gankit.losses.register("mine")(loss())
    run = trained(
        small(), tmp_path / "run", "generator.name=painter", "generator.latent=7", "generator.hidden=4",
        "critic.name=judge", "critic.width=3", "augment.name=fade", "augment.share=0.25",
        'losses=["mine", {name="gradient-penalty", weight=2.0}]', "evaluation.features=means", "training.tick_every=1",
        "evaluation.every=2", "evaluation.count=8",
    )  # fmt: skip
    assert run.finished
    assert run.sample(3).shape == (3, 3, 8, 8)
    assert {"critic/mine", "critic/gradient-penalty", "generator/mine"} <= set(run.log[0])
    assert run.log[1]["metrics"]["frechet"] > 0
    assert run.generator.part.module.body[0].weight.shape == (4, 7)
    assert gankit.open_run(run.path).experiment == run.experiment
    assert gankit.evaluate(run, run, features="means", count=10)["metrics"]["frechet"]["value"] > 0


def test_instances_of_every_kind_train(small: Small, tmp_path: Path) -> None:
    image = gankit.ImageSpec(3, 8, 8)
    generator = gankit.wrap("generator", Painter(image), latent_dim=5)
    gankit.generators.register("painter")(generator)
    gankit.critics.register("judge")(gankit.wrap("critic", Judge()))
    gankit.augments.register("fade")(gankit.wrap("augment", lambda images: images * 0.5))
    gankit.losses.register("mine")(loss())
    before = [parameter.clone() for parameter in generator.parameters()]
    more = ["generator.name=painter", "critic.name=judge", "augment.name=fade", 'losses=["mine"]']
    first, second = (trained(small(), tmp_path / name, *more) for name in ("a", "b"))
    assert (first.path / "generator.safetensors").read_bytes() == (second.path / "generator.safetensors").read_bytes()
    for old, new in zip(before, generator.parameters(), strict=True):
        assert torch.equal(old, new)  # each training has a copy


def test_a_module_of_ones_own_loop() -> None:
    image = gankit.ImageSpec(3, 8, 8)
    generator = gankit.wrap("generator", Painter(image), latent_dim=5)
    critic = gankit.wrap("critic", Judge())
    assert isinstance(generator, gankit.Generator)
    assert isinstance(critic, gankit.Critic)
    fake, real = generator(torch.randn(4, 5)), torch.rand(4, 3, 8, 8)
    assert gankit.losses.gradient_penalty.gradient_penalty(critic, real, fake).shape == (4,)


def test_settings_of_wrapped_classes() -> None:
    gankit.generators.register("painter")(gankit.wrap("generator", Painter, latent_dim=5))
    model = gankit.generators.settings("painter")
    assert {name: field.annotation for name, field in model.model_fields.items()} == {
        "latent": int, "hidden": int, "bias": bool,
    }  # fmt: skip
    part = gankit.build("generator", "painter", gankit.ImageSpec(1, 4, 4))
    assert (part.latent_dim, part(torch.zeros(2, 5)).shape) == (5, (2, 1, 4, 4))
    with pytest.raises(PartError, match=r"painter.hiden: there is no such setting; did you mean 'hidden'\?"):
        gankit.build("generator", "painter", gankit.ImageSpec(1, 4, 4), hiden=3)
    assert gankit.generators.get("painter").__name__ == "Painter"
    assert "A generator as a stranger writes it" in (gankit.generators.get("painter").__doc__ or "")


def test_labels(small: Small, tmp_path: Path) -> None:
    gankit.generators.register("painter")(gankit.wrap("generator", Painter, latent_dim=5))
    gankit.critics.register("judge")(gankit.wrap("critic", Judge))
    gankit.critics.register("labelled")(gankit.wrap("critic", Labelled, labels=True))
    more = ["data.conditional=true", 'losses=["wasserstein"]']
    with pytest.raises(PartError, match="wrap it with labels=True"):
        trained(small(), tmp_path / "run", "generator.name=painter", "critic.name=labelled", *more)
    with pytest.raises(PartError, match="wrap it with labels=True"):
        trained(small(), tmp_path / "run", "critic.name=judge", *more)
    assert not (tmp_path / "run").exists()
    kept = [text for text in small(*more, "training.steps=2") if not text.startswith("critic.")]
    assert gankit.train(gankit.load("wgan-gp", *kept, "critic.name=labelled"), tmp_path / "run").finished


def test_a_loss_of_one_function_trains_one_side(small: Small, tmp_path: Path) -> None:
    gankit.losses.register("one-sided")(gankit.wrap("loss", critic=lambda turn: -turn.real_scores.mean()))
    with pytest.raises(PartError, match="none of one-sided trains the generator; add one that does"):
        gankit.train(gankit.load("wgan-gp", *small(), 'losses=["one-sided"]'), tmp_path / "run")


def test_a_loss_by_functions() -> None:
    one_sided = gankit.wrap("loss", critic=lambda turn: turn, per_sample=True)
    assert one_sided.per_sample is True
    turn: Turn = object()  # type: ignore[assignment]
    assert one_sided.critic(turn) is turn
    assert one_sided.generator(turn) is None
    assert gankit.wrap("loss").per_sample is False


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: gankit.wrap("generator", Judge()),
            r"wrap\('generator'\): missing a required .*argument: 'latent_dim'",
        ),
        (lambda: gankit.wrap("features", Means), r"wrap\('features'\): missing a required .*argument: 'dim'"),
        (
            lambda: gankit.wrap("critic", Judge(), width=3),
            r"wrap\('critic'\): got an unexpected keyword argument 'width'",
        ),
        (lambda: gankit.wrap("loss", discriminator=abs), "unexpected keyword argument 'discriminator'"),
        (lambda: gankit.wrap("metric", abs), "kind 'metric' cannot be wrapped; these can: generator, critic"),
        (lambda: gankit.wrap("crtic", abs), "kind 'crtic' cannot be wrapped"),
        (lambda: gankit.wrap("critic", "resnet"), r"wrap\('critic'\): a module, .* is needed, not 'resnet'"),
        (lambda: gankit.wrap("loss", abs), r"wrap\('loss'\) takes functions by name: critic="),
        (lambda: gankit.wrap("loss", critic="hinge"), r"wrap\('loss'\): critic must be a function, not 'hinge'"),
    ],
)
def test_errors(make: Callable[[], object], message: str) -> None:
    with pytest.raises(PartError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


# Arrays


def images(n: int = 12, dtype: Any = np.uint8) -> Any:
    draw = np.random.default_rng(0)
    return (
        draw.random((n, 3, 8, 8), dtype=np.float32)
        if dtype == np.float32
        else draw.integers(0, 255, (n, 3, 8, 8), dtype)
    )


def test_arrays_with_all_that_is_known_train(small: Small, tmp_path: Path) -> None:
    data = gankit.wrap(
        "dataset", images(), labels=[0, 1, 2] * 4, class_names=("a", "b", "c"), groups=np.arange(12) // 3,
        agreement=np.linspace(0.5, 1, 12), facts={"severity": np.arange(12.0)}, mirror=None,
    )  # fmt: skip
    assert (len(data), data.image.classes, data.value_range) == (12, 3, (0.0, 255.0))
    assert data.mirror(data.images) is None
    assert [data.class_names[k] for k in data.subset([4]).labels] == ["b"]
    overrides = [text for text in small("training.steps=2") if not text.startswith("data.")]
    experiment = gankit.load("wgan-gp", *overrides, "data.flip=false", "data.size=8", 'data.conditional=["severity"]')
    run = gankit.train(experiment, tmp_path / "run", data=data)
    assert run.image.conditions == 1
    assert run.sample(2, labels=[4.5]).dtype == np.uint8


def test_arrays_mirror_by_default() -> None:
    data = gankit.wrap("dataset", images())
    assert np.array_equal(data.mirror(data.images), data.images[..., ::-1])
    tensor = torch.from_numpy(data.images)
    assert torch.equal(data.mirror(tensor), tensor.flip(-1))
    assert data.labels is None
    assert data.image == gankit.ImageSpec(3, 8, 8)


class Unreadable:
    """A data set of another library, one of whose files is missing."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Any:
        raise OSError("no such file")


@pytest.mark.parametrize(
    ("array", "facts", "message"),
    [
        (np.zeros((4, 8, 8), np.uint8), {}, r"images have the shape \(4, 8, 8\)"),
        (np.zeros((4, 3, 8, 8)), {}, "type float64"),
        (np.zeros((0, 3, 8, 8), np.uint8), {}, "there are no images"),
        (images(dtype=np.float32), {}, "float32 images need a value_range"),
        (images(dtype=np.float32) * 3, {"value_range": (0.0, 1.0)}, r"outside value_range = \[0, 1\]; widen"),
        (images(dtype=np.float32) * np.nan, {"value_range": (0.0, 1.0)}, "some values are NaN, outside value_range"),
        (images(), {"labels": [0, 1]}, r"labels has the shape \(2,\); there are 12 images"),
        (images(), {"labels": np.arange(12) / 2}, r"labels must be \(n,\) whole numbers from 0, not .* float64"),
        (images(), {"labels": np.arange(12) - 1}, "labels has -1; they must be whole numbers from 0"),
        (images(), {"labels": ["exotrop\u00eda", "exotropi\u0301a"] * 6}, r"exotropi\\u0301a' and .* two spellings"),
        (images(), {"labels": ["a b", "a\u00a0b"] * 6}, "one name in two spellings"),
        (images(), {"labels": ["1", "01"] * 6}, "one name in two spellings"),
        (images(), {"labels": ["a", " "] * 6}, "labels has no value for image 1"),
        ([(image, {"boxes": [1]}) for image in images()], {}, "labels has a dict; .* or names, .*; labels = .none."),
        ([(image, image[0]) for image in images()], {}, r"labels has the shape \(12, 8, 8\); .*; labels = .none."),
        ([(image, [[1], [1, 2]]) for image in images()], {}, "label 0 cannot be an array: .*; labels = .none."),
        ([(image, [1] * (2 + k)) for k, image in enumerate(images())], {}, "several lengths; labels = .none."),
        ([(image, k / 2) for k, image in enumerate(images())], {}, "not .* float64; labels = .none. leaves out"),
        ([["a.png", 0], ["b.png", 1]], {}, "image 0 is the name of a file"),
        (images(), {"groups": np.array(["2020-01-01", "NaT"] * 6, "M8[D]")}, "groups has no value for image 1"),
        (images(), {"facts": [1, 2]}, r"facts is \[1, 2\]: give a dict of arrays by name"),
        (images(), {"mirror": True}, "mirror is True: give a function, or None"),
        (np.ma.masked_greater(images(), 200), {}, "images has values that are masked out"),
        (images(), {"labels": np.ma.masked_equal([0, 1] * 6, 1)}, "labels has values that are masked out"),
        (images(), {"facts": {"age": np.ma.masked_equal([0, 1] * 6, 1)}}, "age has values that are masked out"),
        (np.zeros((4, 16, 16, 2), np.uint8), {}, "have more channels than pixels across; put channels first"),
        (np.zeros((16, 16, 3, 9), np.uint8), {}, "have more channels than pixels across; put channels first"),
        (np.zeros((4, 3, 0, 8), np.uint8), {}, r"there are no images in an array of shape \(4, 3, 0, 8\)"),
        (torch.zeros(4, 3, 8, 8, dtype=torch.bfloat16), {}, "images cannot be an array: .* BFloat16"),
        (torch.zeros(4, 3, 8, 8, device="meta"), {}, "images cannot be an array: .* no data"),
        (Unreadable, {}, "images are of type type"),
        (images(), {"labels": 2 * np.eye(12, dtype=int)}, r"labels must be \(n,\)"),
        (images(), {"labels": [0, 10**9] * 6}, "labels has the class 1000000000: number classes 0, 1"),
        (images(), {"labels": ["a", None] * 6}, "labels has no value for image 1"),
        (images(), {"labels": [[0]] * 11 + [[0, 1]]}, "labels cannot be an array: its rows have several lengths"),
        (images(), {"labels": np.eye(12, dtype=int), "class_names": ("a", "b")}, "2 names for 12 columns of labels"),
        (
            images(),
            {"labels": np.eye(12, dtype=int)[:, :2], "facts": {"label-1": range(12)}},
            "facts has 'label-1', and so have the labels",
        ),
        (images(), {"labels": [0, 1] * 6, "class_names": ("a", "a")}, "class_names has 'a' twice"),
        (images(), {"labels": [0, 1] * 6, "class_names": ("a", "A")}, "class_names has 'A' and 'a'"),
        (images(), {"groups": [1.0, np.nan] * 6}, "groups has no value for image 1"),
        (images(), {"agreement": ["high"] * 12}, r"agreement has values outside \[0, 1\]"),
        (images(), {"facts": {"age": None}}, r"age has the shape \(\)"),
        (images(), {"value_range": (1.0, 0.0)}, r"value_range = \[1, 0\] must be two finite numbers"),
        (images(), {"value_range": (0.0, 1.0, 2.0)}, r"value_range = \(0.0, 1.0, 2.0\) must be two finite numbers"),
        ([Image.new("RGBA", (8, 8))], {}, "image 0 is partly transparent"),
        ([np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint16)], {}, "several shapes or types, such as .* uint16"),
        ([], {}, "there are no images"),
        ("photos", {}, "images are of type str"),
        ([Path("a.png"), "b.png"], {}, "image 0 is the name of a file: open it with Pillow"),
        (images(), {"labels": ["a", "b"] * 6, "class_names": ("a",)}, "labels has 'b', which class_names lacks"),
        ([np.zeros((3, 8, 8), np.uint8), np.zeros((3, 9, 8), np.uint8)], {}, "images have several shapes"),
        ([{"picture": 1}], {}, 'item 0 has picture; a key "image" is needed'),
        (iter([]), {}, r"a data set with len\(\) is needed"),
        ({"train": images()}, {}, r"images are of type dict; an array, a list or a data set with len\(\) is needed"),
        (Unreadable(), {}, r"item 0 cannot be read: OSError: no such file"),
        ([(), ()], {}, r"images have the shape \(2, 0\)"),
        ([(images()[0], None), (images()[1], 1)], {}, "labels has no value for image 0"),
        ([(images()[0], 1), (images()[1],)], {}, "labels has no value for image 1"),
        (images(), {"labels": [0, 1, 2] * 4, "class_names": "cat"}, "class_names is of type str: give a list"),
        (images(), {"labels": [0, 1] * 6, "class_names": {"a", "b"}}, "class_names is of type set: give a list"),
        (images(), {"labels": [0, 1] * 6, "class_names": {1: "a", 0: "b"}}, "class_names is of type dict"),
        (images(), {"labels": [0, 2] * 6, "class_names": ("a", "b")}, "class_names has 2 names for 3 classes"),
        (images(), {"class_names": ("a", "b")}, "class_names has 2 names for 0 classes"),
        (images(), {"agreement": np.full(12, 80)}, r"agreement has values outside \[0, 1\]"),
        (images(), {"facts": {"age": [1]}}, r"age has the shape \(1,\)"),
        (images(), {"groups": 3}, r"groups has the shape \(\)"),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit(array: Any, facts: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        gankit.wrap("dataset", array, **facts)
    assert isinstance(caught.value, GankitError)
    assert "\n" not in str(caught.value)


# What else a module can do, and other forms of data


class Wise(nn.Module):
    """A critic with inner features, a class head, and a step of its own."""

    def __init__(self, dim: int = 5) -> None:
        super().__init__()
        self.body, self.head, self.classes = nn.Linear(192, dim), nn.Linear(dim, 1), nn.Linear(dim, 2)
        self.register_buffer("step", torch.zeros(()))

    def features(self, images: Tensor) -> Tensor:
        return self.body(images.flatten(1)).relu()  # type: ignore[no-any-return]

    def score(self, features: Tensor) -> Tensor:
        return self.head(features)  # type: ignore[no-any-return]

    def class_logits(self, features: Tensor) -> Tensor:
        return self.classes(features)  # type: ignore[no-any-return]

    def forward(self, images: Tensor) -> Tensor:
        return self.score(self.features(images))

    def before_step(self, step: int) -> None:
        self.step.fill_(step)


def test_a_wrapped_critic_shows_its_features_and_classes(small: Small, tmp_path: Path) -> None:
    for critic in (gankit.wrap("critic", Wise()), gankit.wrap("critic", Wise)()):
        assert isinstance(critic, FeatureCritic)
        assert isinstance(critic, ClassHead)
        other = copy.deepcopy(critic)
        with torch.no_grad():
            next(critic.parameters()).zero_()
        x = torch.rand(2, 3, 8, 8)
        torch.testing.assert_close(other.score(other.features(x), None), other(x))
        assert not torch.equal(other.features(x), critic.features(x))  # the copy's own
        assert set(other.state_dict()) == set(critic.state_dict())
    assert not isinstance(gankit.wrap("critic", nn.Sequential(Judge())), FeatureCritic)
    gankit.critics.register("wise")(gankit.wrap("critic", Wise))
    run = trained(small(), tmp_path / "run", "critic.name=wise")
    assert run.critic.part.module.step == 2  # type: ignore[union-attr]


class Styled(nn.Module):
    """A generator in two halves, as StyleGAN's."""

    style_layers = 2

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.maps, self.paints = nn.Linear(5, width), nn.Linear(2 * width, 192)

    def mapping(self, z: Tensor) -> Tensor:
        return self.maps(z).tanh()  # type: ignore[no-any-return]

    def synthesis(self, styles: Tensor) -> Tensor:
        return self.paints(styles.flatten(1)).tanh().view(-1, 3, 8, 8)  # type: ignore[no-any-return]

    def forward(self, z: Tensor) -> Tensor:
        return self.synthesis(self.mapping(z)[:, None].expand(-1, 2, -1))


@runtime_checkable
class MapsLatents(Protocol):
    """What a loss on styles asks for."""

    style_layers: int

    def mapping(self, z: Tensor, labels: Tensor | None = None) -> Tensor: ...

    def synthesis(self, styles: Tensor) -> Tensor: ...


class Smooth(Loss):
    needs = (MapsLatents,)

    def generator(self, turn: Turn) -> Tensor:
        generator = turn.generator
        assert isinstance(generator, MapsLatents)
        styles = generator.mapping(turn.latents, turn.labels)[:, None].expand(-1, generator.style_layers, -1)
        torch.testing.assert_close(generator.synthesis(styles), turn.generator(turn.latents, turn.labels))
        return generator.synthesis(styles).square().mean()


def test_a_wrapped_generator_shows_its_two_halves(small: Small, tmp_path: Path) -> None:
    for generator in (
        gankit.wrap("generator", Styled(), latent_dim=5),
        gankit.wrap("generator", Styled, latent_dim=5)(),
    ):
        other = copy.deepcopy(generator)
        with torch.no_grad():
            generator.get_parameter(next(name for name, _ in generator.named_parameters() if "maps" in name)).zero_()
        assert isinstance(other, MapsLatents)
        z = torch.rand(2, 5)
        styles = other.mapping(z, None)[:, None].expand(-1, 2, -1)
        torch.testing.assert_close(other.synthesis(styles), other(z))
        assert not torch.equal(other(z), generator(z))  # the copy's own
    assert not isinstance(gankit.wrap("generator", Painter(gankit.ImageSpec(3, 8, 8)), latent_dim=5), MapsLatents)
    gankit.losses.register("smooth")(Smooth)
    gankit.generators.register("styled")(gankit.wrap("generator", Styled, latent_dim=5))
    overrides = ["generator.name=styled", "generator.width=3", "losses=['wasserstein', 'smooth']"]
    assert trained(small(), tmp_path / "run", *overrides).finished
    gankit.generators.register("painter")(gankit.wrap("generator", Painter, latent_dim=5))
    with pytest.raises(PartError, match=r"smooth needs .*MapsLatents"):
        trained(small(), tmp_path / "other", "generator.name=painter", "losses=['wasserstein', 'smooth']")


def test_a_wrapped_augment_and_loss_follow_the_steps_and_keep_their_state(small: Small, tmp_path: Path) -> None:
    class Adaptive(Fade):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("turns", torch.zeros(()))

        def after_step(self, turn: Turn) -> None:
            self.turns += 1

    class Mean:
        value = 0.0

        def __call__(self, turn: Turn) -> Tensor:
            self.value = 0.9 * self.value + turn.real_scores.mean().item()
            return turn.fake_scores.mean() * (1 + self.value) - turn.real_scores.mean()

        def state_dict(self) -> dict[str, float]:
            return {"value": self.value}

        def load_state_dict(self, state: dict[str, float]) -> None:
            self.value = state["value"]

    steps: list[int] = []
    gankit.augments.register("adaptive")(gankit.wrap("augment", Adaptive))
    mine = gankit.wrap("loss", critic=Mean(), generator=lambda turn: -turn.fake_scores.mean(), before_step=steps.append)
    gankit.losses.register("mine")(mine)
    run = trained(small("critic.width=4"), tmp_path / "run", "augment.name=adaptive", 'losses=["mine"]')
    state = checkpoint.restore(run.path / "checkpoints").state  # type: ignore[union-attr]
    assert state["loss mine"]["critic"]["value"] != 0
    assert state["augment"]["part.module.turns"] == 2 * (2 + 1)
    assert steps


def test_a_wrapped_network_may_declare_its_layout() -> None:
    assert gankit.wrap("critic", Judge(), channels_last=True).channels_last
    assert gankit.wrap("critic", Judge, channels_last=True)().channels_last
    assert not gankit.wrap("critic", Judge)().channels_last


def test_memory_maps_stay_on_the_disk_and_channels_may_come_last(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", images().transpose(0, 2, 3, 1))
    data = gankit.wrap("dataset", np.load(tmp_path / "images.npy", mmap_mode="r"))
    assert isinstance(data.images, np.memmap)
    assert data.image == gankit.ImageSpec(3, 8, 8)
    assert np.array_equal(data.images, images())


def test_labels_of_every_form() -> None:
    numbers = np.arange(12) % 3
    assert np.array_equal(gankit.wrap("dataset", images(), labels=numbers[:, None]).labels, numbers)
    texts = gankit.wrap("dataset", images(), labels=np.array(["cat", "ape", "dog"])[numbers])
    assert [texts.class_names[k] for k in texts.labels[:3]] == ["cat", "ape", "dog"]  # type: ignore[index]
    assert texts.class_names == ("ape", "cat", "dog")
    keys = gankit.wrap("dataset", images(), labels=[0, 1] * 6, class_names={"left": 0, "right": 1}.keys())
    assert keys.class_names == ("left", "right")
    several = gankit.wrap("dataset", images(), labels=np.eye(12, dtype=int)[:, :2], class_names=["left", "right"])
    assert several.labels is None
    assert several.facts["right"].tolist()[:3] == [0, 1, 0]


class Items:
    """A map-style data set."""

    def __init__(self, item: Callable[[int], Any]) -> None:
        self.item = item

    def __len__(self) -> int:
        return 12

    def __getitem__(self, number: int) -> Any:
        return self.item(number)


@pytest.mark.parametrize(
    "item",
    [
        lambda k: (Image.fromarray(images()[k].transpose(1, 2, 0)), k % 3),
        lambda k: {"image": Image.fromarray(images()[k].transpose(1, 2, 0)), "label": k % 3},
        lambda k: (torch.from_numpy(images()[k]), torch.tensor(k % 3)),
        lambda k: {"img": images()[k], "label": k % 3},
        lambda k: {"img": images()[k], "id": k, "Labels": k % 3},
        lambda k: {"image": images()[k], "target": np.array([k % 3])},
        lambda k: {"image": images()[k], "class": float(k % 3)},
        lambda k: {"image": images()[k], "y": torch.tensor(k % 3)},
        lambda k: [images()[k], k % 3],
        lambda k: [Image.fromarray(images()[k].transpose(1, 2, 0)), torch.tensor(k % 3)],
    ],
)
def test_data_sets_of_other_libraries(item: Callable[[int], Any]) -> None:
    data = gankit.wrap("dataset", Items(item))
    assert np.array_equal(data.images, images())
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 2] * 4


def test_classes_with_numbers_for_names_are_in_the_order_of_numbers() -> None:
    for labels in (np.arange(12).astype(object), np.arange(12).astype(str)):
        data = gankit.wrap("dataset", images(), labels=labels)
        assert data.labels is not None
        assert data.labels.tolist() == list(range(12))
        assert data.class_names == tuple(map(str, range(12)))


def test_an_array_without_a_masked_value_is_a_plain_one() -> None:
    data = gankit.wrap("dataset", np.ma.masked_array(images()), labels=np.ma.masked_array(np.arange(12)))
    assert type(data.images) is np.ndarray
    assert np.array_equal(data.images, images())


def test_labels_may_be_bytes_and_a_fact_may_be_called_labels() -> None:
    data = gankit.wrap(
        "dataset", images(), labels=np.array([b"cat", b"dog"] * 6), class_names=np.array(["dog", "cat"]),
        groups=np.arange(12)[:, None], facts={"groups": np.ones(12)},
    )  # fmt: skip
    assert (data.class_names, data.labels.tolist()) == (("dog", "cat"), [1, 0] * 6)  # type: ignore[union-attr]
    assert data.groups.tolist() == list(range(12))  # type: ignore[union-attr]
    assert data.facts["groups"].tolist() == [1.0] * 12


def test_pictures_with_a_palette_are_read_in_colour() -> None:
    picture = Image.new("RGB", (8, 8), (200, 100, 0))
    data = gankit.wrap("dataset", [picture, picture.quantize()])
    assert data.image == gankit.ImageSpec(3, 8, 8)
    assert np.array_equal(data.images[0], data.images[1])


def test_small_arrays_with_channels_first_stay_as_they_are() -> None:
    data = gankit.wrap("dataset", [np.zeros((3, 4, 4), np.uint8)] * 2)
    assert data.image == gankit.ImageSpec(3, 4, 4)
    assert len(gankit.wrap("dataset", torch.utils.data.TensorDataset(torch.zeros(5, 1, 8, 8, dtype=torch.uint8)))) == 5


@pytest.mark.parametrize("label", [np.zeros((8, 8)), {"boxes": [1]}, [[1], [1, 2]], 0.5])
def test_labels_of_items_that_are_no_classes_can_be_left_out(label: Any) -> None:
    items = [(image, label) for image in images()]
    assert gankit.wrap("dataset", items, labels="none").labels is None
    given = gankit.wrap("dataset", items, labels=np.arange(12.0) % 3).labels
    assert given is not None
    assert given.tolist() == [0, 1, 2] * 4


def test_keys_that_may_be_labels_are_named() -> None:
    items = [{"image": image, "coarse_label": 1, "fine_label": 2} for image in images()]
    data = gankit.wrap("dataset", items)
    assert data.labels is None
    assert data.remarks == [
        "no label is read of the items, whose other keys are 'coarse_label', 'fine_label': give labels"
    ]
    for labels in ("none", [0, 1] * 6):
        assert gankit.wrap("dataset", items, labels=labels).remarks == []


def test_channels_and_rows_in_lists_stay_images() -> None:
    rows = images()[0]
    assert gankit.wrap("dataset", [list(rows[:2]), list(rows[1:])]).image == gankit.ImageSpec(2, 8, 8)
    assert gankit.wrap("dataset", [list(rows[0]), list(rows[1])]).image == gankit.ImageSpec(1, 8, 8)


def test_a_list_of_pictures() -> None:
    grey = [Image.fromarray(image[0]) for image in images()]
    assert gankit.wrap("dataset", grey).image == gankit.ImageSpec(1, 8, 8)
