"""Parts that are registered in this process, and names that are unknown or spelt in another way."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from registered_parts import Blur, refused
from torch import nn

import gankit
from gankit.errors import SettingsError, suggestion
from gankit.registry import registry
from gankit.registry.plugins import PlugIn, Scan, shipped_hint
from gankit.testing import isolated_registry


def test_registering_in_this_process() -> None:
    assert gankit.augments.register("blur")(Blur) is Blur
    assert gankit.augments.get("blur") is Blur
    (row,) = [row for row in registry("augment").list() if row.name == "blur"]
    assert row.distribution == "this process"
    gankit.augments.register("blur")(type("Blur2", (Blur,), {}))  # a notebook cell that runs again
    assert gankit.augments.get("blur").__name__ == "Blur2"
    assert "the name is gankit's own" in refused(lambda: gankit.augments.register("diffaugment")(Blur))
    assert "colon" in refused(lambda: gankit.augments.register("a:b")(Blur))
    assert 'write @gankit.augments.register("name")' in refused(lambda: gankit.augments.register(Blur))  # type: ignore[arg-type]


def test_an_instance_can_be_registered() -> None:
    mine = Blur(share=0.25)
    mine.weight = nn.Parameter(torch.ones(2))
    gankit.augments.register("mine")(mine)
    first, second = gankit.build("augment", "mine"), gankit.build("augment", "mine")
    assert isinstance(first, Blur)
    assert first.share == 0.25
    assert first is not mine
    assert first.weight is not second.weight
    assert torch.equal(first.weight, mine.weight)


def test_of_very_many_known_names_the_first_are_listed() -> None:
    many = [f"part{number}" for number in range(41)]
    assert suggestion("zzz", many).endswith("part39, ... (41 in all)")
    assert suggestion("zzz", many[:40]).endswith("part38, part39")


def test_an_unknown_name_says_which_registration_is_missing() -> None:
    text = refused(lambda: gankit.losses.get("my-loss"))
    assert "there is no loss named 'my-loss'" in text
    assert "known: " in text
    assert "run its `@gankit.losses.register('my-loss')` in this process first" in text
    assert "did you mean 'gradient-penalty'?" in refused(lambda: gankit.losses.get("gradient-penalti"))


def test_a_name_from_a_plug_in_of_gankits_repository_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANKIT_DISABLE_PLUGINS", "*")
    for name, distribution in (
        ("fastgan", "gankit-fastgan"), ("StyleGAN2", "gankit-stylegan2"), ("gankit-fastgan:fastgan", "gankit-fastgan"),
    ):  # fmt: skip
        text = refused(lambda name=name: gankit.generators.get(name))
        assert f"; the plug-in {distribution} has it, and is not installed" in text
        assert text.endswith(f"pip install ./plugins/{distribution} in a clone of gankit's repository")
    with pytest.raises(SettingsError, match="no recipe or file 'fastgan'; the plug-in gankit-fastgan has it"):
        gankit.load("fastgan")
    assert "known: " in refused(lambda: gankit.generators.get("other-nets:fastgan"))
    installed = PlugIn("generator", "fastgan", "gankit-fastgan", "gankit_fastgan", "FastGAN")
    monkeypatch.setattr("gankit.registry.plugins.scan", lambda: Scan((installed,), ()))
    assert not shipped_hint("generator", "FastGAN"), "another spelling of a part that is installed"


def test_capitals_hyphens_and_underscores_make_no_difference_where_one_part_is_meant() -> None:
    assert gankit.metrics.get("FID") is gankit.metrics.get("frechet")
    assert registry("metric").qualified_name("Precision_Recall") == "precision-recall"
    assert registry("metric").qualified_name("gankit:KID") == "kid"
    experiment = gankit.load("WGAN_GP", "generator.name=ResNet")
    assert experiment.generator.name == "resnet"
    with isolated_registry():
        gankit.augments.register("blur-it")(Blur)
        assert registry("augment").find("Blur_It") == "blur-it"
        assert "known: " in refused(lambda: gankit.augments.get("gankit:Blur_It")), "which is not gankit's own"
        gankit.augments.register("BlurIt")(type("Other", (Blur,), {}))
        assert gankit.augments.get("blur-it") is Blur, "a name as it is written comes first"
        assert "augment 'blur_it' may be 'BlurIt' or 'blur-it': write one" in refused(
            lambda: gankit.augments.get("blur_it")
        )


def test_a_plug_in_is_found_in_another_spelling(monkeypatch: pytest.MonkeyPatch) -> None:
    plugins = tuple(PlugIn("loss", "my-loss", name, "nowhere", "Loss") for name in ("one", "two"))
    monkeypatch.setattr(sys.modules["gankit.registry.registry"], "scan", lambda: Scan(plugins[:1], ()))
    assert registry("loss").find("My_Loss") == registry("loss").find("ONE:my-LOSS") == plugins[0]
    monkeypatch.setattr(sys.modules["gankit.registry.registry"], "scan", lambda: Scan(plugins, ()))
    assert registry("loss").find("Two:MyLoss") == plugins[1]
    assert "by 2 plug-ins; write 'one:my-loss' or 'two:my-loss'" in refused(lambda: registry("loss").find("My_Loss"))


def test_a_run_of_another_process_names_the_registration(tmp_path: Any) -> None:
    with isolated_registry():
        gankit.augments.register("blur")(Blur)
        (tmp_path / "experiment.toml").write_text(gankit.load("wgan-gp", "augment.name=blur", "augment.share=1").toml())
    with pytest.raises(SettingsError, match=r"experiment.toml:\d+: augment: .*@gankit.augments.register\('blur'\)"):
        gankit.open_run(tmp_path)


def test_parts_of_an_isolated_registry_are_forgotten() -> None:
    def fail() -> None:
        gankit.augments.register("inside")(Blur)
        gankit.augments.register("blur")(type("Other", (Blur,), {}))
        assert {"blur", "inside"} <= set(gankit.augments.names())
        raise ZeroDivisionError

    gankit.augments.register("blur")(Blur)
    with pytest.raises(ZeroDivisionError), isolated_registry():
        fail()
    assert "inside" not in gankit.augments.names()
    assert gankit.augments.get("blur") is Blur
