"""Plug-ins: parts of other distributions, found through entry points that are really laid out on disk."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from distributions import PLAIN_CRITIC

import gankit
from gankit.cli import main
from gankit.errors import PartError, SettingsError
from gankit.registry import registry
from gankit.registry.plugins import normalise_name, scan

MODULE = (
    PLAIN_CRITIC
    + """
class Other(Plain):
    pass

number = 3

def function(image):
    return image
"""
)

Lay = Callable[..., Path]


@pytest.fixture
def lay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lay:
    """Lay out a distribution in a folder that comes first on sys.path, here and in processes started here."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.delenv("GANKIT_DISABLE_PLUGINS", raising=False)
    scan.__globals__["_scan"].cache_clear()

    def distribution(name: str, entries: str | bytes, module: str = "", code: str = MODULE) -> Path:
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_bytes(entries if isinstance(entries, bytes) else entries.encode())
        if module:
            (folder / f"{module}.py").write_text(code)
        scan.__globals__["_scan"].cache_clear()
        return info

    yield distribution  # type: ignore[misc]
    for name in [name for name, module in sys.modules.items() if str(folder) in str(getattr(module, "__file__", ""))]:
        del sys.modules[name]
    scan.__globals__["_scan"].cache_clear()


def refused(make: Callable[[], object], error: type[Exception] = PartError) -> str:
    with pytest.raises(error) as caught:
        make()
    assert "\n" not in str(caught.value)
    return str(caught.value)


IMAGE = gankit.ImageSpec(1, 4, 4)
FOREIGN = "[gankit.critics]\nplain = foreign_nets:Plain\n\n[console_scripts]\nforeign = foreign_nets:main\n"


def test_a_plug_in_is_listed_built_and_written_by_its_qualified_name(lay: Lay) -> None:
    lay("Foreign_Nets", FOREIGN, "foreign_nets")
    (row,) = [row for row in registry("critic").list() if row.distribution not in ("gankit", "this process")]
    assert (row.name, row.kind, row.distribution) == ("plain", "critic", "foreign-nets")
    assert "foreign_nets" not in sys.modules
    for name in ("plain", "foreign-nets:plain", "Foreign_Nets:plain", "FOREIGN.nets:plain"):
        assert type(gankit.build("critic", name, IMAGE, width=2)).__name__ == "Plain"
        assert registry("critic").qualified_name(name) == "foreign-nets:plain"
    experiment = gankit.load("wgan-gp", "critic.name=Foreign_Nets:plain", "critic.width=7")
    assert experiment.critic.name == "foreign-nets:plain"
    assert 'name = "foreign-nets:plain"' in experiment.toml()
    assert gankit.load(experiment) == experiment
    text = refused(lambda: gankit.load("wgan-gp", "critic.name=plain", "critic.widht=7"), SettingsError)
    assert "critic.widht: there is no such setting; did you mean 'width'?" in text
    assert "critic.width" in refused(
        lambda: gankit.load("wgan-gp", "critic.name=plain", "critic.width=x"), SettingsError
    )
    assert "did you mean 'plain'?" in refused(lambda: gankit.critics.get("plian"))


def test_normalised_names() -> None:
    assert {normalise_name(name) for name in ("Foreign_Nets", "foreign.nets", "FOREIGN--nets", "foreign-_.nets")} == {
        "foreign-nets"
    }


def test_a_plug_in_cannot_shadow_gankits_own(lay: Lay) -> None:
    lay("Foreign_Nets", "[gankit.critics]\nresnet = foreign_nets:Plain\n", "foreign_nets")
    assert gankit.critics.get("resnet").__module__ == "gankit.critics.resnet"
    assert gankit.critics.get("gankit:resnet").__module__ == "gankit.critics.resnet"
    assert gankit.critics.names().count("resnet") == 1
    assert "foreign-nets:resnet" in gankit.critics.names()
    assert gankit.critics.get("foreign-nets:resnet").__name__ == "Plain"
    assert gankit.load("wgan-gp").critic.part.settings != gankit.load("wgan-gp", "critic.name=foreign-nets:resnet")


def test_two_plug_ins_with_one_name(lay: Lay) -> None:
    lay("Foreign_Nets", FOREIGN, "foreign_nets")
    lay("Better-Nets", "[gankit.critics]\nplain = better_nets:Other\n", "better_nets")
    assert [name for name in gankit.critics.names() if "plain" in name] == ["better-nets:plain", "foreign-nets:plain"]
    text = refused(lambda: gankit.critics.get("plain"))
    assert text == ("critic 'plain' is registered by 2 plug-ins; write 'better-nets:plain' or 'foreign-nets:plain'")
    assert gankit.critics.get("better_nets:plain").__name__ == "Other"
    assert gankit.critics.get("foreign-nets:plain").__name__ == "Plain"


