"""Damaged and hostile files of images: pictures, npz, CSV, statistics and DICOM files, read under limits.

It makes 6,000 pictures and 500 of each other kind, each a function of a seed and its number, opens each as a user
would, and counts how it ended. It goes on where it was stopped.

Outcomes: "read" (images or statistics whose values are finite), "refused" (one line), and what must not be:
"traceback", "lines" (a refusal of several lines), "slow" (over 5 s), "memory" (over 1 GB), "killed" (a signal).
"""

from __future__ import annotations

import io
import json
import os
import random
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "plugins" / "gankit-dicom"))
from pictures import tiff

SEED = 0
RESULTS = Path(__file__).parent / "results"
COUNTS = {"picture": 6000, "npz": 500, "csv": 500, "statistics": 500, "dicom": 500}
GOOD = ("read", "refused")
SECONDS, BYTES, SHARE = 5, 2**30, 250  # limits of each file, and files that share a process
MODES = ["1", "L", "P", "RGB", "RGBA", "CMYK", "I;16", "LA", "F"]
SUFFIXES = {"npz": ".npz", "csv": ".csv", "statistics": ".npz", "dicom": ".dcm"}
Maker = Callable[[random.Random], bytes]


def grey(draw: random.Random, *shape: int) -> Any:
    """Numbers of 8 bits."""
    return np.random.default_rng(draw.randrange(2**32)).integers(0, 256, shape, dtype=np.uint8)


