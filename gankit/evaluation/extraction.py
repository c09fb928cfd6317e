"""Features of images, cached on disk under a hash of the images, so that an interrupted pass can resume."""

import contextlib
import functools
import hashlib
import json
import tempfile
from collections.abc import Collection, Generator, Iterable
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gankit import distributed, seeds
from gankit.cache import stored
from gankit.errors import DataError, PartError
from gankit.experiments.experiment import default_features
from gankit.images.grey_levels import rescale
from gankit.interfaces import Dataset, Features, ImageSpec, Indices, Rows
from gankit.nn.modes import exact
from gankit.nn.threads import ThreadChoice, own_threads, thread_options, torch_threads
from gankit.registry import Part, valid_part
from gankit.registry.parts import name_and_settings
from gankit.registry.trust import trust
from gankit.runs.networks import call_part
from gankit.runs.run import choose_device
from gankit.terminal.text import harmless, progress_bar, say

BATCH = 64
"""Number of images that a network sees at a time; fixed, since its rounding errors may depend on it."""
CHUNK = 256
"""Number of images per file of the cache: a pass that is stopped loses the features of no more than these."""
FORMAT = 1
"""Version of the features: raise it when their values change, so that older cached features are not read."""
MEMORY_MAP_ABOVE_BYTES = 2**28
"""Larger arrays of features are on disk and memory-mapped, not in memory."""


def as_part(kind: str, value: str | dict[str, Any] | Part) -> Part:
    """A part with validated settings, from its name, or from a table with its name and settings.

    Raises:
        PartError: an unknown name, or settings that are not valid.
    """
    if isinstance(value, Part):
        return value
    try:
        name, settings = name_and_settings(kind, value)
    except PartError as error:
        raise PartError(f"{kind}: {error}") from None
    trust(settings)
    return valid_part(kind, name, settings)


def extractor(
    features: str | dict[str, Any] | Part | Features | None, shape: tuple[int, int, int], device: str = "auto"
) -> tuple[str, Features]:
    """The name and the network of the chosen features, or of the default ones, ready for use.

    `shape` is (channels, height, width) of the images, `device` as `training.device`. Raises PartError for features
    that are unknown or cannot be built.
    """
    if isinstance(features, Features):
        name, network = type(features).__name__, features
    else:
        chosen = as_part("features", default_features() if features is None else features)
        name, network = chosen.name, chosen.build(ImageSpec(*shape))
    return name, network.to(choose_device(device)).eval()


def features_protocol(name: str, network: Features) -> dict[str, Any]:
    """What a metrics file says of its features."""
    return {"features": name, "features_dim": network.dim, "features_protocol": network.protocol}


def seconds_per_image(network: Features, shape: tuple[int, int, int]) -> float:
    """The seconds that features take for an image of (channels, height, width), by a batch of grey images."""
    batch = torch.full((BATCH, *shape), 127.5, device=device_of(network))
    call_part("features", network, batch[:1])  # the first call prepares the network
    start = perf_counter()
    call_part("features", network, batch).cpu()
    return (perf_counter() - start) / BATCH


def rows(
    images: Dataset,
    network: Features,
    needs: Collection[str],
    *,
    name: str = "images",
    content: str | None = None,
    quiet: bool = False,
    shared: bool = False,
) -> Rows:
    """What metrics need of some images.

    Args:
        images: the images.
        network: makes the features.
        needs: which arrays of `Rows` to fill; one that the images do not have stays None.
        name: what to call the images in messages.
        content: the images' digest, under which their features are kept on disk; None computes them anew.
        quiet: no progress bar.
        shared: whether the processes of torchrun share the work; all must call this, and each returns all rows.

    Raises:
        DataError: images differ in shape, or features are not finite.
        PartError: the network rejects the images, or has no class logits.
    """
    vectors = logits = None
    if {"features", "logits"} & set(needs):
        vectors = features(images, network, name=name, content=content, quiet=quiet, shared=shared)
        logits = _logits(vectors, network) if "logits" in needs else None
    everything = np.arange(len(images))
    return Rows(
        features=vectors, logits=logits, images=images.read(everything) if "images" in needs else None,
        labels=images.labels, groups=images.groups, ids=everything, class_names=images.class_names or None,
        value_range=images.value_range,
    )  # fmt: skip


