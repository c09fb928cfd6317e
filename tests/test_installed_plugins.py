"""Plug-ins that are really built, installed and uninstalled, good ones and broken ones, from end to end."""

from __future__ import annotations

import shutil
from pathlib import Path

import processes
import pytest
from distributions import OFFLINE, PIP, PLAIN_CRITIC, Environment, Project, wheels

NETS = (
    PLAIN_CRITIC
    + """
from gankit.interfaces import Loss

class SoftHinge(Loss):
    def critic(self, turn):
        return (torch.nn.functional.softplus(-turn.real_scores) + torch.nn.functional.softplus(turn.fake_scores)).mean()

    def generator(self, turn):
        return -turn.fake_scores.mean()
"""
)

BAD_ANNOTATIONS = """
from __future__ import annotations
from typing import TYPE_CHECKING
import pydantic
from gankit.interfaces import Critic

if TYPE_CHECKING:
    from somewhere import Width

class Plain(Critic):
    def forward(self, images, labels=None):
        return images.mean((1, 2, 3))

class Untyped(Plain):
    def __init__(self, image, *, width=4):
        super().__init__()

class Undefined(Plain):
    def __init__(self, image, *, width: Width = 4):
        super().__init__()

class Positional(Plain):
    def __init__(self, image, width: int = 4):
        super().__init__()

class Bound(Plain):
    def __init__(self, image, *, width: "typing.Annotated[str, pydantic.Field(gt=object())]" = "4"):
        super().__init__()

class NoModel(Plain):
    class Settings:
        width: int = 4

    def __init__(self, image, *, width: int):
        super().__init__()

class Taken(Plain):
    def __init__(self, image, *, name: str = "plain"):
        super().__init__()

class Checked(Plain):
    class Settings(pydantic.BaseModel):
        width: int = 4

        @pydantic.model_validator(mode="after")
        def fits(self):
            return {}[self.width]

    def __init__(self, image, *, width: int):
        super().__init__()

class Leaving(Plain):
    def __init__(self, image):
        raise SystemExit("no licence")
"""

GOOD = Project("Foreign_Nets", {"critics.plain": "Plain", "losses.soft-hinge": "SoftHinge"}, NETS)
RIVAL = Project("Better-Nets", {"critics.plain": "Plain", "critics.resnet": "Plain"}, NETS)
BROKEN = [
    Project("Broken-Import", {"critics.absent": "Plain"}, "import nothing_of_this_name\n"),
    Project("Broken-Exit", {"critics.leaves": "Plain"}, "raise SystemExit('no licence')\n"),
    Project("Broken-Kind", {"critics.loss": "SoftHinge", "losses.number": "torch.pi"}, NETS),
    Project(
        "Broken-Annotations",
        {
            "critics.untyped": "Untyped", "critics.undefined": "Undefined", "critics.positional": "Positional",
            "critics.bound": "Bound", "critics.no-model": "NoModel", "critics.taken": "Taken",
            "critics.checked": "Checked", "critics.leaving": "Leaving",
        },
        BAD_ANNOTATIONS,
    ),
]  # fmt: skip

TINY = [
    "wgan-gp", "data.size=16", "data.counts=[6,5,5]", "generator.width=4", "generator.latent_dim=6",
    "training.steps=2", "training.batch=4", "training.generator_batch=4", "training.critic_steps=1",
    "training.checkpoint_every=1", "training.tick_every=1",
]  # fmt: skip
BUILT_IN = [*TINY, "critic.width=4"]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel of each project by the distribution's normalised name."""
    folder = tmp_path_factory.mktemp("built")
    sources = [project.write(folder / "sources") for project in (GOOD, RIVAL, *BROKEN)]
    paths = wheels(sources, folder / "wheels")
    return {path.name.split("-")[0].replace("_", "-"): path for path in paths}


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """An empty environment."""
    return Environment(tmp_path / "environment")


