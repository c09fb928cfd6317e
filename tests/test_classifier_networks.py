"""Networks of the study of a classifier, their outputs, and augmentation of what they learn from."""

from __future__ import annotations

from pathlib import Path

import classifier_data
import numpy as np
import pytest
import torch
from classifier_data import REAL, Write, study

import gankit
from gankit.errors import PartError
from gankit.runs.classifiers import SmallNetwork, TorchvisionNetwork, load_weights, make_network
from gankit.studies.classifier.arms import ARMS
from gankit.studies.classifier.training import training_set
from gankit.studies.fitting import Classical, TrainingSet, apply, augment, batch_images, fit

write = classifier_data.write


@pytest.mark.parametrize("shape", [(1, 5, 9), (3, 32, 32), (7, 64, 20), (2, 1, 1)])
def test_the_small_network_takes_any_images(shape: tuple[int, int, int]) -> None:
    network = SmallNetwork(gankit.ImageSpec(*shape), 4, width=4)
    assert network(torch.zeros(2, *shape)).shape == (2, 4)


def test_networks_of_torchvision(tmp_path: Path, write: Write) -> None:
    def squeezenet(image: gankit.ImageSpec, input_size: int | None = None) -> torch.nn.Module:
        return make_network(image, 3, "squeezenet1_1", 16, input_size)

    assert squeezenet(gankit.ImageSpec(1, 32, 32))(torch.zeros(2, 1, 32, 32)).shape == (2, 3)
    with pytest.raises(PartError, match="squeezenet1_1 takes grey or colour images, not 2 channels"):
        squeezenet(gankit.ImageSpec(2, 32, 32))
    with pytest.raises(PartError, match=r"cannot take images of 8 x 8 .* set classifier.input_size=224"):
        squeezenet(gankit.ImageSpec(3, 8, 8))
    assert squeezenet(gankit.ImageSpec(3, 8, 8), 32)(torch.zeros(2, 3, 8, 8)).shape == (2, 3)
    # Weights of a network of other classes: all but the head are taken.
    from torchvision import models

    published, path = models.squeezenet1_1(weights=None, num_classes=10), tmp_path / "weights.pth"
    torch.save(published.state_dict(), path)
    started = study(write(), "data.size=32", "classifier.network=squeezenet1_1", f"classifier.weights={path}")
    network = started.settings.new_network(started.split.train.image, 3)
    assert isinstance(network, TorchvisionNetwork)
    assert torch.equal(next(network.network.parameters()), next(published.parameters()))
    with pytest.raises(PartError, match=r"weights.pth is not of alexnet: .* name the network that it belongs to"):
        load_weights(models.alexnet(weights=None, num_classes=3), path, "alexnet")
    torch.save([1, 2], path)
    with pytest.raises(PartError, match=r"weights.pth is not of squeezenet1_1: 0 of its 52 tensors are there"):
        load_weights(published, path, "squeezenet1_1")
    path.write_bytes(b"no weights")
    with pytest.raises(PartError, match=r"weights\.pth cannot be read"):
        started.settings.new_network(started.split.train.image, 3)


def test_augmentation_keeps_what_it_should() -> None:
    images = torch.rand(6, 3, 10, 14) * 2 - 1
    still = Classical(shift=0, rotate=0, scale=0, brightness=0, contrast=0)
    assert torch.allclose(augment(images, still, torch.Generator()), images, atol=1e-5)
    flat = torch.full((64, 1, 9, 9), 0.2)
    moved = augment(flat, Classical(brightness=0.1, contrast=0.5), torch.Generator().manual_seed(0))
    assert moved.std((1, 2, 3)).max() < 1e-5  # what comes in from outside repeats the edge
    assert 0.0 < moved.min() < 0.1
    assert 0.3 < moved.max() < 0.4001  # a tenth of the range of 2, either way
    # A dot moves by at most the shift, and stays whole.
    dots = torch.full((200, 1, 21, 21), -1.0)
    dots[:, :, 10, 10] = 1
    shifted = augment(dots, still.model_copy(update={"shift": 0.2}), torch.Generator().manual_seed(0))
    where = shifted.flatten(1).argmax(1)
    rows, columns = where // 21 - 10, where % 21 - 10
    assert rows.abs().max() == columns.abs().max() == 4
    # A quarter turn turns a bar.
    bars = torch.full((400, 1, 21, 21), -1.0)
    bars[:, :, 10] = 1
    turned = augment(bars, still.model_copy(update={"rotate": 90.0}), torch.Generator().manual_seed(0))
    upright = ((turned[:, 0, :, 10] + 1) / 2).sum(1)
    assert upright.max() > 19
    assert upright.min() < 2


def test_mirror_images_come_from_the_data_set(write: Write) -> None:
    """Data whose labels depend on the side are never mirrored."""
    images = np.zeros((1, 3, 8, 8), np.uint8)
    images[..., :4] = 200
    seen = {}
    for keeps in ("true", "false"):
        whole = study(write(), f"data.mirror_keeps_label={keeps}", REAL)
        lesson = training_set(whole, ARMS["classical"])
        still = Classical(flip=True, shift=0, rotate=0, scale=0, brightness=0, contrast=0)
        lesson = TrainingSet(np.repeat(images, 4, 0), lesson.targets[:4], lesson.dataset, classical=still)
        batches = [batch_images(lesson, np.arange(4), 0, step, torch.device("cpu")) for step in range(8)]
        seen[keeps] = {bool(image[0, 0, 0] > 0) for batch in batches for image in batch}
    assert seen == {"true": {True, False}, "false": {True}}


def test_outputs_do_not_depend_on_the_batch(write: Write, tmp_path: Path) -> None:
    whole = study(write(), REAL, "classifier.steps=3")
    parts = whole.split
    network = SmallNetwork(parts.train.image, 3, width=4)
    done = fit(network, training_set(whole, ARMS["real"]), whole.settings, 0, tmp_path)
    assert (done["steps"], done["resumed_at"], len(done["losses"])) == (3, 0, 3)
    one = np.concatenate([apply(network, parts.test.subset([i])) for i in range(5)])
    assert apply(network, parts.test)[:5] == pytest.approx(one, abs=1e-5)


@pytest.mark.parametrize("allowed", ["highest", "medium"])
def test_float32_is_float32_whatever_the_calling_program_allows(allowed: str, write: Write, tmp_path: Path) -> None:
    whole, seen = study(write(), REAL, "classifier.steps=1"), []

    class Watched(SmallNetwork):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(torch.get_float32_matmul_precision())
            return super().forward(images)

    network = Watched(whole.split.train.image, 3, width=4)
    torch.set_float32_matmul_precision(allowed)
    try:
        fit(network, training_set(whole, ARMS["real"]), whole.settings, 0, tmp_path)
        apply(network, whole.split.test)
        assert torch.get_float32_matmul_precision() == allowed
    finally:
        torch.set_float32_matmul_precision("highest")
    assert set(seen) == {"highest"}
    assert len(seen) > 1