def test_a_part_of_this_process_comes_before_a_plug_in(lay: Lay) -> None:
    lay("Foreign_Nets", FOREIGN, "foreign_nets")
    gankit.critics.register("plain")(gankit.critics.get("resnet"))
    assert gankit.critics.get("plain").__name__ != "Plain"
    assert gankit.critics.get("foreign-nets:plain").__name__ == "Plain"
    assert {"plain", "foreign-nets:plain"} <= set(gankit.critics.names())


@pytest.mark.parametrize(
    ("value", "left"),
    [
        ("foreign-nets", ["better-nets"]),
        ("Foreign_Nets", ["better-nets"]),
        (" foreign.nets , BETTER_nets", []),
        ("better-nets,unknown", ["foreign-nets"]),
        ("*", []),
        ("", ["better-nets", "foreign-nets"]),
    ],
)
def test_switching_plug_ins_off(lay: Lay, monkeypatch: pytest.MonkeyPatch, value: str, left: list[str]) -> None:
    lay("Foreign_Nets", FOREIGN, "foreign_nets")
    lay("Better-Nets", "[gankit.critics]\nother = better_nets:Other\n", "better_nets")
    monkeypatch.setenv("GANKIT_DISABLE_PLUGINS", value)
    assert sorted({plugin.distribution for plugin in scan().plugins}) == left
    if "foreign-nets" not in left:
        text = refused(lambda: gankit.critics.get("foreign-nets:plain"))
        assert "foreign-nets is not installed, or GANKIT_DISABLE_PLUGINS switches it off" in text