def saved(draw: random.Random) -> bytes:
    """A picture as Pillow writes it, in any of its formats and modes, also those that gankit does not read."""
    form = draw.choice(["PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF", "PPM", "EPS", "ICO", "TGA", "JPEG2000", "PCX"])
    mode = draw.choice(MODES)
    picture = Image.fromarray(grey(draw, draw.randrange(1, 40), draw.randrange(1, 40), 3))
    options: dict[str, Any] = {}
    if form == "TIFF":
        options["compression"] = draw.choice([None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group4"])
    if form in ("JPEG", "PNG", "WEBP", "TIFF") and draw.random() < 0.5:
        options["exif"] = exif = Image.Exif()
        exif[274] = draw.choice([1, 3, 5, 6, 8, 9, 0])
    # What libtiff cannot write; it says so, but the Pillow 12.3 that is installed as a wheel crashes
    refused = {"jpeg": {"1", "P", "I;16", "F"}, "group4": {*MODES} - {"1"}}
    for attempt in (mode, "RGB", "L"):
        if attempt in refused.get(options.get("compression"), ()):
            options = {}
            continue
        content = io.BytesIO()
        try:
            (picture.convert("L").convert(attempt) if attempt in ("I;16", "LA") else picture.convert(attempt)).save(
                content, form, **options
            )
            return content.getvalue()
        except (OSError, ValueError, KeyError, RuntimeError):
            options = {}
    return b""


def written(draw: random.Random) -> bytes:
    """A TIFF of any depth, order and layout, with tags at random."""
    bits, photometric = draw.choice([1, 2, 4, 8, 8, 12, 16, 32]), draw.choice([0, 1, 2, 3, 5, 6, 8])
    channels = {2: 3, 5: 4, 6: 3, 8: 3}.get(photometric, 1) + draw.choice([0, 0, 0, 1, 2])
    stored = grey(draw, 9, 11, channels).astype(np.int64) * draw.choice([1, 257]) % 2**bits
    tags = {
        draw.choice([254, 256, 257, 258, 262, 266, 273, 274, 277, 278, 279, 284, 317, 320, 338, 339, 530, 532]): (
            draw.choice([1, 3, 4]), [draw.choice([0, 1, 2, 3, 5, 6, 8, 255]) for _ in range(draw.choice([1, 2, 4]))])
        for _ in range(draw.choice([0, 1, 1, 2, 4]))
    }  # fmt: skip
    if photometric == 3 and 320 not in tags:
        tags[320] = (3, [draw.randrange(65536) for _ in range(3 * 2 ** min(bits, 8))])
    layout = draw.choice([{}, {"rows": 4}, {"tile": 16}])
    planes, order, big = draw.choice([1, 1, 2]), draw.choice("<>"), draw.random() < 0.2
    return tiff(stored, bits, photometric, planes=planes, order=order, big=big, tags=tags, **layout)


def bomb(draw: random.Random) -> bytes:
    """A small PNG of many pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    side, kind = draw.choice([2000, 20000, 60000, 2**31 - 1]), draw.choice([0, 2, 3])
    rows = zlib.compress(bytes(min(side, 4000) * 2000))
    header = struct.pack(">IIBBBBB", side, side, 8, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def arrays(draw: random.Random) -> bytes:
    """An npz or npy file of images with further arrays, some of them strange."""
    n = draw.randrange(1, 7)
    shape = (n, *draw.choice([(5, 6), (5, 6, 3), (3, 5, 6), (5, 6), (5, 6, 3), (5, 6, 4), (4, 4, 4, 3), (), (0, 5)]))
    kind = draw.choice(["u1", "u1", "u1", "u1", "u1", "u1", ">u2", "f4", "i8", "?", "c8", "U3", "O", "V5"])
    images: Any = grey(draw, *shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        images = np.zeros(shape, kind) if kind in ("O", "V5", "U3") else images.astype(kind)
    content = io.BytesIO()
    name = draw.choice(["images", "images", "images", "arr_0", "train_images", "x"])
    if draw.random() < 0.1:
        np.save(content, images)
        return content.getvalue()
    more: list[Any] = [
        np.arange(n) * draw.choice([1, 3]), np.full(n, 1e308), np.full(n, np.nan), grey(draw, n, 4), np.arange(n + 1),
        np.array(draw.choice([2**63, -1, 0]), dtype=object), np.full(n, 2**64 - 1, np.uint64), np.array(["a"] * n),
    ]  # fmt: skip
    keys = ["labels", "groups", "agreement", "class_names", "test_images", "severity", "mu", "sigma"]
    extra = {draw.choice(keys): draw.choice(more) for _ in range(draw.choice([0, 1, 1, 3]))}
    draw.choice([np.savez, np.savez_compressed])(content, **{**extra, name: images})
    return content.getvalue()


def header_only(draw: random.Random) -> bytes:
    """An npz file whose header, or whose zeros, are of gigabytes and more, or whose members are packed oddly."""
    shape = draw.choice(["(10**9, 28, 28)", "(1000000000000, 28, 28)", "(-3, 28, 28)", "(9" + "9" * 300 + ", 8, 8)",
                         "(2, 28, 28)", "(" * 200, "(4294967296, 4294967296, 3)"])  # fmt: skip
    text = f"{{'descr': {draw.choice(['|u1', '<f8', '|V99999999', '|O'])!r}, 'fortran_order': False, 'shape': {shape}}}"
    head = text.encode().ljust(400) + b"\n"
    member = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + bytes(draw.choice([0, 1568, 10**7]))
    content = io.BytesIO()
    method = draw.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    with zipfile.ZipFile(content, "w", method) as archive:
        archive.writestr("images.npy", member)
    made = bytearray(content.getvalue())
    if draw.random() < 0.5:  # encrypted, or packed in a way that nobody knows
        directory = made.index(b"PK\1\2")
        offset, value = draw.choice([(8, 1), (10, 97), (24, 255)])
        made[directory + offset] |= value
        made[offset - 2] |= value if offset < 24 else 0
    return bytes(made)


def moments(draw: random.Random) -> bytes:
    """A statistics file of pixels features, some of whose numbers are strange."""
    choose: Callable[[list[Any]], Any] = draw.choice if draw.random() < 0.7 else lambda values: values[0]
    d = choose([64, 64, 192, 3, 0])
    mu, sigma = np.zeros(d), np.diag(np.full(d, choose([1.0, 1.0, 0.0, 1e308, -1.0, np.nan, np.inf])))
    sigma[:1] += choose([0.0, 0.0, 5.0])
    n = choose([10, 10, 10, 2, 1, -5, 2**63 - 1, 1e308, np.nan, [3, 4], "ten"])
    protocols = ["{}", "{}", "{", "[]", "3", '{"features_protocol": 3}', "[" * 5000, '{"n": 1' + "0" * 5000 + "}"]
    protocol = choose([*protocols, '{"features": "pixels"}'])
    made = {"mu": mu, "sigma": sigma, "n": np.array(n), "protocol": np.array(protocol)}
    for key in draw.sample(sorted(made), draw.choice([0, 0, 1])):
        del made[key]
    content = io.BytesIO()
    np.savez(content, **made)
    return content.getvalue()


def table(draw: random.Random) -> bytes:
    """A labels.csv of the pictures 0.png to 3.png with further columns, some of them strange."""
    cells = ["a", "b", "", "1", "01", "1e308", "-1e308", "nan", "inf", "4,5", '"x', '"a;b"', "=1+1", "\0", "\u200b",
             "9" * 5000, "e\u0301", "\u00e9", "../0.png", "train", "0.5", "1;2", "a|b"]  # fmt: skip
    titles = ["label", "group", "agreement", "vote_1", "vote_2", "votes", "split", "age", "label", "\ufefflabel"]
    chosen, separator = draw.sample(titles, draw.choice([0, 1, 1, 2])), draw.choice(",;\t")
    lines = ["sep=" + separator] * (draw.random() < 0.2) + [separator.join(["file", *chosen])]
    lines += [
        separator.join([f"{i}.png", *draw.choices(cells, k=len(chosen))]) for i in range(draw.choice([4, 4, 3, 5]))
    ]
    return draw.choice(["\n", "\r\n", "\r"]).join(lines).encode(draw.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16"]))


def scan(draw: random.Random) -> bytes:
    """A DICOM file with elements at random."""
    from pydicom import uid
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.sequence import Sequence

    made, deep = Dataset(), draw.random() < 0.5
    made.file_meta = FileMetaDataset()
    syntaxes = [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian,
                uid.ExplicitVRBigEndian]  # fmt: skip
    made.file_meta.TransferSyntaxUID = draw.choice(syntaxes)
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = uid.CTImageStorage
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = uid.generate_uid(
        entropy_srcs=[str(draw.random())]
    )
    made.PhotometricInterpretation, made.SamplesPerPixel = (
        draw.choice(["MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"]),
        1,
    )
    made.Rows = made.Columns = 8
    made.BitsAllocated = 16 if deep else 8
    made.BitsStored = draw.choice([8, 12, 16, 1]) if deep else 8
    made.HighBit, made.PixelRepresentation = made.BitsStored - 1, draw.choice([0, 1])
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [draw.choice([0, 4, 256]), draw.choice([0, 64512]), draw.choice([8, 16, 0])])
    item.add_new("LUTData", "OW", bytes(draw.choice([0, 8, 512])))
    extra: dict[str, Any] = {
        "RescaleSlope": draw.choice(["1", "0", "1e300", "-2.5"]), "RescaleIntercept": draw.choice(["-1024", "1e308"]),
        "WindowCenter": draw.choice(["40", ["1", "2"], "1e308"]), "WindowWidth": draw.choice(["400", "0", "1e-300"]),
        "VOILUTFunction": draw.choice(["SIGMOID", "CUBIC"]), "NumberOfFrames": draw.choice(["1", "2", "2000000000"]),
        "VOILUTSequence": Sequence([item]), "ModalityLUTSequence": Sequence([item]), "Rows": 65535,
        "RedPaletteColorLookupTableDescriptor": [256, 0, 16],
    }  # fmt: skip
    for name in draw.sample(sorted(extra), draw.randrange(4)):
        setattr(made, name, extra[name])
    made.add_new("PixelData", "OW", grey(draw, 8, 16 if deep else 8).tobytes())
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made.save_as(content, enforce_file_format=True)
    return content.getvalue()


MAKERS: dict[str, list[Maker]] = {
    "picture": [*[saved] * 4, *[written] * 5, bomb], "npz": [arrays, arrays, arrays, header_only],
    "statistics": [moments, moments, header_only], "csv": [table], "dicom": [scan],
}  # fmt: skip


def damaged(content: bytes, draw: random.Random) -> bytes:
    """The bytes with a few changed, cut off, repeated or put in."""
    made = bytearray(content)
    for _ in range(draw.choice([0, 0, 0, 1, 1, 3, 20])):
        at = draw.randrange(len(made) + 1)
        how = draw.choice([0, 0, 0, 0, 1, 1, 2, 3, 4])
        if how == 0:
            made[at : at + 1] = bytes([draw.randrange(256)])
        elif how == 1:
            made[at : at + 4] = draw.choice(
                [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"]
            )
        elif how == 2:
            del made[at:]
        elif how == 3:
            made[at:at] = made[at : at + draw.randrange(64)]
        else:
            del made[at : at + draw.randrange(16)]
    return bytes(made)


def make(kind: str, number: int, folder: Path) -> Path:
    """A file of a kind as a function of its number; a CSV file lies beside four pictures."""
    draw = random.Random(f"{SEED} {kind} {number}")
    content = damaged(draw.choice(MAKERS[kind])(draw), draw)
    if kind == "csv":
        for i in range(4):
            Image.new("L", (4, 4), i).save(folder / f"{i}.png")
        path = folder / "labels.csv"
    elif kind == "picture":
        path = folder / f"a.{draw.choice(['png', 'jpg', 'tif', 'bmp', 'webp'])}"
    else:
        path = folder / f"a{SUFFIXES[kind]}"
    path.write_bytes(content)
    return path


def read(kind: str, path: Path) -> None:
    """Use a file as `gankit check` and `gankit evaluate` do."""
    import gankit
    from gankit.evaluation.sources import open_source
    from gankit.training.data import prepare

    if kind == "statistics":
        images = np.arange(256, dtype=np.uint8).reshape(4, 1, 8, 8)
        gankit.evaluate(images, str(path), ["frechet"], "pixels")
        return
    folder = {"csv": path.parent, "picture": path.parent, "dicom": path.parent}.get(kind, path)
    if kind == "npz":
        dataset: Any = gankit.build("dataset", "npz", path=str(folder))
        open_source(folder)
    else:
        dataset = gankit.build("dataset", "dicom" if kind == "dicom" else "folder", path=str(folder))
    assert dataset.image.shape == dataset.images.shape[1:]
    assert np.isfinite(dataset.images).all()
    known = dataset.known
    for name, values in known.facts.items():
        assert len(values) == len(dataset), name
    conditions = [name for name, values in known.facts.items() if values.ndim == 1 and values.dtype.kind == "f"]
    table = {"name": "folder", "path": str(folder), "conditional": conditions or False}
    if kind == "csv":
        data = prepare(
            gankit.load("wgan-gp", *(f"data.{key}={json.dumps(value)}" for key, value in table.items())).data, 0
        )
        assert data.labels is None or bool(data.labels.isfinite().all())


def outcome(kind: str, number: int) -> str:
    """How a file ends, in this process."""
    from gankit.errors import GankitError

    with tempfile.TemporaryDirectory() as folder:
        path = make(kind, number, Path(folder))
        start = time.process_time()  # a file that waits ends its process
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow warns of damage that it can mend
                read(kind, path)
            ended = "read"
        except GankitError as error:
            ended = "refused" if "\n" not in str(error) else "lines"
        except Exception as error:
            ended = f"traceback of {type(error).__name__}"
        return ended if time.process_time() - start < SECONDS else "slow"


def work(kind: str, numbers: list[int]) -> None:
    """Print the outcome of each file; the limit on memory counts above what the libraries take."""
    import gankit_dicom

    import gankit
    import gankit.training.data

    gankit.datasets.register("dicom")(gankit_dicom.Dicom)
    with open("/proc/self/statm") as file:
        before = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (before + BYTES, before + BYTES))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in numbers:
        ended = outcome(kind, number)
        now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps([number, "memory" if (now - peak) * 1024 > BYTES else ended]), flush=True)


def count(kind: str, numbers: list[int]) -> dict[str, list[int]]:
    """The numbers of the files of each outcome; a process that is killed costs the file that it was at."""
    ended: dict[str, list[int]] = {}
    while numbers:
        command = [sys.executable, __file__, "--work", kind, *map(str, numbers[:SHARE])]
        limit = 60 + SECONDS * len(numbers[:SHARE])
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            lines, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            process.kill()
            lines, _ = process.communicate()
        done = [json.loads(line) for line in lines.splitlines()]
        for number, outcome in done:
            ended.setdefault(outcome, []).append(number)
        if len(done) < len(numbers[:SHARE]):
            cause = "slow" if process.returncode == -signal.SIGKILL else "killed"
            ended.setdefault(cause, []).append(numbers[len(done)])
            done.append([])
        numbers = numbers[len(done) :]
    return ended


def main(out: Path) -> None:
    """Count all kinds into a JSON file, from where it stands."""
    counted: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {"seed": SEED}
    for kind, total in COUNTS.items():
        entry = counted.setdefault(kind, {"done": 0, "outcomes": {}, "to look at": {}})
        while entry["done"] < total:
            numbers = list(range(entry["done"], min(total, entry["done"] + SHARE)))
            outcomes = Counter(entry["outcomes"])
            for name, which in count(kind, numbers).items():
                outcomes[name] += len(which)
                if name not in GOOD:
                    entry["to look at"].setdefault(name, []).extend(which)
            entry |= {"done": numbers[-1] + 1, "outcomes": dict(outcomes)}
            counted[kind] = entry
            out.with_suffix(".tmp").write_text(json.dumps(counted, indent=1))
            out.with_suffix(".tmp").replace(out)
    print(json.dumps({kind: counted[kind]["outcomes"] for kind in COUNTS}, indent=1))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2], [int(number) for number in sys.argv[3:]])
    else:
        main(RESULTS / "image_files.json")
