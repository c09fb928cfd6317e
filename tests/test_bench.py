"""The speed benchmark: what it counts, what it works out, and the page that it writes."""

from __future__ import annotations

import json
import sys
import weakref
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import gankit.testing

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
import flops
import gpu
import gpu_page
import speed
import speed_page
import speed_peers


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "THREADS", 1)


@pytest.mark.parametrize("up", [False, True])
def test_flops_of_a_convolution_and_its_gradients_are_those_of_the_closed_form(up: bool) -> None:
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    weight = torch.randn(*((3, 5) if up else (5, 3)), 4, 4, requires_grad=True)
    with flops.Flops() as counted:
        y = (F.conv_transpose2d if up else F.conv2d)(x, weight, None, 2, 1)
        (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    pixels = 64 if up else 16  # each meets each of the kernel's values once
    once = 2 * 2 * 3 * 5 * 16 * pixels
    assert counted.counts == {"aten.convolution": once, "aten.convolution_backward": once}
    with counted:
        gradient.sum().backward()
    assert sum(counted.counts.values()) > 4 * once  # of y by x again, and both factors of the gradient


def test_flops_of_a_matrix_product() -> None:
    with flops.Flops() as counted:
        torch.mm(torch.randn(2, 3), torch.randn(3, 4)) + 1
    assert counted.counts == {"aten.mm": 2 * 2 * 3 * 4}


def test_the_loop_by_hand_does_the_arithmetic_of_a_step() -> None:
    counts = []
    for step in (speed.by_hand(2, 4), speed.updates(2, 4).advance):
        with flops.Flops() as counted:
            step()
        counts.append(counted.counts)
    assert counts[0] == counts[1]
    assert sum(counts[0].values()) > 1e6


def test_ratios_are_of_the_same_round() -> None:
    found = speed.ratios([(2.0, 3.0), (8.0, 3.0), (9.0, 3.0)], [(1.0, 1.0), (2.0, 1.5), (3.0, 1.0)])
    assert found == {"wall": {"median": 3.0, "low": 2.0, "high": 4.0}, "cpu": {"median": 3.0, "low": 2.0, "high": 3.0}}


def test_calls_take_turns_and_the_first_round_does_not_count() -> None:
    called: list[str] = []
    taken = speed.in_turn("x", {"a": lambda: called.append("a"), "b": lambda: called.append("b")}, 2)
    assert called == ["a", "b"] * 3
    assert [len(each) for each in taken.values()] == [2, 2]


@pytest.mark.parametrize("power", [1, 2])
def test_slope_is_the_exponent_of_the_last_two_points(power: int) -> None:
    rows = [{"x": x, "wall_s": 0.5 + (x > 1) * x**power} for x in (1, 10, 1000)]
    rows[1]["wall_s"] = 3.0 * 10**power
    rows[2]["wall_s"] = 3.0 * 1000**power
    assert speed_page.slope(rows) == pytest.approx(power)


@pytest.mark.parametrize(
    ("operation", "group"),
    [("aten::convolution_backward", "their gradients"), ("aten::copy_", "copies and changes of layout"),
     ("_WeightsBackward", "all else")],
)  # fmt: skip
def test_operations_are_grouped(operation: str, group: str) -> None:
    assert speed.group(operation) == group


def results() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(speed.JSON.read_text())
    return found


def test_the_page_is_the_one_that_the_results_give() -> None:
    page = speed_page.DOCS / "measured" / "speed-numbers.md"
    assert page.read_text(encoding="utf-8") == speed_page.page(results())


def test_a_missed_target_is_said_and_absent_parts_are_left_out(tmp_path: Path) -> None:
    found = results()
    memory = [{"who": who, "batch": 1, "width": 1, "growth_mb": 1.0, "share": share, "before_mb": 1.0}
              for who, share in (("torch-mimicry", 1.0), ("gankit", 0.9))]  # fmt: skip
    text = speed_page.write({"quick": True, "machine": found["machine"], "memory": memory}, tmp_path)
    assert "0.75: **missed**" in text
    assert "trial run" in text
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## Memory"]
    memory[1]["share"] = 0.5
    assert "0.75: met" in speed_page.page({"quick": False, "machine": found["machine"], "memory": memory})


def test_pictures_and_a_gpu_are_written(tmp_path: Path) -> None:
    found = results() | {"gpu": {"device": "a card", "steps": results()["mimicry"]}}
    text = speed_page.write(found, tmp_path)
    assert "on a card:" in text
    for name in ("speed-steps.png", "speed-growth.png"):
        assert f"../images/{name}" in text
        assert (tmp_path / "images" / name).read_bytes().startswith(b"\x89PNG")


def test_a_missing_peer_is_said_with_its_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(speed_peers, "FOLDER", tmp_path)
    with pytest.raises(speed_peers.Missing, match=r"pip install --no-deps --target .* torch-mimicry==0\.1\.16"):
        speed_peers.peer("torch_mimicry_is_not_here")


@pytest.mark.parametrize("part", ["loop", pytest.param("limit", marks=pytest.mark.slow), "data"])
def test_parts_without_peers_run_and_are_written(part: str, tmp_path: Path) -> None:
    measured = speed.PARTS[part](True)
    before = results()
    text = speed_page.write({"quick": True, "machine": speed.machine(), part: measured}, tmp_path)
    assert len(text) > 500
    keys = [sorted(row) for row in (measured["steps"] if part == "limit" else measured)]
    old = before[part]["steps"] if part == "limit" else before[part]
    assert keys[0] == sorted(old[0])


@pytest.mark.skipif(not speed_peers.FOLDER.is_dir(), reason="make .bench/.installed installs the peers")
@pytest.mark.parametrize("part", ["mimicry", "trainers"])
def test_peers_run(part: str) -> None:
    rows = speed.PARTS[part](True)
    assert len({row["who"] for row in rows}) in (4, 5)
    assert all(row["wall_s"] > 0 for row in rows)


@pytest.mark.slow
def test_the_gpu_benchmark_runs_in_small_on_the_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with gankit.testing.isolated_registry():
        results = gpu.main(["--smoke", "--out", str(tmp_path)])
    said = capsys.readouterr().out
    assert "not run: everything that needs a GPU" in said
    left_out = [line for line in results["not_run"] if not line.startswith(("everything", "mimicry: Missing"))]
    assert not left_out
    assert json.loads((tmp_path / "gpu.json").read_text()) == results
    assert all(row["equal"] for row in results["equality"])
    assert {row["recipe"] for row in results["step"]} == {"wgan-gp", "fastgan"}
    page = (tmp_path / "gpu.md").read_text()
    assert "no record" in page
    assert all(f"\n## {heading}\n" in page for heading, name, _ in gpu_page.SECTIONS if results[name])


def test_a_training_that_was_measured_takes_no_memory_beside_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    build = gpu.Bench.stepper

    def stepper(bench: gpu.Bench, *settings: Any) -> Any:
        assert [one() for one in made] == [None] * len(made)
        built = build(bench, *settings)
        made.append(weakref.ref(built))
        return built

    monkeypatch.setattr(gpu.Bench, "stepper", stepper)
    (row,) = gpu.step(gpu.Bench(True), "wgan-gp", 8, 4)
    assert {"graphs", "eager"} <= row.keys()
    assert len(made) == 2


def test_the_gpu_benchmark_names_what_it_had_no_time_for(tmp_path: Path) -> None:
    out = tmp_path / "a folder" / "that is made"
    with gankit.testing.isolated_registry():
        results = gpu.main(["--smoke", "--out", str(out), "--minutes", "0"])
    assert [line.partition(":")[0] for line in results["not_run"][1:]] == list(gpu.PARTS)
    assert not results["whole"]
    assert (out / "gpu.md").read_text().count("| not measured |") == len(gpu_page.TARGETS)


def test_the_gpu_benchmark_goes_on_after_a_fault_and_keeps_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> Any:
        raise RuntimeError("CUDA out of memory")

    def one(bench: gpu.Bench, number: int) -> Any:
        if number > 1:
            assert json.loads((tmp_path / "gpu.json").read_text())["mimicry"] == [{"who": "gankit", "step_ms": 1.0}]
        yield {"who": "gankit", "step_ms": float(number)}

    def part(bench: gpu.Bench) -> Any:
        return iter([partial(fails, bench, "torch-mimicry"), partial(one, bench, 1), partial(one, bench, 2)])

    monkeypatch.setattr(gpu, "PARTS", {name: part if name == "mimicry" else lambda _: iter([]) for name in gpu.PARTS})
    with gankit.testing.isolated_registry():
        results = gpu.main(["--smoke", "--out", str(tmp_path)])
    assert [row["step_ms"] for row in results["mimicry"]] == [1.0, 2.0]
    assert results["not_run"][1:] == ["mimicry: RuntimeError: CUDA out of memory (torch-mimicry)"]
    assert "| gankit | 2.0 ms |" in (tmp_path / "gpu.md").read_text()
    with gankit.testing.isolated_registry():
        again = gpu.main(["--smoke", "--out", str(tmp_path)])  # what failed fails again, and what is there stays
    assert again == results


def test_the_page_about_gpus_does_without_what_others_are_compared_with() -> None:
    assert "gankit | 20.0 ms |" in gpu_page.beside_mimicry([{"who": "gankit", "step_ms": 20.0}])
    assert "bf16 | 20.0 ms |" in gpu_page.ways([{"recipe": "dcgan", "side": 64, "way": "bf16", "step_ms": 20.0}])


def test_the_page_about_gpus_is_that_of_the_record() -> None:
    record = json.loads(gpu_page.RECORD.read_text()) if gpu_page.RECORD.is_file() else None
    assert gpu_page.PAGE.read_text() == gpu_page.page(record)


def test_the_page_about_gpus_shows_every_row() -> None:
    row = {"step_ms": 20.0, "kernels_ms": 19.0, "memory_mb": 1300.0, "images_per_second": 9000.0, "said": ["x"]}
    page = gpu_page.page({
        "machine": {"device": "A", "torch": "2", "cuda": "13"}, "smoke": False, "not_run": ["step: more"],
        "step": [{"recipe": "dcgan", "side": 64, "batch": 8, "graphs": row, "eager": {**row, "memory_mb": 1000.0}}],
        "mimicry": [{"who": "torch-mimicry", "step_ms": 160.0}, {"who": "gankit", "step_ms": 20.0}],
        "equality": [{"recipe": "dcgan", "side": 64, "way": "resumed", "equal": False}],
        "arithmetic": [{"recipe": "dcgan", "side": 64, "way": "as it is", "step_ms": 26.0},
                       {"recipe": "dcgan", "side": 64, "way": "bf16", "step_ms": 20.0}],
        "record": [], "inference": [],
    })  # fmt: skip
    for cells in ("dcgan | 64 | 8 | 20.0 ms | 20.0 ms | 19.0 ms | 1.05 | 9,000 | 1,300 MB | 1.30", "| 8.00 |",
                  "torch-mimicry's own step | 7 times as fast | 8.00 | 1 | met |", "kernels | 1.1 | 1.05 | 1 | met |",
                  "update | 9 times as fast |  | 0 | not measured |", "bitwise equal | 0.00 | 1 | **missed** |",
                  "a replayed, resumed one | **no**", "bf16 | 20.0 ms | 1.30", "- step: more",
                  "Said on the way: x"):  # fmt: skip
        assert cells in page
