"""Labels that come in little by little: networks at each influence, and trainings that fade them in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gankit
from gankit.errors import PartError, SettingsError
from gankit.interfaces import ImageSpec
from gankit.nn.layers import LabelEmbedding, label_layers, set_influence
from gankit.runs import checkpoint
from gankit.runs.networks import probe_labels

Small = Callable[..., list[str]]


def shaken(network: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network.double()


@pytest.mark.parametrize("spec", [ImageSpec(3, 16, 16, classes=3), ImageSpec(3, 16, 16, conditions=2)], ids=str)
@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_labels_without_influence_leave_the_unconditional_network(norm: str, spec: ImageSpec) -> None:
    torch.manual_seed(0)
    plain_spec = ImageSpec(3, 16, 16)
    labels = probe_labels(6, spec)
    for kind, inputs in (("generator", torch.randn(6, 8)), ("critic", torch.randn(6, 3, 16, 16))):
        settings_ = {"width": 4, "norm": norm, "latent_dim": 8} if kind == "generator" else {"width": 4}
        conditional = shaken(gankit.build(kind, "resnet", spec, **settings_))
        plain = gankit.build(kind, "resnet", plain_spec, **settings_).double()
        # Gain and shift of the plain network are the means of the rows, or the biases of the linear maps.
        state = {}
        for name, value in conditional.state_dict().items():
            if name in plain.state_dict():
                state[name] = value
            else:
                at = name.replace("gain.table", "norm").replace("shift.table", "norm")
                at = at.removesuffix("weight").removesuffix("bias") + ("weight" if ".gain." in name else "bias")
                if spec.classes and "projection" not in name:
                    state[at] = value.mean(0)
                elif name.endswith("bias"):
                    state[at] = value
        plain.load_state_dict(state)
        inputs = inputs.double()
        before = conditional(inputs, labels)
        set_influence(conditional, 0.0)
        torch.testing.assert_close(conditional(inputs, labels), plain(inputs), rtol=1e-9, atol=1e-9)
        assert not torch.allclose(before, plain(inputs), atol=1e-3)
        set_influence(conditional, 1.0)
        # Another pass in training mode changes running statistics, not what it gives.
        assert torch.equal(conditional(inputs, labels), before)


@pytest.mark.parametrize("spec", [ImageSpec(1, 8, 8, classes=3), ImageSpec(1, 8, 8, conditions=2)], ids=str)
@pytest.mark.parametrize("start", [None, 1.0])
def test_the_influence_of_labels_is_linear(spec: ImageSpec, start: float | None) -> None:
    torch.manual_seed(0)
    embedding = shaken(LabelEmbedding(spec, 5, start))
    labels = probe_labels(4, spec)
    labels = labels if spec.classes else labels.double()  # type: ignore[union-attr]
    vectors = {}
    for influence in (0.0, 0.25, 1.0):
        set_influence(embedding, influence)
        vectors[influence] = embedding(labels)
    torch.testing.assert_close(vectors[0.25], 0.75 * vectors[0.0] + 0.25 * vectors[1.0])
    assert (vectors[0.0] == vectors[0.0][0]).all()
    assert (vectors[0.0] == 0).all() == (start is None)


def test_labels_fade_in(small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The log has their influence; the exported generator and the critic have that of the last step."""
    overrides = small("data.conditional=true", "training.label_fade=[1, 9]", "training.tick_every=1")
    run = gankit.train(gankit.load("wgan-gp", *overrides), tmp_path / "run")
    assert [row["label_influence"] for row in run.log] == [0, 0.125, 0.25, 0.375, 0.5, 0.625]
    assert "warning: training.label_fade: labels have 62% of their influence" in capsys.readouterr().err
    for network in (run.generator, gankit.open_run(tmp_path / "run").critic):
        assert label_layers(network)
        assert {float(layer.influence) for layer in label_layers(network)} == {0.625}  # type: ignore[arg-type]
    faded = run.sample(8, labels=0, seed=1)
    set_influence(run.generator, 1.0)
    assert not np.array_equal(run.sample(8, labels=0, seed=1), faded)


