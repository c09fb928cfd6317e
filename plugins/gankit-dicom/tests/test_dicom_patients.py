"""Patients: groups, held-out images, classes, and that nothing tells who they are."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import gankit
import numpy as np
import pydicom
import pydicom.config
import pytest
from dicom_files import error, header, pixels, save
from pydicom.datadict import dictionary_VR, keyword_dict
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, generate_uid

from gankit_dicom import Dicom
from gankit_dicom._header import Header
from gankit_dicom._patients import Redactor

CANARY = "ZQXJVKWY"
DIGITS = "19710923"  # as a date or a number, where letters are not allowed

SMALL = (
    "generator.width=4", "generator.latent_dim=4", "critic.width=4", "training.steps=2", "training.critic_steps=1",
    "training.generator_batch=4", "training.averaging=0.5", "data.size=16", "evaluation.features=pixels",
    'evaluation.metrics=["frechet"]',
)  # fmt: skip


class TestGroups:
    def test_numbers_in_order(self, tmp_path: Path) -> None:
        for i, patient in enumerate(["Z9", "A1", "Z9", "M5", "A1"]):
            save(tmp_path / str(i), pixels(4, 4), PatientID=patient)
        groups = Dicom(path=tmp_path).groups
        assert groups.dtype == np.int64
        assert groups.tolist() == [0, 1, 0, 2, 1]

    def test_a_study_belongs_to_one_patient(self, tmp_path: Path) -> None:
        studies = [generate_uid() for _ in range(3)]
        known = [("P", 0), ("", 0), ("P", 1), ("", 2), (None, None), ("", None), ("", 1), (" Q ", 2), ("Q", None)]
        for i, (patient, study) in enumerate(known):
            tags = {"PatientID": patient, "StudyInstanceUID": None if study is None else studies[study]}
            save(tmp_path / str(i), pixels(4, 4), **tags)
        assert Dicom(path=tmp_path).groups.tolist() == [0, 0, 0, 1, 2, 3, 0, 1, 1]
        assert Dicom(path=tmp_path, group_by="study").groups.tolist() == [0, 0, 1, 2, 3, 4, 1, 2, 5]
        assert Dicom(path=tmp_path, group_by="file").groups.tolist() == list(range(9))

    def test_the_table_decides_where_it_has_groups(self, tmp_path: Path) -> None:
        for i in range(3):
            save(tmp_path / str(i), pixels(4, 4), PatientID="P")
        (tmp_path / "labels.csv").write_text("file,group\n2,b\n1,a\n0,b\n")
        assert Dicom(path=tmp_path).groups.tolist() == [0, 1, 0]

    @pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
    def test_no_patient_on_both_sides(self, tmp_path: Path, seed: int) -> None:
        """In trainings, whose losses tell by the pixels whose images they see."""
        draw = random.Random(seed)
        for i in range(40):
            patient = draw.randrange(10)
            array = 20 * patient + pixels(2, 16, 16, high=9)
            save(tmp_path / f"{i:02}", array, PatientID=str(patient))
        sides: dict[str, set[int]] = {"training": set(), "held out": set()}

        class Spy(gankit.Loss):
            """Sees, and is silent (written for this test)."""

            needs_held_out = True

            def critic(self, turn: gankit.Turn) -> None:
                for side, images in zip(sides, (turn.raw_real, turn.held_out), strict=True):
                    darkest = ((images.amin((1, 2, 3)) + 1) * 127.5).round()
                    sides[side].update((darkest // 20).int().tolist())

        gankit.losses.register("spy")(Spy)
        experiment = gankit.load(
            "wgan-gp", "data.name=dicom", f"data.path={tmp_path}", "data.held_out=0.3", f"training.seed={seed}",
            'losses=[{name="wasserstein"}, {name="spy"}]', *SMALL, "training.batch=40", "training.dequantise=false",
        )  # fmt: skip
        gankit.train(experiment, tmp_path / ".run")
        present = {array // 20 for array in Dicom(path=tmp_path).images.min((1, 2, 3)).tolist()}
        assert len(sides["held out"]) >= 3
        assert not sides["training"] & sides["held out"]
        assert sides["training"] | sides["held out"] == present

    def test_a_line_says_that_splits_divide_patients(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        for i, (folder, patient) in enumerate([("train", CANARY), ("test", CANARY), ("train", "B"), ("val", "C")]):
            save(tmp_path / folder / str(i), pixels(4, 4), PatientID=patient)
        data = Dicom(path=tmp_path)
        assert {name: len(places) for name, places in data.splits.items()} == {"test": 1, "train": 2, "val": 1}
        assert data.splits
        assert [record.getMessage() for record in caplog.records] == [
            "1 of 3 groups (patients) have images in more than one split"
        ]


class TestSubFolders:
    def test_classes(self, tmp_path: Path) -> None:
        for i, folder in enumerate(["train/sick", "test/well/deep", "train/well"]):
            save(tmp_path / folder / "a", pixels(4, 4), PatientID=f"P{i // 2}")
        data = Dicom(path=tmp_path)
        assert data.class_names == ("sick", "well")
        assert data.labels is not None
        assert data.labels.tolist() == [1, 0, 1]
        save(tmp_path / "train" / "b", pixels(4, 4))
        assert "1 of 4 DICOM files are in no sub-folder" in error(lambda: Dicom(path=tmp_path).labels)
        assert Dicom(path=tmp_path, sub_folders="ignore").labels is None

    @pytest.mark.parametrize("name", [CANARY, f"x_{CANARY.lower()}_1", "Amalia", "amalia brandt"])
    def test_that_tell_a_patient_are_refused(self, tmp_path: Path, name: str) -> None:
        for folder in (name, "b"):
            save(tmp_path / folder / "a", pixels(4, 4), PatientID=CANARY, PatientName="Brandt^Amalia")
        for asked_for in (None, "classes"):
            text = error(lambda asked_for=asked_for: Dicom(path=tmp_path, sub_folders=asked_for).class_names)
            assert text.startswith("sub-folders are named after patients, and would be classes")
            assert name not in text
        assert Dicom(path=tmp_path, sub_folders="ignore").class_names == ()

    def test_one_for_each_patient_are_refused_unless_asked_for(self, tmp_path: Path) -> None:
        for i in range(4):
            save(tmp_path / f"subject{i // 2}" / str(i), pixels(4, 4), PatientID=f"P{i // 2}")
        text = error(lambda: Dicom(path=tmp_path).image)
        assert text.startswith("sub-folders are one for each patient, and would be classes")
        assert Dicom(path=tmp_path, sub_folders="classes").class_names == ("subject0", "subject1")


class TestFileNames:
    def test_patients_are_hidden_in_paths(self, tmp_path: Path) -> None:
        save(
            tmp_path / f"{CANARY}_1" / "Brandt.dcm",
            pixels(4, 4),
            PatientID=CANARY,
            PatientName="Brandt^Amalia",
            HighBit=2,
        )
        save(tmp_path / "b", pixels(4, 4), PatientID="b", PatientBirthDate=DIGITS)
        data = Dicom(path=tmp_path, sub_folders="ignore")
        text = error(lambda: data.image)
        assert text.startswith("[patient]_1/[patient].dcm (number 1 in order of path) keeps its values")

    def test_other_ids_and_names_of_a_patient_are_hidden_too(self, tmp_path: Path) -> None:
        other = Dataset()
        other.PatientID = CANARY
        save(
            tmp_path / f"{CANARY}-amalia-weiss-1971.dcm",
            pixels(4, 4),
            OtherPatientIDsSequence=Sequence([other]),
            OtherPatientNames=["Brandt^Amalia", "Brandt^A"],
            PatientBirthName="Weiss^A",
            HighBit=2,
        )
        assert error(lambda: Dicom(path=tmp_path).image).startswith("[patient]-[patient]-[patient]-1971.dcm (number 1")

    def test_hiding_does_not_slow_down_with_the_number_of_patients(self) -> None:
        hide = Redactor(Header(secrets=frozenset({f"ID-{n:06}", f"Q{n}"})) for n in range(20_000))
        texts = [hide(f"scans/id-{n:06}/q7/x-{n}.dcm") for n in range(500)]
        assert texts == [f"scans/[patient]/q7/x-{n}.dcm" for n in range(500)]

    def test_patients_are_hidden_in_errors_of_the_table(self, tmp_path: Path) -> None:
        save(tmp_path / f"{CANARY}.dcm", pixels(4, 4), PatientID=CANARY)
        for lines in (f"{CANARY}.dcm,x\n{CANARY}.dcm,x\n", f"{CANARY}.dc,x\n", "", f"{CANARY}.dcm,\n"):
            (tmp_path / "labels.csv").write_text(f"file,label\n{lines}")
            assert CANARY not in error(lambda: Dicom(path=tmp_path).labels)


def test_files_that_show_the_patient_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "a", pixels(4, 4), BurnedInAnnotation="NO")
    save(tmp_path / "b", pixels(4, 4), BurnedInAnnotation="YES")
    assert error(lambda: Dicom(path=tmp_path).image) == (
        "b says that its pixels show who the patient is (1 of 2 files do); blank the text out, or set "
        'burned_in = "allow"'
    )
    assert len(Dicom(path=tmp_path, burned_in="allow").images) == 2


def canary(vr: str) -> Any:
    """A value of this representation that a search can find."""
    if vr in ("DA", "DT", "TM", "IS", "DS", "AS"):
        return DIGITS
    if vr == "UI":
        return f"1.2.{DIGITS}"
    return CANARY


def marked(pixels_: np.ndarray[Any, Any], **tags: Any) -> Dataset:
    """A file with the canary in every element of the dictionary that can hold it, in a sequence, in a private one."""
    made = header(pixels_, **tags)
    with pydicom.config.disable_value_validation():
        for keyword in sorted(keyword_dict):
            vr = dictionary_VR(keyword)
            group = keyword_dict[keyword] >> 16
            if keyword in made or group in (0, 2, 4) or "LengthToEnd" in keyword or "x" in vr:
                continue
            if vr in (
                "AE",
                "AS",
                "CS",
                "DA",
                "DS",
                "DT",
                "IS",
                "LO",
                "LT",
                "PN",
                "SH",
                "ST",
                "TM",
                "UC",
                "UI",
                "UR",
                "UT",
            ):
                setattr(made, keyword, canary(vr))
        decoded = "SpecificCharacterSet NumberOfFrames RescaleSlope RescaleIntercept WindowCenter WindowWidth"
        for keyword in [*decoded.split(), "VOILUTFunction", "BurnedInAnnotation"]:
            if keyword in made and keyword not in tags:
                del made[keyword]
        inner = Dataset()
        inner.PatientName = CANARY
        made.ReferencedPatientSequence = Sequence([inner])
        made.private_block(0x4321, CANARY, create=True).add_new(1, "LO", CANARY)
    return made


@cache
def example() -> bytes:
    """A file with the canary, as it lies on disk."""
    content = BytesIO()
    with pydicom.config.disable_value_validation():
        marked(pixels(4, 4)).save_as(content, enforce_file_format=True)
    return content.getvalue()


def write(path: Path, made: Dataset) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with pydicom.config.disable_value_validation():
        made.preamble = (CANARY * 16).encode()
        made.file_meta.SourceApplicationEntityTitle = CANARY
        made.save_as(path, enforce_file_format=True)


def spill(made: Dataset, **values: Any) -> Dataset:
    with pydicom.config.disable_value_validation():
        for name, value in values.items():
            setattr(made, name, value)
    return made


PLACE = b"86420975"  # as long as the canary, and allowed as a number: pydicom writes no others
FAULTS: dict[str, Callable[[Dataset], object]] = {
    "kind": lambda made: spill(made, PhotometricInterpretation=CANARY),
    "window": lambda made: spill(made, WindowCenter=PLACE.decode(), WindowWidth=PLACE.decode()),
    "function": lambda made: spill(made, WindowCenter=1, WindowWidth=5, VOILUTFunction=CANARY),
    "slope": lambda made: spill(made, RescaleSlope=PLACE.decode(), RescaleIntercept=PLACE.decode()),
    "frames": lambda made: spill(made, NumberOfFrames=PLACE.decode()),
    "characters": lambda made: spill(made, SpecificCharacterSet="ISO_IR 6", NumberOfFrames=PLACE.decode()),
    "burned-in": lambda made: spill(made, BurnedInAnnotation="YES"),
    "pixels": lambda made: spill(made, PixelData=CANARY.encode()),
    "none": lambda made: made.__delitem__("PixelData"),
    "syntax": lambda made: None,
    "size": lambda made: spill(made, Rows=7),
}


@pytest.fixture
def said(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Callable[[], bytes]:
    """All that was printed and logged, by Python and below it."""
    caplog.set_level(logging.DEBUG)

    def read() -> bytes:
        out, err = capfd.readouterr()
        lines = "\n".join(f"{record.getMessage()} {record.exc_text} {record.args}" for record in caplog.records)
        return f"{out}{err}{lines}{caplog.text}".encode()

    return read


def check_silent(content: bytes, where: str) -> None:
    for secret in (CANARY.encode(), DIGITS.encode()):
        assert secret not in content, where
        assert secret.lower() not in content.lower(), where


def test_the_canary_is_in_the_files(tmp_path: Path) -> None:
    """The searches below would find it."""
    write(tmp_path / "a", marked(pixels(4, 4)))
    content = (tmp_path / "a").read_bytes()
    assert content.count(CANARY.encode()) > 500
    assert content.count(DIGITS.encode()) > 100


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("strict", [False, True])
def test_no_error_tells(
    tmp_path: Path, fault: str, strict: bool, said: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch,
    recwarn: pytest.WarningsRecorder,
) -> None:  # fmt: skip
    monkeypatch.setattr(pydicom.config, "enforce_valid_values", strict)
    made = pydicom.dcmread(BytesIO(example()))
    write(tmp_path / "a.dcm", made)
    FAULTS[fault](made)
    write(tmp_path / "b.dcm", made)
    content = (tmp_path / "b.dcm").read_bytes().replace(PLACE, CANARY.encode()).replace(b"ISO_IR 6", CANARY.encode())
    if fault == "syntax":
        content = content.replace(ExplicitVRLittleEndian.encode(), f"1.2.{DIGITS}.1.2.34"[:19].encode())
    (tmp_path / "b.dcm").write_bytes(content)
    monkeypatch.setattr(logging.root.manager, "disable", 0)
    text = error(lambda: Dicom(path=tmp_path).images)
    assert text.startswith("b.dcm ")
    check_silent(text.encode(), fault)
    check_silent(said(), fault)
    assert len(recwarn) == 0
    assert logging.root.manager.disable == 0


def test_a_damaged_frame_does_not_tell(tmp_path: Path, said: Callable[[], bytes]) -> None:
    made = marked(pixels(4, 4), TransferSyntaxUID=JPEGBaseline8Bit, PixelData=encapsulate([CANARY.encode()]))
    made["PixelData"].is_undefined_length = True
    write(tmp_path / "a", made)
    check_silent(error(lambda: Dicom(path=tmp_path).images).encode(), "error")
    check_silent(said(), "log")


def test_nothing_on_disk_tells(tmp_path: Path, cache: Path, said: Callable[[], bytes]) -> None:
    """A run of two steps, its evaluation and the cache; the files themselves lie in a folder without a name."""
    folder, out = tmp_path / "scans", tmp_path / "run"
    for i in range(8):
        made = marked(pixels(16, 16, seed=i))
        made.PatientID, made.StudyInstanceUID = f"{CANARY}{i // 2}", f"1.2.{DIGITS}.{i // 2}"
        write(folder / "ab"[i % 2] / f"{i}.dcm", made)
    (folder / "program.exe").write_bytes(CANARY.encode())
    experiment = gankit.load(
        "wgan-gp", "data.name=dicom", f"data.path={folder}", "data.in_memory=false", "data.held_out=0.25",
        "data.conditional=true", *SMALL, "training.batch=4", "training.tick_every=1", "training.sample_every=1",
        "training.checkpoint_every=1", "evaluation.every=1",
    )  # fmt: skip
    run = gankit.train(experiment, out)
    values = gankit.evaluate(run, Dicom(path=folder), metrics=["frechet"], features="pixels", count=8)
    check_silent(str(values).encode(), "metrics")
    check_silent(said(), "log")
    files = [file for place in (out, cache) for file in place.rglob("*")]
    assert any(file.suffix == ".npy" and file.name.startswith("dicom-") for file in files)
    assert out / "experiment.toml" in files
    for file in files:
        check_silent(str(file.relative_to(tmp_path.parent)).encode(), "name of a file")
        if file.is_file():
            check_silent(file.read_bytes(), file.name)


def test_a_header_in_memory_is_not_printed(tmp_path: Path) -> None:
    write(tmp_path / "a", marked(pixels(4, 4)))
    data = Dicom(path=tmp_path)
    assert data.image
    check_silent(repr(vars(data)).encode(), "repr")