def features(
    images: Dataset,
    network: Features,
    *,
    name: str = "images",
    content: str | None = None,
    quiet: bool = False,
    shared: bool = False,
) -> NDArray[np.float32]:
    """(n, dim) float32 features, read from the cache or computed; a large array is memory-mapped.

    Arguments are those of `rows`.

    Raises:
        DataError: images differ in shape, or features are not finite.
        PartError: the network rejects the images.
    """
    chunks = [np.arange(start, min(start + CHUNK, len(images))) for start in range(0, len(images), CHUNK)]
    title = f"features of {harmless(name)}"
    is_alone = not shared or distributed.size() == 1
    with progress_bar(total=len(images), unit="image", desc=title, delay=1, disable=quiet) as bar:
        extraction = _Pass(images, network, name, content, bar)
        try:
            with torch_threads(extraction.thread_choice.threads):
                if is_alone:
                    return _join(map(extraction.chunk, chunks), len(images), network.dim)
                own = chunks[distributed.rank() :: distributed.size()]
                by_process = distributed.gather([extraction.chunk(chunk) for chunk in own])
        except KeyboardInterrupt as interrupt:
            if extraction.content is not None and not quiet:
                bar.close()
                # Each of n processes has every n-th chunk, so there is no single image from which they go on.
                kept = f"goes on from image {start:,}" if (start := bar.n - bar.n % CHUNK) else "starts over"
                text = f"{title}: interrupted; the same command {kept if is_alone else 'goes on'}"
                say(text, error=True)
                interrupt.args = (text,)
            raise  # with its own type: where a training is being stopped, only its evaluation ends by it
    # Chunk i was the turn of process i % n.
    in_order = (by_process[i % len(by_process)][i // len(by_process)] for i in range(len(chunks)))
    return _join(in_order, len(images), network.dim)


class _Pass:
    """One pass of a network over images, in chunks that are kept on disk where that is possible."""

    def __init__(self, images: Dataset, network: Features, name: str, content: str | None, bar: Any) -> None:
        self.images, self.network, self.name, self.bar = images, network, name, bar
        self.device = device_of(network)
        # How many threads torch uses, chosen by how long batches take.
        self.thread_choice = ThreadChoice(thread_options() if self.device.type == "cpu" else [own_threads()])
        # The images' digest. Without a hash of the weights nothing tells whether features on disk are of this network.
        self.content = content if "weights_sha256" in network.protocol else None

    def chunk(self, indices: Indices) -> NDArray[np.float32]:
        """The features of the images at consecutive indices, from the disk or computed."""
        if self.content is None:
            return self._compute(indices)
        first, last = indices[[0, -1]].tolist()
        # CPU and GPU round differently, and so does TF32, which `exact` turns off.
        device = "cuda without TF32" if self.device.type == "cuda" else self.device.type
        facts = [FORMAT, self.content, self.network.protocol, device, first, last, self.images.value_range]
        key = hashlib.blake2b(json.dumps(facts).encode(), digest_size=20).hexdigest()
        vectors = stored(key, functools.partial(self._compute, indices), "features")
        self.bar.update(last + 1 - self.bar.n)  # a chunk from the disk has not moved the bar
        return vectors

    def _compute(self, indices: Indices) -> NDArray[np.float32]:
        batches, who = [], f"features {type(self.network).__name__}"
        read_ahead = _read_ahead(self.images, indices, self.name, self.device)
        # Closed before `exact` ends: its thread may be generating images on this device.
        with exact(self.device), contextlib.closing(read_ahead):
            for batch in read_ahead:
                torch.set_num_threads(self.thread_choice.threads)
                start = perf_counter()
                vectors = call_part(who, self.network, batch.to(self.device), alone=False)
                needed = (len(batch), self.network.dim)
                if vectors.shape != needed:
                    raise PartError(f"{who} gave {tuple(vectors.shape)} for {len(batch)} images; {needed} is needed")
                batches.append(vectors.float().cpu().numpy())
                self.thread_choice.note(perf_counter() - start)
                self.bar.update(len(batch))
        joined: NDArray[np.float32] = np.concatenate(batches)
        if not np.isfinite(joined).all():
            wrong = indices[~np.isfinite(joined).all(1)]
            raise DataError(f"{self.name}: features of image {wrong[0]} are not finite; look for broken images")
        return joined


def _join(chunks: Iterable[NDArray[np.float32]], count: int, dim: int) -> NDArray[np.float32]:
    """The features of all chunks as one array; a large one is mapped from a temporary file."""
    if count * dim * 4 <= MEMORY_MAP_ABOVE_BYTES:
        return np.concatenate([np.empty((0, dim), np.float32), *chunks])
    with tempfile.TemporaryFile() as file:
        for chunk in chunks:
            file.write(np.ascontiguousarray(chunk, np.float32).data)
        file.flush()
        return np.memmap(file, np.float32, "r", shape=(count, dim))


def _read_ahead(images: Dataset, indices: Indices, name: str, device: torch.device) -> Generator[Tensor]:
    """Batches as (k, c, h, w) float32 in [0, 255]; the next one is decoded while one is used."""

    def read(start: int) -> Tensor:
        raw = images.read(indices[start : start + BATCH])
        if raw.shape[1:] != images.image.shape:
            raise DataError(f"{name}: images of {raw.shape[1:]} among images of {images.image.shape}: use one size")
        scaled = rescale(raw.astype(np.float32), images.value_range, (0.0, 255.0))
        if not np.isfinite(scaled).all():
            raise DataError(f"{name}: there are pixels that are NaN or infinite")
        return torch.from_numpy(scaled)

    with contextlib.closing(seeds.Reader(device)) as reader:
        next_batch = reader.submit(read, 0)
        for start in range(0, len(indices), BATCH):
            batch = reader.result(next_batch)
            if start + BATCH < len(indices):
                next_batch = reader.submit(read, start + BATCH)
            yield batch


def _logits(features: NDArray[np.float32], network: Features) -> NDArray[np.float32]:
    device = device_of(network)
    with torch.no_grad(), exact(device):
        chunks = [
            network.logits(torch.tensor(features[start : start + CHUNK], device=device)).float().cpu().numpy()
            for start in range(0, max(len(features), 1), CHUNK)  # without images one empty chunk: (0, classes)
        ]
    return np.concatenate(chunks)


def device_of(network: Any) -> torch.device:
    """Where a module's tensors are; the CPU for a module without any, or for a function in its place."""
    tensors = [*network.parameters(), *network.buffers()] if isinstance(network, torch.nn.Module) else []
    return tensors[0].device if tensors else torch.device("cpu")
