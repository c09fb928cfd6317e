"""Parts by name, settings from constructors, and what is refused in one sentence."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import processes
import pytest
import torch
from pydantic import BaseModel, ValidationError, model_validator
from registered_parts import Blur, refused
from torch import Tensor, nn

import gankit
from gankit.errors import SettingsError
from gankit.registry import Part, read_part, registry
from gankit.registry.plugins import KINDS

IMAGE = gankit.ImageSpec(3, 8, 8)


def in_a_new_gankit(code: str) -> str:
    """What code prints in a process that has loaded nothing of gankit."""
    done = processes.run(code=processes.FORGET_GANKIT + code)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_listing_imports_nothing() -> None:
    code = (
        "import sys\nfrom gankit.registry import registry\nfrom gankit.registry.plugins import KINDS\n"
        "assert all(registry(kind).names() for kind in KINDS)\n"
        "print([name for name in sys.modules if name == 'torch' or name.startswith('gankit.losses.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_getting_one_part_imports_one_file() -> None:
    code = (
        "import sys, gankit\ngankit.losses.get('hinge')\n"
        "print(sorted(n for n in sys.modules if n.startswith('gankit.losses.') and '._' not in n))"
    )
    assert in_a_new_gankit(code).strip() == "['gankit.losses.hinge']"


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_name_is_the_name(kind: str) -> None:
    for name in registry(kind).built_in():
        part = registry(kind).get(name)
        assert part.__module__ == registry(kind).module(name).__name__
        assert part.__module__.startswith(f"{registry(kind).package}.{name.replace('-', '_')}")
        assert issubclass(part, registry(kind).interface())
        assert registry(kind).qualified_name(name) == name
        assert registry(kind).qualified_name(f"gankit:{name}") == name
        registry(kind).settings(name)


@pytest.mark.parametrize("kind", KINDS)
def test_built_in_settings_are_frozen_and_closed(kind: str) -> None:
    for name in registry(kind).built_in():
        model = registry(kind).settings(name)
        assert model.model_config["frozen"] is True
        assert model.model_config["extra"] == "forbid"
        assert registry(kind).settings(name) is model


def test_settings_come_from_the_signature() -> None:
    gankit.augments.register("blur")(Blur)
    model = gankit.augments.settings("blur")
    assert list(model.model_fields) == ["share", "times", "way", "sizes"]
    settings = model(share=0.5, sizes=[3])
    assert settings.model_dump() == {"share": 0.5, "times": 2, "way": "up", "sizes": (3,)}
    with pytest.raises(ValidationError, match="frozen"):
        settings.share = 1.0  # type: ignore[attr-defined]
    wrong = {"share": 2.0, "times": "x", "way": "left", "tims": 3}
    with pytest.raises(ValidationError) as caught:
        model(**wrong)
    messages = {error["loc"][0]: error["msg"] for error in caught.value.errors()}
    assert messages["share"] == "input should be less than or equal to 1, not 2.0"
    assert messages["times"].startswith("a whole number is needed")
    assert messages["way"] == "input should be 'up' or 'down', not 'left'"
    assert messages["tims"] == "there is no such setting; did you mean 'times'?"
    with pytest.raises(ValidationError, match="share\n  this setting is missing, and has no default"):
        model()
    schema = model.model_json_schema()["properties"]
    assert (schema["share"]["minimum"], schema["share"]["maximum"], schema["times"]["default"]) == (0, 1, 2)


def test_build() -> None:
    gankit.augments.register("blur")(Blur)
    part = gankit.build("augment", "blur", share=0.5)
    assert isinstance(part, Blur)
    assert part.sizes == (1, 2)
    assert gankit.build("critic", "resnet", IMAGE, width=4)(torch.zeros(2, 3, 8, 8)).shape[0] == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gankit.build("augment", "blur", share=2), "augment blur.share: input should be less than or equal"),
        (lambda: gankit.build("augment", "blur", shade=0.5), "blur.shade: there is no such setting; did you mean"),
        (lambda: gankit.build("augment", "blurr"), "no augment named 'blurr'; did you mean 'blur'?"),
        (lambda: gankit.build("augment", type("Blur", (), {})), "augment: a name is needed, not <class "),
        (lambda: gankit.build("augment", "blur:x"), "distribution blur is not installed"),
        (lambda: gankit.build("argument", "blur"), "no kind of part named 'argument'; did you mean 'augment'?"),
        (lambda: gankit.build("critic", "resnet"), "critic 'resnet' needs an ImageSpec as image, not None"),
        (lambda: gankit.build("critic", "resnet", (3, 8, 8)), "needs an ImageSpec as image, not (3, 8, 8)"),
    ],
)  # fmt: skip
def test_errors_of_build(make: Callable[[], object], message: str) -> None:
    gankit.augments.register("blur")(Blur)
    assert message in refused(make)


def test_a_constructor_that_raises_is_named() -> None:
    @gankit.augments.register("fussy")
    class Fussy(gankit.Augment):
        def __init__(self, *, k: int = 1) -> None:
            raise ValueError("k must be\nodd")

        def forward(self, images: Tensor) -> Tensor:
            return images

    assert (
        refused(lambda: gankit.build("augment", "fussy"))
        == "augment 'fussy' cannot be built: ValueError: k must be odd"
    )


def test_none_in_place_of_a_default_is_written_and_read_again() -> None:
    @gankit.augments.register("null")
    class Null(Blur):
        def __init__(self, *, k: int | None = 1) -> None:
            super().__init__(share=1)

    part = read_part("augment", {"name": "null", "k": None})
    assert part.table() == {"name": "null", "k": "none"}
    assert read_part("augment", part.table()).settings.k is None
    assert read_part("augment", "null").settings.k == 1


class Range(BaseModel):
    low: float = 0.0
    high: float = 1.0

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.low > self.high:
            raise ValueError(f"low = {self.low} is above high = {self.high}")
        return self


def test_a_rule_across_settings() -> None:
    @gankit.augments.register("scaled")
    class Scaled(gankit.Augment):
        Settings = Range

        def __init__(self, *, low: float, high: float) -> None:
            super().__init__()
            self.low, self.high = low, high

        def forward(self, images: Tensor) -> Tensor:
            return images * self.low

    assert gankit.build("augment", "scaled", high=3).high == 3.0
    assert "low = 2.0 is above high = 1.0" in refused(lambda: gankit.build("augment", "scaled", low=2))
    assert "did you mean 'high'?" in refused(lambda: gankit.build("augment", "scaled", hihg=2))
    with pytest.raises(SettingsError, match=r"override 'augment.name=scaled': augment: low = 0.9 is above high = 0.1"):
        gankit.load("wgan-gp", "augment.name=scaled", "augment.low=0.9", "augment.high=0.1")


class Sometimes(gankit.Augment):
    def __init__(
        self, *, inner: gankit.Augment, more: Sequence[gankit.Augment] = (), other: gankit.Augment | None = None,
        chance: float = 0.5,
    ) -> None:  # fmt: skip
        super().__init__()
        self.inner, self.more, self.other, self.chance = inner, nn.ModuleList(more), other, chance

    def forward(self, images: Tensor) -> Tensor:
        return self.inner(images)


def test_a_part_inside_a_part() -> None:
    gankit.augments.register("now-and-then")(Sometimes)
    gankit.augments.register("blur")(Blur)
    experiment = gankit.load(
        "wgan-gp", "augment.name=now-and-then", "augment.inner.name=diffaugment", 'augment.inner.policy=["color"]',
        'augment.more=["diffaugment", {name="now-and-then", inner="diffaugment"}]', "augment.scope=critic-turn",
    )  # fmt: skip
    assert experiment.augment is not None
    built = experiment.augment.part.build(IMAGE)
    assert built.inner.policy == ("color",)
    assert built.other is None
    assert [type(part).__name__ for part in built.more] == ["DiffAugment", "Sometimes"]
    assert built(torch.zeros(2, 3, 8, 8)).shape == (2, 3, 8, 8)
    text = experiment.toml()
    assert gankit.load(experiment) == experiment
    assert gankit.load(tomllib.loads(text)) == experiment
    assert experiment.part_names() == [
        "eyes", "resnet", "resnet", "wasserstein", "gradient-penalty", "now-and-then", "diffaugment", "diffaugment",
        "now-and-then", "diffaugment",
    ]  # fmt: skip
    with pytest.raises(SettingsError) as caught:
        gankit.load(
            "wgan-gp", "augment.name=now-and-then", "augment.inner.name=diffaugment", "augment.inner.polcy=3",
            "augment.more.x=3", "augment.other.name=nothing",
        )  # fmt: skip
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(
        "override 'augment.inner.polcy=3': augment.inner.polcy: there is no such setting; did you mean"
    )
    assert any("augment.more: " in line for line in lines)
    assert any("augment.other: there is no augment named 'nothing'" in line for line in lines)


def test_a_default_that_names_a_part() -> None:
    @gankit.augments.register("wrapped")
    class Wrapped(gankit.Augment):
        def __init__(self, *, inner: gankit.Augment = "diffaugment") -> None:  # type: ignore[assignment]
            super().__init__()
            self.inner = inner

        def forward(self, images: Tensor) -> Tensor:
            return self.inner(images)

    assert gankit.build("augment", "wrapped").inner.policy == ("color", "translation", "cutout")


def part_of(kind: str, init: Callable[..., None]) -> type:
    methods = {"forward": lambda self, *inputs: inputs[0], "__init__": init}
    return type("Strange", (registry(kind).interface(),), methods)


def reserved(self: Any, *, scope: str = "x") -> None: ...


def unannotated(self: Any, *, k=3) -> None: ...  # type: ignore[no-untyped-def]


def positional(self: Any, image: Any, width: int = 3) -> None: ...


def other_positional(self: Any, size: Any) -> None: ...


def unresolved(self: Any, *, k: NoSuchType = 3) -> None: ...  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("init", "message"),
    [
        (reserved, "declares scope, which gankit reserves for itself"),
        (unannotated, "the setting k has no annotation"),
        (positional, "the parameter width is positional; settings come after *, and only image before it"),
        (other_positional, "the parameter size is positional"),
        (unresolved, "NoSuchType"),
    ],
)
def test_constructors_that_cannot_be_settings(init: Callable[..., None], message: str) -> None:
    gankit.augments.register("strange")(part_of("augment", init))
    text = refused(lambda: gankit.augments.settings("strange"))
    assert message in text
    assert "augment 'strange'" in text


def test_only_augments_reserve_scope_and_every_part_its_name() -> None:
    gankit.critics.register("strange")(part_of("critic", reserved))
    assert list(gankit.critics.settings("strange").model_fields) == ["scope"]
    gankit.critics.register("named")(part_of("critic", lambda self, *, name=1: None))

    def named(self: Any, *, name: str = "x") -> None: ...

    gankit.critics.register("named")(part_of("critic", named))
    assert "declares name" in refused(lambda: gankit.critics.settings("named"))


def test_abstract_classes_and_other_kinds_are_refused() -> None:
    class Half(gankit.Critic):
        @abstractmethod
        def width(self) -> int: ...

    assert (
        refused(lambda: gankit.critics.register("half")(Half)) == "critic 'half' is abstract: Half lacks forward, width"
    )
    assert "is not a subclass of Critic" in refused(lambda: gankit.critics.register("blur")(Blur))
    assert "is not a subclass of Critic" in refused(lambda: gankit.critics.register("function")(lambda images: images))  # type: ignore[arg-type]
    assert "half" not in gankit.critics.names()


def test_parts_are_equal_by_their_settings() -> None:
    one, two = (read_part("loss", "gradient-penalty") for _ in range(2))
    assert one == two
    assert isinstance(one, Part)
    assert one != read_part("loss", {"name": "gradient-penalty", "target": 0.0})


def test_settings_read_before_a_key_is_reserved_are_refused_too() -> None:
    code = (
        "import gankit\nfrom gankit.registry import registry\n"
        "class Heavy(gankit.Loss):\n    def __init__(self, *, weight: float = 1.0): ...\n"
        "gankit.losses.register('heavy')(Heavy)\ngankit.losses.settings('heavy')\n"
        "try: gankit.load('wgan-gp', 'losses=[\"heavy\"]')\nexcept gankit.GankitError as error: print(error)"
    )
    said = "loss 'heavy' declares weight, which gankit reserves for itself; choose other names"
    assert said in in_a_new_gankit(code)
