"""Stored statistics: written for and read from clean-fid and pytorch-fid, and refused under another protocol."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import gankit
from gankit import GankitError
from gankit.cli import app
from gankit.evaluation.statistics import Statistics
from gankit.metrics.frechet import frechet_distance

DRAW = np.random.default_rng(0)
REAL, FAKE = (DRAW.integers(low, 256, (90, 1, 6, 6), dtype=np.uint8) for low in (0, 60))
FEATURES = {"name": "pixels", "side": 3}


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    return gankit.statistics(REAL, FEATURES).write(tmp_path / "real.npz")


def test_statistics_serve_in_place_of_images(stored: Path) -> None:
    images = gankit.evaluate(FAKE, REAL, ["frechet", "variance-ratio"], FEATURES)
    moments = gankit.evaluate(FAKE, str(stored), ["frechet", "variance-ratio"], FEATURES)
    for name in ("frechet", "variance-ratio"):
        entry = moments["metrics"][name]
        assert entry["value"] == pytest.approx(images["metrics"][name]["value"], rel=1e-9)
        assert (entry["n_real"], entry["n_fake"]) == (90, 90)
        assert entry["standard_error"] is None
        assert entry["real_vs_real"] is None
    assert moments["protocol"]["real_content"] == images["protocol"]["real_content"]
    assert gankit.evaluate(FAKE, Statistics.read(stored), ["frechet"], FEATURES)["metrics"]["frechet"] == {
        **moments["metrics"]["frechet"]
    }


def test_copies_are_looked_for_where_the_training_images_are_given(stored: Path) -> None:
    training = np.concatenate([REAL, FAKE[:3]])
    protocol = gankit.evaluate(FAKE, stored, ["frechet"], FEATURES, training=training)["protocol"]
    assert protocol["copies"]["exact"] == 3
    assert protocol["n_training"] == 93
    assert "3 of 90 generated images equal a training image" in protocol["warnings"][-1]
    assert "copies" not in gankit.evaluate(FAKE, stored, ["frechet"], FEATURES)["protocol"]


def test_statistics_have_their_features_already(stored: Path) -> None:
    assert gankit.statistics(stored).moments.n == 90
    with pytest.raises(GankitError, match=r"real\.npz holds statistics, whose features are fixed"):
        gankit.statistics(stored, FEATURES)


def test_clean_fid_and_pytorch_fid_read_the_file(stored: Path) -> None:
    # Both read nothing but these two arrays: np.load(path)["mu"], np.load(path)["sigma"].
    with np.load(stored) as file:
        mu, sigma = file["mu"], file["sigma"]
        assert int(file["n"]) == 90
    rows = REAL.astype(float).reshape(90, 1, 3, 2, 3, 2).mean((3, 5)).reshape(90, 9) / 255
    assert mu.dtype == sigma.dtype == np.float64
    assert mu == pytest.approx(rows.mean(0), abs=0.1)  # the resize weighs neighbours too
    assert sigma.shape == (9, 9)


def test_foreign_files_are_read_with_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = DRAW.normal(size=(50, 9)) * 0.1 + 0.5
    for save in (np.savez, np.savez_compressed):  # pytorch-fid and clean-fid
        save(tmp_path / "theirs.npz", mu=rows.mean(0), sigma=np.cov(rows.T))
        report = gankit.evaluate(FAKE, str(tmp_path / "theirs.npz"), ["frechet"], FEATURES)
        app(["statistics", str(tmp_path / "theirs.npz"), "--out", str(tmp_path / "ours.npz")], standalone_mode=False)
        assert capsys.readouterr().out.startswith("? images of ")
        assert report["metrics"]["frechet"]["n_real"] is None
        assert "does not say which features" in report["protocol"]["warnings"][0]
    from gankit.evaluation import extraction
    from gankit.evaluation.sources import from_array

    network = gankit.build("features", "pixels", gankit.ImageSpec(1, 6, 6), side=3)
    truth = frechet_distance(rows, extraction.features(from_array(FAKE, "fake"), network))
    assert report["metrics"]["frechet"]["value"] == pytest.approx(truth, rel=1e-6)


def test_the_wrong_protocol_is_refused(stored: Path) -> None:
    with pytest.raises(GankitError, match=r"other features.*features_dim: 9 in the file, 4 here"):
        gankit.evaluate(FAKE, str(stored), ["frechet"], {"name": "pixels", "side": 2})
    network = gankit.wrap("features", lambda images: images.flatten(1)[:, :9], dim=9)
    with pytest.raises(GankitError, match=r"features: pixels in the file"):
        gankit.evaluate(FAKE, str(stored), ["frechet"], network)
    with pytest.raises(GankitError, match="holds only mean and covariance, too little for kid"):
        gankit.evaluate(FAKE, str(stored), ["frechet", "kid"], FEATURES)
    with pytest.raises(GankitError, match="can be given only as the real images"):
        gankit.evaluate(str(stored), REAL, ["frechet"], FEATURES)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mu": np.zeros(9), "sigma": np.zeros((9, 8))}, r"mu must be \(d,\) and sigma \(d, d\)"),
        ({"mu": np.zeros(9), "sigma": np.full((9, 9), np.nan)}, "NaN or infinite"),
        ({"mu": np.zeros(9), "sigma": np.diag([1.0] * 8 + [-1.0])}, "negative eigenvalues"),
        ({"mu": np.zeros(9), "sigma": np.eye(9), "protocol": np.array("{")}, "no statistics can be read"),
        ({"mu": np.zeros(9), "sigma": np.eye(9), "protocol": np.array("[1]")}, "no statistics can be"),
        (
            {"mu": np.zeros(9), "sigma": np.eye(9), "protocol": np.array('{"features_protocol": []}')},
            "no statistics can be",
        ),
    ],
)
def test_broken_files(arrays: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(GankitError, match=message) as caught:
        gankit.evaluate(FAKE, str(tmp_path / "a.npz"), ["frechet"], FEATURES)
    assert "\n" not in str(caught.value)


def test_images_are_not_written_over_by_their_statistics(stored: Path, tmp_path: Path) -> None:
    images = tmp_path / "images.npz"
    np.savez(images, images=REAL.transpose(0, 2, 3, 1))
    before = images.read_bytes()
    with pytest.raises(GankitError, match=r"images\.npz holds something other than statistics"):
        Statistics.read(stored).write(images)
    assert images.read_bytes() == before
    Statistics.read(stored).write(stored)


def test_a_damaged_file(stored: Path) -> None:
    content = bytearray(stored.read_bytes())
    content[len(content) // 3] ^= 255
    stored.write_bytes(content)
    with pytest.raises(GankitError):
        gankit.evaluate(FAKE, str(stored), ["frechet"], FEATURES)