@pytest.fixture(scope="session")
def crowd(built: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with everything in it; tests leave it as it is."""
    crowd = Environment(tmp_path_factory.mktemp("crowd"))
    crowd.install(*built.values())
    return crowd


def test_the_life_of_a_plug_in(environment: Environment, built: dict[str, Path], tmp_path: Path) -> None:
    assert environment.gankit("list").out.count("foreign-nets") == 0
    environment.install(built["foreign-nets"])
    assert environment.gankit("list", "critics").rows["plain"].split() == ["plain", "critic", "foreign-nets"]
    assert environment.gankit("list", "losses").rows["soft-hinge"].split() == ["soft-hinge", "loss", "foreign-nets"]

    file, folder = tmp_path / "mine.toml", tmp_path / "run"
    file.write_text(
        '[critic]\nname = "foreign-nets:plain"\nwidth = 3\n\n[[losses]]\nname = "foreign-nets:soft-hinge"\n'
    )
    trained = environment.gankit("train", file, *TINY[1:], "--out", folder)
    assert trained.code == 0, trained
    assert f"{folder}: finished, 2 steps" in trained.out
    weights = (folder / "generator.safetensors").read_bytes()
    (folder / "generator.safetensors").unlink()
    newest = sorted((folder / "checkpoints").iterdir())[-1]
    shutil.rmtree(newest) if newest.is_dir() else newest.unlink()
    checked, resumed, sampled = environment.several(
        ["check", file, *TINY[1:]], ["resume", folder], ["sample", folder, "--count", 3]
    )
    assert "critic foreign-nets:plain: 2,307 parameters" in checked.out
    assert "finished, 2 steps" in resumed.out
    assert (folder / "generator.safetensors").read_bytes() == weights
    assert sampled.code == 0
    assert len(list((folder / "drawn-0").glob("0*.png"))) == 3
    record = (folder / "experiment.toml").read_text()
    assert 'foreign-nets = "1.0"' in record
    assert 'name = "foreign-nets:soft-hinge"' in record

    environment.uninstall("foreign-nets")
    listed = environment.gankit("list")
    assert "foreign-nets" not in listed.out
    assert listed.code == 0
    assert not listed.err
    # What needs the generator alone goes on working.
    for answer in environment.several(["resume", folder], ["sample", folder, "--seed", 1], ["report", folder]):
        assert (answer.code, answer.err) == (0, "")
    (folder / "generator.safetensors").unlink()
    *refusals, plain = environment.several(["check", file], ["resume", folder], ["check", *TINY, "critic.name=plain"])
    for refused in refusals:
        assert refused.code == 2
        assert len(refused.err.splitlines()) == 2, refused
        critic, loss = refused.err.splitlines()
        assert "there is no critic named 'foreign-nets:plain'" in critic
        assert "there is no loss named 'foreign-nets:soft-hinge'" in loss
        for line in (critic, loss):
            assert "distribution foreign-nets is not installed, or GANKIT_DISABLE_PLUGINS switches it off" in line
    assert refusals[0].err.startswith(f"gankit: {file}:2: critic: ")
    assert refusals[1].err.startswith(f"gankit: {folder / 'experiment.toml'}:")
    assert "there is no critic named 'plain'" in plain.line


def test_installed_into_a_target_folder(built: dict[str, Path], tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    code = f"""
import subprocess, gankit
print("plain" in gankit.critics.names())
subprocess.run({[*PIP, "install", *OFFLINE, "--target", str(target), str(built["foreign-nets"])]!r}, check=True)
print(gankit.critics.names()[-1], gankit.build("critic", "plain", gankit.ImageSpec(1, 2, 2)).layer.weight.shape[1])
"""
    printed = processes.run(code=code, site=target).stdout
    assert printed.split() == ["False", "plain", "4"]  # also one that a running process, a notebook say, installs


def test_an_editable_install_follows_its_source(environment: Environment, tmp_path: Path) -> None:
    source = GOOD.write(tmp_path)
    environment.install_editable(source)
    assert not list(environment.site.glob("foreign_nets*.py"))
    assert environment.gankit("list", "critic").rows["plain"].split() == ["plain", "critic", "foreign-nets"]
    before, _ = environment.several(["show", *TINY, "critic.name=plain"], ["check", *TINY, "critic.name=plain"])
    assert "\nwidth = 4\n" in before.out.partition("[critic]")[2]
    module = source / "foreign_nets.py"
    module.write_text(module.read_text().replace("width: int = 4", "width: int = 2000"))
    shown, checked = environment.several(["show", *TINY, "critic.name=plain"], ["check", *TINY, "critic.name=plain"])
    assert "\nwidth = 2000\n" in shown.out.partition("[critic]")[2]
    assert "critic foreign-nets:plain: 1,538,000 parameters" in checked.out
    environment.uninstall("foreign-nets")
    assert "plain" not in environment.gankit("list", "critic").rows
    assert module.is_file()


NAMES = {
    "absent": "cannot be imported from broken_import:Plain: ModuleNotFoundError: No module named",
    "leaves": "cannot be imported from broken_exit:Plain: SystemExit: no licence; fix or uninstall broken-exit, or "
    "set GANKIT_DISABLE_PLUGINS=broken-exit",
    "loss": "critic 'broken-kind:loss' is <class 'broken_kind.SoftHinge'>, which is not a subclass of Critic",
    "untyped": "the setting width has no annotation",
    "undefined": "no settings can be read from Undefined: name 'Width' is not defined",
    "positional": "the parameter width is positional; settings come after *",
    "bound": "no settings can be read from Bound: ",
    "no-model": "no settings can be read from NoModel: its Settings is not a pydantic.BaseModel",
    "taken": "declares name, which gankit reserves for itself; choose other names",
}
LATE = {
    "checked": "critic 'checked' cannot validate its settings: KeyError: 4",
    "leaving": "critic 'broken-annotations:leaving' cannot be built: SystemExit: no licence",
}


def test_listing_with_broken_plug_ins(crowd: Environment) -> None:
    plain = crowd.gankit("list")
    assert (plain.code, plain.err) == (0, "")
    assert {*NAMES, *LATE, "number", "soft-hinge", "foreign-nets:plain"} <= set(plain.rows)
    off = "broken-import,Broken_Exit, broken.kind,broken-annotations"
    loaded, mended = crowd.several(["list", "--load"], ["list", "--load", {"GANKIT_DISABLE_PLUGINS": off}])
    for name, reason in NAMES.items():
        assert "fails: " in loaded.rows[name]
        assert reason in loaded.rows[name]
    assert "loss 'broken-kind:number' is 3.14" in loaded.rows["number"]
    for name in set(loaded.rows) - {*NAMES, "number"}:
        assert "  ok" in loaded.rows[name], name
    assert loaded.line == f"{len(NAMES) + 1} of {len(loaded.out.splitlines())} parts cannot be used"
    assert (mended.code, mended.err) == (0, "")
    assert "foreign-nets:plain" in mended.rows
    assert "broken" not in mended.out


def test_a_broken_plug_in_breaks_only_what_names_it(crowd: Environment) -> None:
    reasons = {**NAMES, **LATE}
    whole, mixed, schema, *refusals = crowd.several(
        ["check", *BUILT_IN],
        ["check", *TINY, "critic.name=foreign-nets:plain", "losses=[{name='soft-hinge'}]"],
        ["schema", "--load"],
        *(["check", *TINY, f"critic.name={name}"] for name in reasons),
    )
    assert (whole.code, whole.err) == (0, "")
    assert "critic resnet: " in whole.out
    assert (mixed.code, mixed.err) == (0, "")
    assert "critic foreign-nets:plain: 3,076 parameters" in mixed.out
    assert (schema.code, schema.err) == (0, "")
    assert "critic better-nets:resnet" in schema.out
    assert "critic undefined" not in schema.out
    for refused, (name, reason) in zip(refusals, reasons.items(), strict=True):
        assert reason in refused.line
        assert name in LATE or refused.line.startswith(f"override 'critic.name={name}': critic: ")


def test_names_that_are_taken_and_given_back(crowd: Environment) -> None:
    rows = crowd.gankit("list", "critic").rows
    assert [name for name in rows if "plain" in name] == ["better-nets:plain", "foreign-nets:plain"]
    assert [row.split()[2] for name, row in rows.items() if "resnet" in name] == ["gankit", "better-nets"]
    both, better, foreign, built_in, shadow, off, back = crowd.several(
        *(["check", *TINY, f"critic.name={name}"]
          for name in ("plain", "Better_Nets:plain", "foreign-nets:plain", "resnet", "better-nets:resnet")),
        ["check", *TINY, "critic.name=foreign-nets:plain", {"GANKIT_DISABLE_PLUGINS": "Foreign_Nets"}],
        ["check", *TINY, "critic.name=plain", {"GANKIT_DISABLE_PLUGINS": "better-nets"}],
    )  # fmt: skip
    spellings = "write 'better-nets:plain' or 'foreign-nets:plain'"
    assert f"critic 'plain' is registered by 2 plug-ins; {spellings}" in both.line
    assert "critic better-nets:plain: 3,076 parameters" in better.out
    assert "critic foreign-nets:plain: 3,076 parameters" in foreign.out
    assert "critic resnet: " in built_in.out
    assert "critic better-nets:resnet: 3,076 parameters" in shadow.out
    assert "distribution foreign-nets is not installed, or GANKIT_DISABLE_PLUGINS switches it off" in off.line
    assert "critic foreign-nets:plain: 3,076 parameters" in back.out


@pytest.mark.parametrize(
    ("value", "left"),
    [
        ("Better_Nets", {"foreign-nets", "broken-import", "broken-exit", "broken-kind", "broken-annotations"}),
        ("broken.import,broken-exit,broken-kind , BROKEN_ANNOTATIONS", {"foreign-nets", "better-nets"}),
        ("*", set()),
    ],
)
def test_switched_off(crowd: Environment, value: str, left: set[str]) -> None:
    listed = crowd.gankit("list", GANKIT_DISABLE_PLUGINS=value)
    assert (listed.code, listed.err) == (0, "")
    assert {row.split()[2] for row in listed.rows.values()} - {"gankit"} == left


C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
MALFORMED = {
    "broken_import": ("File contains no section headers", b"absent = broken_import:Plain\n"),
    "broken_exit": ("option 'leaves'", b"[gankit.critics]\nleaves = broken_exit:Plain\nleaves = broken_exit:Plain\n"),
    "broken_kind": ("'%'", b"[gankit.critics]\nloss = broken_kind:%SoftHinge\n"),
    "broken_annotations": ("'ascii' codec", "[gankit.critics]\ncafé = broken_annotations:Plain\n".encode()),
}


@pytest.fixture(scope="module")
def malformable(built: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with one whole plug-in and those that `MALFORMED` names; tests leave it as it is."""
    environment = Environment(tmp_path_factory.mktemp("malformable"))
    environment.install(built["foreign-nets"], *(built[fault.replace("_", "-")] for fault in MALFORMED))
    return environment


@pytest.mark.parametrize("fault", MALFORMED)
def test_a_malformed_registration(malformable: Environment, fault: str) -> None:
    distribution = fault.replace("_", "-")
    reason, text = MALFORMED[fault]
    locale = C_LOCALE if "codec" in reason else {}
    whole = malformable.register(fault, text)
    try:
        listed = malformable.gankit("list", "critic", **locale)
        assert listed.code == 0, listed
        assert listed.rows["plain"].split() == ["plain", "critic", "foreign-nets"]
        (line,) = listed.err.splitlines()
        assert line.startswith(f"gankit: distribution {distribution} has a malformed entry_points.txt: ")
        assert reason in line
        silent = malformable.gankit("list", "critic", GANKIT_DISABLE_PLUGINS=distribution, **locale)
        assert (silent.code, silent.err) == (0, "")
        if locale:  # nothing is wrong with it elsewhere
            readable = malformable.gankit("list", "critic", PYTHONUTF8="1")
            assert (readable.code, readable.err) == (0, "")
            assert readable.rows["café"].split() == ["café", "critic", distribution]
    finally:
        malformable.register(fault, whole)
    assert malformable.gankit("list").err == ""


def test_every_malformed_registration_at_once(malformable: Environment) -> None:
    before = {fault: malformable.register(fault, text) for fault, (_, text) in MALFORMED.items()}
    try:
        whole, mixed = malformable.several(["check", *BUILT_IN], ["check", *TINY, "critic.name=plain"])
        listed, lacking = malformable.several(["list", "--load"], ["check", *TINY, "critic.name=absent"], **C_LOCALE)
    finally:
        for fault, text in before.items():
            malformable.register(fault, text)
    assert listed.rows["plain"].split() == ["plain", "critic", "foreign-nets", "ok"]
    for answer in (whole, mixed):
        assert (answer.code, answer.err) == (0, "")
    assert "critic resnet: " in whole.out
    assert "critic foreign-nets:plain: 3,076 parameters" in mixed.out
    assert "there is no critic named 'absent'" in lacking.line
    for fault in MALFORMED:
        for err in (lacking.line, listed.err):
            assert f"distribution {fault.replace('_', '-')} has a malformed entry_points.txt: " in err
