"""The Frechet distance against closed forms and 60 digits: equal sets, few images, offsets."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import scipy.linalg
from frechet_rows import Array, moments, rotation, rows, whitened
from hypothesis import given, settings
from hypothesis import strategies as st

from gankit import GankitError
from gankit.metrics import _covariance
from gankit.metrics.frechet import frechet_distance, frechet_distance_from_moments

SHAPES = [(n, m, d) for n in (2, 5, 40) for m in (2, 7, 60) for d in (1, 3, 20, 50)]


@pytest.mark.parametrize("n", [2, 3, 10, 64, 300])
@pytest.mark.parametrize("d", [1, 2, 17, 64, 200])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_identical_sets_are_at_exactly_zero_in_any_order(n: int, d: int, offset: float) -> None:
    x = rows(n, d, decay=1.2) + offset
    assert frechet_distance(x, x) == 0.0
    assert frechet_distance(x, x[::-1]) == 0.0
    assert frechet_distance_from_moments(*moments(x), *moments(x)) == 0.0


def test_identical_sets_with_dead_features_are_at_zero() -> None:
    x = rows(100, 30)
    x[:, ::2] = 3.7
    assert frechet_distance(x, x) == 0.0
    constant = np.full((5, 4), 0.1)
    assert frechet_distance(constant, constant) == 0.0
    assert frechet_distance(constant, constant + 1) == pytest.approx(4)


@pytest.mark.parametrize(("n", "d"), [(10, 300), (200, 30), (1000, 8)])
def test_equal_covariance_gives_the_squared_shift_of_the_mean(n: int, d: int) -> None:
    x, shift = rows(n, d), rows(1, d, seed=1)
    assert frechet_distance(x, x + shift) == pytest.approx(float((shift**2).sum()), rel=1e-12)


@pytest.mark.parametrize("d", [1, 4, 30])
def test_commuting_covariances(d: int) -> None:
    a, b = 1 + np.arange(d) ** 1.5, 3 / (1 + np.arange(d))
    shift, basis = rows(1, d, seed=3)[0], rotation(d)
    truth = float(((np.sqrt(a) - np.sqrt(b)) ** 2).sum() + (shift**2).sum())
    x = whitened(80, d, 1) * np.sqrt(a) @ basis
    y = whitened(50, d, 2) * np.sqrt(b) @ basis + shift
    assert frechet_distance(x, y) == pytest.approx(truth, rel=1e-12)
    sigma_a, sigma_b = basis.T * a @ basis, basis.T * b @ basis
    assert frechet_distance_from_moments(np.zeros(d), sigma_a, shift, sigma_b) == pytest.approx(truth, rel=1e-12)


def test_rank_one() -> None:
    # Both covariances are outer products u u' and v v', for which the trace term is |u . v|.
    u, v = np.array([3.0, 0, 4, 0]), np.array([1.0, 2, 2, 0])
    truth = 25 + 9 - 2 * 11
    steps_x, steps_y = whitened(9, 1, 1), whitened(6, 1, 2)
    assert frechet_distance(steps_x * u, steps_y * v) == pytest.approx(truth, rel=1e-12)
    zero = np.zeros(4)
    assert frechet_distance_from_moments(zero, np.outer(u, u), zero, np.outer(v, v)) == pytest.approx(truth, rel=1e-7)


def test_two_rows_each() -> None:
    x, y = np.array([[0.0, 0, 0], [2, 0, 0]]), np.array([[0.0, 0, 5], [0, 4, 5]])
    # Means (1, 0, 0) and (0, 2, 5); the covariances are 2 e1 e1' and 8 e2 e2', which are orthogonal.
    assert frechet_distance(x, y) == pytest.approx(30 + 2 + 8, rel=1e-14)


@pytest.mark.parametrize(("n", "m", "d"), SHAPES)
def test_symmetric_and_invariant(n: int, m: int, d: int) -> None:
    x, y = rows(n, d, 1, decay=0.7), rows(m, d, 2) * 1.5 + 0.3
    value = frechet_distance(x, y)
    assert value > 0
    assert frechet_distance(y, x) == pytest.approx(value, rel=1e-11)
    turn = rotation(d, 5)
    assert frechet_distance(x @ turn, y @ turn) == pytest.approx(value, rel=1e-11)
    assert frechet_distance(x + 1e3, y + 1e3) == pytest.approx(value, rel=1e-9)
    assert frechet_distance(x * 7, y * 7) == pytest.approx(49 * value, rel=1e-11)


def test_an_offset_of_a_million_changes_nothing() -> None:
    x, y = rows(50, 20, 1), rows(60, 20, 2) * 1.3
    assert frechet_distance(x + 1e6, y + 1e6) == pytest.approx(frechet_distance(x, y), rel=1e-8)


def reference(mu1: Array, sigma1: Array, mu2: Array, sigma2: Array) -> float:
    """Eigenvalues of the product with 60 digits."""
    with mpmath.workdps(60):
        product = mpmath.matrix(sigma1.tolist()) * mpmath.matrix(sigma2.tolist())
        values = mpmath.eig(product, left=False, right=False)
        root = sum(mpmath.sqrt(max(mpmath.re(value), 0)) for value in values)
        trace = sum(map(mpmath.mpf, np.diagonal(sigma1))) + sum(map(mpmath.mpf, np.diagonal(sigma2)))
        return float(sum(mpmath.mpf(step) ** 2 for step in (mu1 - mu2)) + trace - 2 * root)


@pytest.mark.parametrize(("n", "m", "d"), [(30, 20, 4), (9, 9, 8), (5, 12, 6), (3, 4, 7), (2, 2, 5)])
def test_equals_sixty_digits(n: int, m: int, d: int) -> None:
    # Integer rows, so that the reference starts from the very same values.
    x = np.random.default_rng(1).integers(-64, 64, (n, d)).astype(float)
    y = np.random.default_rng(2).integers(-64, 64, (m, d)) * 2.0
    with mpmath.workdps(60):
        exact = []
        for array in (x, y):
            mean = [mpmath.fsum(column) / len(array) for column in array.T.tolist()]
            centred = mpmath.matrix([[value - mean[j] for j, value in enumerate(row)] for row in array.tolist()])
            exact.append((mean, centred.T * centred / (len(array) - 1)))
        (mean_x, sigma_x), (mean_y, sigma_y) = exact
        values = mpmath.eig(sigma_x * sigma_y, left=False, right=False)
        root = sum(mpmath.sqrt(max(mpmath.re(value), 0)) for value in values)
        shift = sum((a - b) ** 2 for a, b in zip(mean_x, mean_y, strict=True))
        truth = float(shift + sum(sigma_x[i, i] + sigma_y[i, i] for i in range(d)) - 2 * root)
    assert frechet_distance(x, y) == pytest.approx(truth, rel=1e-13)


def test_moments_equal_sixty_digits() -> None:
    first, second = moments(rows(12, 5, 1)), moments(rows(9, 5, 2) * 2)
    truth = reference(*first, *second)
    assert frechet_distance_from_moments(*first, *second) == pytest.approx(truth, rel=1e-13)


@pytest.mark.parametrize("d", [2, 10, 60])
def test_equals_the_matrix_square_root_where_that_is_well_conditioned(d: int) -> None:
    x, y = rows(40 * d, d, 1), rows(30 * d, d, 2) @ (np.eye(d) + 0.3 * rotation(d)) + 0.1
    (mu1, sigma1), (mu2, sigma2) = moments(x), moments(y)
    root = np.real(scipy.linalg.sqrtm(sigma1 @ sigma2))
    truth = float(((mu1 - mu2) ** 2).sum() + np.trace(sigma1 + sigma2 - 2 * root))
    assert frechet_distance(x, y) == pytest.approx(truth, rel=1e-9)


@pytest.mark.parametrize(("n", "m", "d"), SHAPES)
def test_moments_equal_rows(n: int, m: int, d: int) -> None:
    x, y = rows(n, d, 1), rows(m, d, 2) * 2 + 1
    value = frechet_distance_from_moments(*moments(x), *moments(y))
    # Square roots of zero eigenvalues that rounding made 1e-16 cost about half of the digits.
    assert value == pytest.approx(frechet_distance(x, y), rel=1e-6)


def test_float32_and_integers_are_computed_in_float64_and_inputs_stay() -> None:
    x, y = rows(20, 6, 1).astype(np.float32), rows(30, 6, 2).astype(np.float32) + 1000
    before = x.copy(), y.copy()
    value = frechet_distance(x, y)
    assert value == frechet_distance(x.astype(np.float64), y.astype(np.float64))
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(y, before[1])
    wide = rows(20, 6, 1)
    kept = wide.copy()
    frechet_distance(wide, wide + 1)
    np.testing.assert_array_equal(wide, kept)
    assert frechet_distance([[0, 1], [2, 3]], [[1, 2], [3, 4]]) == pytest.approx(2)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(2, 12),
    m=st.integers(2, 12),
    d=st.integers(1, 12),
    seed=st.integers(0, 2**32 - 1),
    scale=st.floats(1e-3, 1e3),
    offset=st.floats(-1e3, 1e3),
)
def test_properties(n: int, m: int, d: int, seed: int, scale: float, offset: float) -> None:
    random = np.random.default_rng(seed)
    x, y = random.normal(size=(n, d)), random.normal(size=(m, d)) * scale + offset
    value = frechet_distance(x, y)
    shift = float(((x.mean(0) - y.mean(0)) ** 2).sum())
    traces = float(x.var(0, ddof=1).sum() + y.var(0, ddof=1).sum())
    assert shift * (1 - 1e-9) <= value <= (shift + traces) * (1 + 1e-9)
    assert frechet_distance(y, x) == pytest.approx(value, rel=1e-8)
    assert frechet_distance(y, random.permutation(y)) == 0.0
    assert math.sqrt(frechet_distance(x, -x)) <= (math.sqrt(value) + math.sqrt(frechet_distance(y, -x))) * (1 + 1e-6)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((1, 3)), np.zeros((5, 3)), "features x: 1 row; at least 2"),
        (np.zeros((5, 3)), np.zeros((0, 3)), "features y: 0 rows"),
        (np.zeros((5, 3)), np.zeros((5, 4)), "differ in dimension"),
        (np.zeros(5), np.zeros((5, 4)), r"features x must be \(n, d\)"),
        (np.zeros((5, 0)), np.zeros((5, 0)), r"features x must be \(n, d\)"),
        (np.zeros((5, 3)) + 1j, np.zeros((5, 3)), "features x must be an array of real numbers, not ndarray of compl"),
        (np.zeros((5, 3)), np.ma.masked_less(np.zeros((5, 3)), 1), "of real numbers, not MaskedArray of float64"),
        (np.zeros((5, 3)), np.full((5, 3), "0"), "of real numbers, not ndarray of <U1"),
        (np.full((5, 3), np.nan), np.zeros((5, 3)), "features x have values that are NaN"),
        (np.zeros((5, 3)), np.full((5, 3), np.inf), "features y have values that are NaN or infinite"),
    ],
)
def test_refused_features(x: Array, y: Array, message: str) -> None:
    with pytest.raises(GankitError, match=message):
        frechet_distance(x, y)


@pytest.mark.parametrize(
    ("mu", "sigma", "message"),
    [
        (np.zeros(2), np.eye(3), "their shapes are"),
        (np.zeros((2, 1)), np.eye(2), "their shapes are"),
        (np.zeros(2), np.diag([1.0, np.nan]), "NaN or infinite"),
        (np.zeros(2), np.array([[1.0, 0.5], [0.4, 1.0]]), "not symmetric"),
        (np.zeros(2), np.diag([1.0, -1e-6]), "negative eigenvalues sum to -1e-06"),
        (np.zeros(3), np.eye(3), "differ in dimension"),
    ],
)
def test_refused_moments(mu: Array, sigma: Array, message: str) -> None:
    with pytest.raises(GankitError, match=message):
        frechet_distance_from_moments(mu, sigma, np.zeros(2), np.eye(2))


def test_a_negative_part_that_rounding_explains_is_taken() -> None:
    zero = np.zeros(2)
    value = frechet_distance_from_moments(zero, np.diag([1.0, -1e-13]), zero, np.diag([4.0, 0.0]))
    assert value == pytest.approx(1)


def test_a_rounding_error_beyond_its_bound_makes_no_negative_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_covariance, "_relative_rounding_bound", lambda *sizes: 0.0)
    factors = [rows(6, 4, seed) for seed in range(20)]
    assert min(_covariance.covariance_term(a, rotation(6) @ a) for a in factors) == 0


@pytest.mark.parametrize("decay", [0.0, 0.6, 1.0])
def test_eigenvalues_of_many_images_are_as_exact_as_singular_values(decay: float) -> None:
    """Features in no special basis, well and badly conditioned: beside the factors of a QR decomposition."""
    basis = rotation(200)
    x, y = (rows(600, 200, seed, decay) @ basis * scale for seed, scale in ((1, 1.0), (2, 1.05)))
    centred = [(side - side.mean(0)) / math.sqrt(599) for side in (x, y)]
    one, other = (np.linalg.qr(side, mode="r") for side in centred)
    singular = np.linalg.svd(one @ other.T, compute_uv=False).sum()
    truth = ((x.mean(0) - y.mean(0)) ** 2).sum() + (one**2).sum() + (other**2).sum() - 2 * singular
    assert frechet_distance(x, y) == pytest.approx(float(truth), rel=1e-11)
    assert frechet_distance(x, x[::-1]) == 0.0