VALIDATED = """
    class Settings(pydantic.BaseModel):
        width: int = 4

        @pydantic.field_validator("width", mode="before")
        def known(cls, value):
            return {}[value]

        model_config = {"validate_default": True}
"""
BROKEN = {
    "import": ("import nothing_of_this_name", "broken:Plain", "ModuleNotFoundError: No module named"),
    "exit": ("raise SystemExit('no licence')", "broken:Plain", "SystemExit: no licence"),
    "syntax": ("def f(:", "broken:Plain", "SyntaxError"),
    "missing": (MODULE, "broken:Nothing", "has no attribute 'Nothing'"),
    "other kind": (
        "from gankit.interfaces import Loss\nclass Plain(Loss): pass",
        "broken:Plain",
        "not a subclass of Critic",
    ),
    "function": (MODULE, "broken:function", "not a subclass of Critic"),
    "number": (MODULE, "broken:number", "is 3, which is not a subclass of Critic"),
    "module": (MODULE, "broken", "not a subclass of Critic"),
    "abstract": ("from gankit.interfaces import Critic as Plain", "broken:Plain", "is abstract: Critic lacks forward"),
    "no model": (
        MODULE.replace("    pass", "    class Settings: pass"),
        "broken:Other",
        "no settings can be read from Other: its Settings is not a pydantic.BaseModel",
    ),
    "validator": (
        "import pydantic" + MODULE.replace("    pass", VALIDATED),
        "broken:Other",
        "critic 'broken' cannot validate its settings: KeyError: 4",
    ),
    "untyped": (MODULE.replace("width: int", "width"), "broken:Plain", "the setting width has no annotation"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_plug_in_breaks_only_what_names_it(lay: Lay, fault: str) -> None:
    code, target, message = BROKEN[fault]
    lay("Foreign_Nets", FOREIGN, "foreign_nets")
    lay("Broken", f"[gankit.critics]\nbroken = {target}\n", "broken", code)
    assert "broken" in gankit.critics.names()
    assert gankit.critics.get("plain").__name__ == "Plain"
    gankit.load("wgan-gp")
    text = refused(lambda: gankit.load("wgan-gp", "critic.name=broken"), SettingsError)
    assert message in text
    assert text.startswith("override 'critic.name=broken': critic: ")


def test_listing_with_broken_plug_ins(
    lay: Lay, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lay("Foreign_Nets", FOREIGN, "foreign_nets")
    lay("Broken", "[gankit.critics]\nbroken = broken:Plain\n", "broken", "raise SystemExit(7)")
    lay("Wrong", "[gankit.critics]\nwrong = foreign_nets:number\n")
    monkeypatch.setattr(sys, "argv", ["gankit", "list", "critics", "--load"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    loaded = capsys.readouterr()
    rows = {line.split()[0]: line for line in loaded.out.splitlines()}
    assert rows["plain"].split()[1:] == ["critic", "foreign-nets", "ok"]
    assert "fails: plug-in broken:broken (critic) cannot be imported from broken:Plain: SystemExit: 7" in rows["broken"]
    assert "fix or uninstall broken, or set GANKIT_DISABLE_PLUGINS=broken" in rows["broken"]
    assert "fails: critic 'wrong:wrong' is 3" in rows["wrong"]
    assert loaded.err == f"gankit: 2 of {len(rows)} parts cannot be used\n"
    monkeypatch.setenv("GANKIT_DISABLE_PLUGINS", "broken,wrong")
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code


MALFORMED = {
    "no section header": b"plain = nothing:Nothing\n",
    "a line without a value": b"[console_scripts]\nnothing\n",
    "a key twice": b"[gankit.critics]\nx = a:b\nx = c:d\n",
    "a per cent sign": b"[gankit.critics]\nx = a:%b\n",
    "not UTF-8": b"[gankit.critics]\nx = a:\xff\n",
}


@pytest.mark.parametrize("fault", MALFORMED)
def test_a_malformed_registration_is_named_and_the_others_are_found(
    lay: Lay, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay("Foreign_Nets", FOREIGN, "foreign_nets")
    lay("Bad_Dist", MALFORMED[fault])
    assert gankit.critics.get("plain").__name__ == "Plain"
    (sentence,) = scan().faults
    assert sentence.startswith("distribution bad-dist has a malformed entry_points.txt: ")
    assert "\n" not in sentence
    assert sentence in refused(lambda: gankit.critics.get("nothing"))
    monkeypatch.setenv("GANKIT_DISABLE_PLUGINS", "bad.dist")
    assert scan().faults == ()
    assert gankit.critics.get("plain").__name__ == "Plain"


def test_readable_text_that_is_not_ascii_is_not_blamed_for_another(lay: Lay) -> None:
    lay("Cafe", "# café\n[console_scripts]\ncafe = cafe:main\n")
    assert scan().faults == ()
    lay("Bad_Dist", MALFORMED["a key twice"])
    assert len(scan().faults) == 1


def test_a_specification_that_is_none(lay: Lay) -> None:
    lay(
        "Foreign_Nets",
        FOREIGN + "\n[gankit.losses]\nodd = this is no module\nfine = foreign_nets:Plain\n",
        "foreign_nets",
    )
    assert scan().faults == ("distribution foreign-nets registers loss odd as 'this is no module': write module:class",)
    assert "odd" not in gankit.losses.names()
    assert {"plain", "fine"} <= {plugin.name for plugin in scan().plugins}


def test_the_first_of_two_installations_counts(lay: Lay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay("Foreign_Nets", FOREIGN, "foreign_nets")
    behind = tmp_path / "behind" / "foreign_nets-0.9.dist-info"
    behind.mkdir(parents=True)
    (behind / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign-nets\nVersion: 0.9\n")
    (behind / "entry_points.txt").write_text("[gankit.critics]\nplain = old_module:Plain\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(behind.parent)])
    assert gankit.critics.get("plain").__name__ == "Plain"
    lay("Bad_Dist", MALFORMED["a key twice"])
    assert gankit.critics.get("plain").__name__ == "Plain"


def test_metadata_that_cannot_be_read_stops_nothing(lay: Lay) -> None:
    lay("Foreign_Nets", FOREIGN, "foreign_nets")
    lay("Bad_Dist", MALFORMED["a key twice"])
    (lay("Latin", "") / "METADATA").write_bytes(b"Name: caf\xe9\n")
    (lay("Nameless", "") / "METADATA").unlink()
    assert gankit.critics.get("plain").__name__ == "Plain"


def test_a_plug_in_trains(
    lay: Lay, small: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay("Foreign_Nets", FOREIGN, "foreign_nets")
    overrides = [text for text in small("training.steps=2") if not text.startswith("critic.")]
    run = gankit.train(gankit.load("wgan-gp", *overrides, "critic.name=plain"), tmp_path / "run")
    assert run.experiment.critic.name == "foreign-nets:plain"
    assert run.experiment.run is not None
    assert run.experiment.run.versions["foreign-nets"] == "1.0"
    monkeypatch.setenv("GANKIT_DISABLE_PLUGINS", "*")
    assert gankit.resume(run.path).finished  # nothing is left to train
    run.exported.unlink()
    text = refused(lambda: gankit.resume(run.path), SettingsError)
    assert "foreign-nets is not installed, or GANKIT_DISABLE_PLUGINS switches it off" in text


def test_a_metric_of_the_old_style_says_what_to_do(lay: Lay) -> None:
    code = "from gankit import Batch, Metric\n\nclass Old(Metric): ...\n"
    lay("old_metrics", "[gankit.metrics]\nold = old_metrics:Old\n", "old_metrics", code)
    text = refused(lambda: gankit.build("metric", "old"))
    assert "write compute(self, real, fake)" in text
    images = np.zeros((3, 1, 4, 4), np.uint8)
    assert "write compute(self, real, fake)" in refused(lambda: gankit.evaluate(images, images, ["old"], "pixels"))
