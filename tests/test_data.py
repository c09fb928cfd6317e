"""What of a data set is trained on: split, held-out, agreement, subset, labels, order, mirror, range."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gankit
from gankit.errors import DataError
from gankit.experiments.selection import Resized
from gankit.experiments.tables import DataTable
from gankit.interfaces import Dataset, ImageSpec, Known
from gankit.seeds import Order
from gankit.training.data import TrainingData, prepare

N = 60


def dataset(**facts: object) -> Dataset:
    """Image i is filled with the grey level i."""
    images = np.broadcast_to(np.arange(N, dtype=np.uint8)[:, None, None, None], (N, 1, 8, 8)).copy()
    known = {"labels": np.arange(N) % 3 // 2, "agreement": np.arange(N) / N, "groups": np.arange(N) // 5} | facts
    return gankit.wrap("dataset", images, **known)


def table(**keys: object) -> DataTable:
    return DataTable.model_validate({"name": "eyes", **keys})


def levels(data: Dataset | TrainingData | None) -> list[int]:
    assert data is not None
    data = data.dataset if isinstance(data, TrainingData) else data
    return data.images[:, 0, 0, 0].tolist()


def test_held_out_images_keep_groups_together_and_do_not_depend_on_the_filters() -> None:
    plain = prepare(table(held_out=0.2), 0, dataset())
    filtered = prepare(table(held_out=0.2, min_agreement=0.5, subset=10), 0, dataset())
    assert levels(plain.held_out) == levels(filtered.held_out)
    assert sorted(levels(plain.dataset) + levels(plain.held_out)) == list(range(N))
    groups = [set(np.array(levels(part)) // 5) for part in (plain.dataset, plain.held_out)]
    assert not groups[0] & groups[1]
    assert min(levels(filtered.dataset)) >= 30
    assert len(filtered.dataset) == 10
    assert levels(prepare(table(held_out=0.2), 1, dataset()).held_out) != levels(plain.held_out)


def test_the_split_seed_keeps_the_draws_of_all_training_seeds() -> None:
    chosen = [prepare(table(held_out=0.2, subset=10, split_seed=5), seed, dataset()) for seed in (0, 1, 5)]
    assert len({data.dataset.digest() for data in chosen}) == 1
    plain = [prepare(table(held_out=0.2, subset=10), seed, dataset()) for seed in (5, 1)]
    assert plain[0].dataset.digest() == chosen[0].dataset.digest() != plain[1].dataset.digest()
    assert plain[0].held_out is not None
    assert chosen[0].held_out is not None
    assert plain[0].held_out.dataset.digest() == chosen[0].held_out.dataset.digest()


def test_the_subset_seed_draws_other_subsets_beside_the_same_held_out_images() -> None:
    chosen = [prepare(table(held_out=0.2, subset=10, subset_seed=seed), 0, dataset()) for seed in (0, 1)]
    assert chosen[0].dataset.digest() != chosen[1].dataset.digest()
    held_out = [data.held_out for data in chosen]
    assert held_out[0] is not None
    assert held_out[1] is not None
    assert held_out[0].dataset.digest() == held_out[1].dataset.digest()
    as_before = prepare(table(held_out=0.2, subset=10), 0, dataset())
    assert as_before.dataset.digest() == chosen[0].dataset.digest()


def test_one_group_alone_is_not_divided() -> None:
    with pytest.raises(DataError, match=r"data.held_out: all 60 images are of one group \(patient\)"):
        prepare(table(held_out=0.2), 0, dataset(groups=np.zeros(N)))


def test_held_out_images_have_the_classes_shares() -> None:
    held = prepare(table(held_out=0.2), 0, dataset(groups=None)).held_out
    assert held is not None
    assert np.bincount(held.dataset.labels).tolist() == [8, 4]  # type: ignore[arg-type]


def test_everything_known_follows_the_chosen_images() -> None:
    data = prepare(table(subset=20, conditional=True), 0, dataset(facts={"age": np.arange(N) * 2}))
    chosen = np.array(levels(data.dataset))
    np.testing.assert_array_equal(data.dataset.labels, chosen % 3 // 2)
    np.testing.assert_array_equal(data.dataset.groups, chosen // 5)  # type: ignore[arg-type]
    np.testing.assert_array_equal(data.dataset.facts["age"], chosen * 2)
    assert data.labels is not None
    np.testing.assert_array_equal(data.labels.numpy(), chosen % 3 // 2)
    assert data.image.classes == 2


def test_conditions_are_standardised() -> None:
    data = prepare(table(conditional=["agreement", "age"]), 0, dataset(facts={"age": np.arange(N) * 2.0}))
    assert data.image.conditions == 2
    assert data.labels is not None
    np.testing.assert_allclose(data.labels.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(data.labels.std(0, correction=0), 1, rtol=1e-6)
    back = data.labels.double().numpy() * data.condition_scale + data.condition_mean
    np.testing.assert_allclose(back[:, 1], np.arange(N) * 2.0, atol=1e-5)


def test_a_condition_that_never_changes_is_zero() -> None:
    """The mean of equal numbers is rounded, and so their standard deviation is not always zero."""
    data = prepare(table(conditional=["age"]), 0, dataset(facts={"age": np.full(N, 36.6)}))
    assert data.labels is not None
    np.testing.assert_allclose(data.labels, 0, atol=1e-6)
    assert data.condition_scale == [1]


def test_splits() -> None:
    class Splits(Dataset):
        image, images = ImageSpec(1, 8, 8), dataset().images
        known = Known(splits={"train": np.arange(40), "test": np.arange(40, N)})

    data = Splits()
    assert levels(prepare(table(), 0, data).dataset) == list(range(40))
    assert levels(prepare(table(split="test"), 0, data).dataset) == list(range(40, N))
    assert len(prepare(table(split="all"), 0, data).dataset) == N
    with pytest.raises(DataError, match="no split 'val' in this data set; known: all, train, test"):
        prepare(table(split="val"), 0, data)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"labels": np.arange(N) % 3}, "labels are int64 from 0 to 2; .* whole numbers from 0 to 1, for its 2 classes"),
        ({"labels": np.arange(N) % 2 - 1}, "labels are int64 from -1 to 0"),
        ({"labels": np.arange(N) % 2 / 2}, "labels are float64 from 0.0 to 0.5"),
        ({"labels": [0, 1] * 30}, "labels must be an array with one row for each of 60 images, and is a list"),
        ({"class_names": ("cat",)}, "there are 1 class names for 2 classes: name each class"),
        (
            {"groups": np.arange(9)},
            r"groups must be an array with one row for each of 60 images, and is of shape \(9,\)",
        ),
        ({"agreement": np.ones(9)}, "agreement must be an array with one row for each of 60 images"),
        ({"splits": {"train": np.arange(N) < 30}}, r"the split train must be \(k,\) indices of images, not bool"),
        ({"facts": {"age": np.arange(9)}}, "data.weights: age has 9 values for 60 images"),
    ],
)
def test_what_a_class_of_the_user_says_of_its_images_must_fit_them(facts: dict[str, Any], message: str) -> None:
    class Mine(Dataset):
        image, images = ImageSpec(1, 8, 8, classes=2), dataset().images
        known = Known(**{"labels": np.arange(N) % 2, "class_names": ("cat", "dog")} | facts)

    with pytest.raises(DataError, match=message):
        prepare(table(weights="age" if "facts" in facts else None), 0, Mine())


@pytest.mark.parametrize(
    ("keys", "facts", "message"),
    [
        ({"conditional": True}, {"labels": None}, "data.conditional: the data have no labels"),
        ({"balance": 1.0}, {"labels": None}, "data.balance: the data have no labels"),
        ({"min_agreement": 0.6}, {"agreement": None}, "data.min_agreement: the data set does not record how many"),
        ({"min_agreement": 1.0}, {}, "0 images left"),
        ({"subset": 61}, {}, "data.subset: 61 images are asked for, and there are 60"),
        ({"flip": True}, {"mirror": None}, "data.flip: mirroring changes the label"),
        ({"held_out": 0.999}, {}, "data.held_out: 60 images cannot be divided so that both"),
        ({"conditional": ["age"]}, {}, "no numeric column 'age'; they have: agreement"),
        ({"conditional": ["age"]}, {"facts": {"age": np.full(N, np.nan)}}, "age has missing values"),
        ({"weights": "age"}, {}, "data.weights: the data have no numeric column 'age'; they have: agreement"),
        ({"weights": "agreement"}, {"agreement": None}, "data.weights: the data have no numeric column 'agreement'"),
        ({"weights": "age"}, {"facts": {"age": np.r_[np.nan, np.ones(N - 1)]}}, "age is missing, .* in 1 of 60 images"),
        ({"weights": "age"}, {"facts": {"age": np.arange(N) - 2.0}}, "age is missing, .* below 0 in 2 of 60 images"),
        ({"weights": "age"}, {"facts": {"age": np.zeros(N)}}, "age is 0 in all 60 images"),
        (
            {"weights": "age", "balance": 0.5},
            {"facts": {"age": np.arange(N) % 3 // 2}},
            "every image of class 0 has age = 0, so that data.balance cannot draw it",
        ),
    ],
)
def test_refusals(keys: dict[str, object], facts: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        prepare(table(**keys), 0, dataset(**facts))
    assert "\n" not in str(caught.value)


def test_batches_are_in_minus_one_to_one_and_mirrored_where_asked() -> None:
    images = np.zeros((4, 1, 2, 3), np.uint8)
    images[..., 0] = 255
    data = prepare(table(), 0, gankit.wrap("dataset", images))
    like = torch.empty(0, dtype=torch.float64)
    batch = data.batch(np.array([0, 1]), like, torch.tensor([False, True]))
    assert batch.dtype == torch.float64
    assert batch[0, 0, 0].tolist() == [1, -1, -1]
    assert batch[1, 0, 0].tolist() == [-1, -1, 1]
    wide = gankit.wrap("dataset", np.full((4, 1, 2, 2), 4095, np.uint16), value_range=(0, 8190))
    assert prepare(table(), 0, wide).batch(np.array([0]), like).unique().tolist() == [0]


def test_an_epoch_holds_every_image_once_across_batches() -> None:
    order = Order(0, "test", 10)
    drawn = np.concatenate([order.batch(k, 4) for k in range(5)])
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10))
    assert drawn[:10].tolist() != drawn[10:].tolist()
    np.testing.assert_array_equal(Order(0, "test", 10).batch(3, 4), drawn[12:16])
    assert Order(0, "other", 10).batch(0, 10).tolist() != drawn[:10].tolist()
    assert sorted(Order(0, "test", 3).batch(0, 9).tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize(("balance", "share"), [(1.0, 0.5), (0.5, 2**0.5 / (1 + 2**0.5)), (0.0, 2 / 3)])
def test_balance_tempers_the_shares_of_classes(balance: float, share: float) -> None:
    data = prepare(table(balance=balance), 0, dataset())
    drawn = data.order(0, "test").batch(0, 60_000)
    labels = data.dataset.labels
    assert labels is not None
    assert (labels[drawn] == 0).mean() == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_weights_decide_how_often_an_image_is_drawn(balance: float) -> None:
    """In proportion to the weight within a class; classes by their sums of weights, tempered by balance."""
    age = np.arange(N) % 5.0
    data = prepare(table(weights="age", balance=balance), 0, dataset(facts={"age": age}))
    labels = data.dataset.labels
    assert labels is not None
    sums = np.array([age[labels == label].sum() for label in (0, 1)])
    shares = sums ** (1 - balance) / (sums ** (1 - balance)).sum()
    expected = age / sums[labels] * shares[labels]
    draws = 200_000
    counts = np.bincount(data.order(0, "test").batch(0, draws), minlength=N)
    assert counts[age == 0].sum() == 0
    drawn = expected > 0
    chi_squared = ((counts - draws * expected)[drawn] ** 2 / (draws * expected[drawn])).sum()
    assert chi_squared < 47 + 4 * np.sqrt(2 * 47)  # 48 images are drawn at all


def test_equal_weights_are_none() -> None:
    plain = prepare(table(balance=0.5), 0, dataset()).probabilities
    equal = prepare(table(balance=0.5, weights="age"), 0, dataset(facts={"age": np.full(N, 3)})).probabilities
    assert plain is not None
    assert equal is not None
    np.testing.assert_allclose(equal, plain, rtol=1e-12)


def test_agreement_weighs_images() -> None:
    data = prepare(table(weights="agreement", min_agreement=0.5), 0, dataset())
    assert data.probabilities is not None
    np.testing.assert_allclose(data.probabilities, np.arange(30, N) / np.arange(30, N).sum())


def test_resized_images_keep_depth_range_and_flat_areas() -> None:
    images = np.zeros((3, 1, 8, 8), np.uint16)
    images[0], images[1, :, :, 4:], images[2] = 40_000, 65_535, 7
    whole = gankit.wrap("dataset", images)
    resized = Resized(whole, (16, 12))
    assert resized.image == gankit.ImageSpec(1, 16, 12)
    assert resized.images.dtype == np.uint16
    assert (resized.images[0] == 40_000).all()
    assert (resized.images[2] == 7).all()
    assert resized.images[1].max() == 65_535
    assert resized.images[1].min() == 0


def test_memory_mapped_images_are_read_row_by_row(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (N, 3, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=images.transpose(0, 2, 3, 1))
    kept, mapped = (
        prepare(DataTable.model_validate(
            {"name": "npz", "path": str(tmp_path / "a.npz"), "in_memory": memory, "size": 16, "subset": 20}
        ), 0)
        for memory in (True, False)
    )  # fmt: skip
    like, rows = torch.empty(0), np.array([3, 1, 19])
    assert torch.equal(kept.batch(rows, like), mapped.batch(rows, like))
    assert "images" not in vars(mapped.dataset)  # nothing was copied as a whole


def test_black_and_white_become_the_ends_of_the_range() -> None:
    images = np.array([-1000, -300, 400], np.float32).repeat(16).reshape(3, 1, 4, 4)
    data = prepare(gankit.load("wgan-gp").data.model_copy(update={"size": None}), 0, gankit.wrap(
        "dataset", images, value_range=(-1000, 400)
    ))  # fmt: skip
    batch = data.batch(np.arange(3), torch.empty(0))
    torch.testing.assert_close(batch[:, 0, 0, 0], torch.tensor([-1.0, 0.0, 1.0]))
    assert images.min() == -1000  # the data set's own array is not touched


def test_conditions_that_a_mirror_changes_are_refused_together_with_flip() -> None:
    small = {"counts": [4, 4, 4], "flip": True, "size": 32}
    with pytest.raises(DataError, match=r"data\.flip: mirroring changes laterality; set"):
        prepare(table(conditional=["deviation", "laterality"], **small), 0)
    assert prepare(table(conditional=["deviation", "agreement"], **small), 0).image.conditions == 2


@pytest.mark.parametrize("key", ["conditional", "weights"])
def test_numbers_beyond_what_networks_can_hold(key: str) -> None:
    facts = {"severity": np.full(N, 1e308)}
    settings = {key: ["severity"] if key == "conditional" else "severity"}
    with pytest.raises(DataError, match=rf"data.{key}: severity has values beyond 1e\+100"):
        prepare(table(**settings), 0, dataset(facts=facts))