def test_labels_without_influence_change_nothing(small: Small, tmp_path: Path) -> None:
    overrides = small("data.conditional=true", "training.label_fade=[6, 9]")
    run = gankit.train(gankit.load("wgan-gp", *overrides), tmp_path / "run")
    np.testing.assert_array_equal(run.sample(8, labels=0), run.sample(8, labels=1))
    set_influence(run.generator, 1.0)
    tables = [module.table.weight for module in run.generator.modules() if isinstance(module, LabelEmbedding)]
    assert tables
    # Adam moved the rows of all classes alike.
    assert all(torch.allclose(table[0], table[1], atol=1e-6) for table in tables)
    assert any((table[0] - table[0].round()).abs().max() > 1e-5 for table in tables)


def test_labels_that_no_layer_of_gankit_takes_cannot_fade(small: Small, tmp_path: Path) -> None:
    @gankit.critics.register("own-labels")
    class OwnLabels(gankit.Critic):
        def __init__(self, image: gankit.ImageSpec) -> None:
            super().__init__()
            self.rows = torch.nn.Embedding(image.classes, 1)

        def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
            assert labels is not None
            return images.mean((1, 2, 3)) + self.rows(labels)[:, 0]

    overrides = small("data.conditional=true", "training.label_fade=[0, 4]")
    tables = {**gankit.load("wgan-gp", *overrides).tables(), "critic": "own-labels"}
    with pytest.raises(PartError, match=r"critic own-labels uses no label layer of gankit\.nn\.layers"):
        gankit.train(gankit.load(tables), tmp_path / "run")


def test_an_export_carries_the_influence_of_labels(small: Small, tmp_path: Path) -> None:
    """A network that is built by hand computes what the run draws, and one that never faded has nothing to carry."""
    overrides = small("data.conditional=true", "training.label_fade=[1, 9]")
    run = gankit.train(gankit.load("wgan-gp", *overrides), tmp_path / "run")
    weights, config = checkpoint.read_export(run.exported)
    assert {float(value) for name, value in weights.items() if name.endswith("influence")} == {0.625}
    settings = dict(config["generator"])
    generator = gankit.build("generator", settings.pop("name"), run.image, **settings)
    assert not any(name.endswith("influence") for name in generator.state_dict())
    generator.load_state_dict(weights)
    latents, labels = run.draw(4)
    with torch.no_grad():
        assert torch.equal(generator.eval()(latents, labels), run.generator(latents, labels))


def test_labels_act_in_full_in_a_run_that_starts_from_a_faded_one(small: Small, tmp_path: Path) -> None:
    faded = small("data.conditional=true", "training.label_fade=[1, 9]", "training.averaging=0")
    first = gankit.train(gankit.load("wgan-gp", *faded), tmp_path / "first")
    overrides = small("data.conditional=true", f"training.start_from={first.path}")
    run = gankit.train(gankit.load("wgan-gp", *overrides), tmp_path / "second")
    assert "label_influence" not in run.log[-1]
    for network in (run.generator, run.critic):
        assert {float(layer.influence) for layer in label_layers(network)} == {1.0}  # type: ignore[arg-type]


def test_compiled_code_reads_the_influence() -> None:
    """The same code serves every step: no number of it is part of the program."""
    torch.compiler.reset()
    torch.manual_seed(0)
    graphs = []
    embedding = LabelEmbedding(ImageSpec(1, 8, 8, classes=3), 5, 1.0)
    shaken(embedding)
    embedding.fade_in(0, 10)

    def count(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(embedding, backend=count, fullgraph=True)
    labels = torch.arange(3)
    for step in range(0, 14, 3):
        embedding.before_step(step)
        torch.testing.assert_close(compiled(labels), embedding(labels))
    assert len(graphs) == 1
    torch.compiler.reset()


@pytest.mark.parametrize("steps", ["[4, 4]", "[5, 2]", "[-1, 2]", "[1]", "3"])
def test_steps_of_a_fade_rise(steps: str) -> None:
    with pytest.raises(SettingsError, match=r"training\.label_fade"):
        gankit.load("wgan-gp", f"training.label_fade={steps}")
