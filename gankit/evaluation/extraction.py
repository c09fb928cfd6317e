"""The one pass that turns images into features, with a cache by content that also resumes a pass that was stopped."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from gankit import distributed
from gankit.cache import stored
from gankit.errors import DataError, PartError
from gankit.evaluation.sources import ImageSet
from gankit.interfaces import Features, ImageSpec, Indices, Rows
from gankit.registry import Part, valid_part
from gankit.runs.run import choose_device

BATCH = 64
"""Images that a network sees at a time; fixed, since its rounding errors may depend on it."""
CHUNK = 1024
"""Images of one file of the cache: a pass that is stopped loses no more than these."""
FORMAT = 1
"""Counts changes of what the pass gives, so that cached features of older versions are not read."""


def part(kind: str, value: str | dict[str, Any] | Part) -> Part:
    """A validated part from its name or a table with a name.

    Raises:
        PartError: an unknown name, or settings that are not valid.
    """
    if isinstance(value, Part):
        return value
    if not isinstance(value, (str, dict)):
        raise PartError(f"{kind}: a name, or a table with a name, is needed, not {value!r}")
    table = {"name": value} if isinstance(value, str) else dict(value)
    if not isinstance(table.get("name"), str):
        raise PartError(f"{kind}: the table needs a name: which {kind}?")
    return valid_part(kind, table.pop("name"), table)


def extractor(
    features: str | dict[str, Any] | Part | Features, shape: tuple[int, int, int], device: str = "auto"
) -> tuple[str, Features]:
    """Name and network of features for images of this shape, ready for use on a device, "auto" a GPU if there is one.

    Raises:
        PartError: it is unknown, or cannot be built.
    """
    if isinstance(features, Features):
        name, network = type(features).__name__, features
    else:
        chosen = part("features", features)
        name, network = chosen.name, chosen.build(ImageSpec(*shape))
    return name, network.to(choose_device(device)).eval()


def rows(
    images: ImageSet,
    network: Features,
    needs: set[str],
    *,
    quiet: bool = False,
    cached: bool = True,
    shared: bool = False,
) -> Rows:
    """What metrics need of some images.

    Args:
        images: of which.
        network: makes the features.
        needs: fields of `Batch`; what is not known of the images is left out.
        quiet: no progress bar.
        cached: whether features are looked up and kept on disk.
        shared: whether the processes of torchrun share the work; all must ask, and all get everything.

    Raises:
        DataError: images differ in shape, or features are not finite.
        PartError: the features refuse the images, or have no class logits.
    """
    fields: dict[str, NDArray[Any]] = {"ids": np.arange(images.count)}
    if needs & {"features", "logits"}:
        fields["features"] = features(images, network, quiet=quiet, cached=cached, shared=shared)
    if "logits" in needs:
        fields["logits"] = _logits(fields["features"], network)
    if "images" in needs:
        fields["images"] = images.read(np.arange(images.count))
    for name, known in (("labels", images.labels), ("groups", images.groups)):
        if known is not None:
            fields[name] = np.asarray(known)
    return Rows(fields, images.count, images.value_range, images.class_names)


def features(
    images: ImageSet, network: Features, *, quiet: bool = False, cached: bool = True, shared: bool = False
) -> NDArray[np.float32]:
    """(n, dim) float32 features, of what is cached and of what is not; arguments as for `rows`.

    Raises:
        DataError: images differ in shape, or features are not finite.
        PartError: the features refuse the images.
    """
    chunks = [np.arange(start, min(start + CHUNK, images.count)) for start in range(0, images.count, CHUNK)]
    protocol = network.protocol
    made: list[NDArray[np.float32]] = []
    with tqdm(total=images.count, unit="image", desc=f"features of {images.name}", delay=1, disable=quiet) as bar:
        # Only weights that are known by their hash make features that can be known again.
        device = _device(network).type  # whose rounding errors differ
        content = images.digest() if cached and "weights_sha256" in protocol else None
        mine = chunks[distributed.rank() :: distributed.size()] if shared else chunks
        for chunk in mine:
            if content is None:
                made.append(_pass(images, chunk, network, bar.update))
                continue
            text = json.dumps([FORMAT, content, protocol, device, chunk[0].item(), images.value_range])
            key = hashlib.blake2b(text.encode(), digest_size=20).hexdigest()
            make = functools.partial(_pass, images, chunk, network, bar.update)
            made.append(stored(key, make, "features"))
            bar.update(int(chunk[-1]) + 1 - bar.n)  # all of them, where they were cached
    if shared and distributed.size() > 1:
        parts = distributed.gather(made)
        made = [parts[number % len(parts)][number // len(parts)] for number in range(len(chunks))]
    return np.concatenate(made) if made else np.empty((0, network.dim), np.float32)


def _pass(images: ImageSet, indices: Indices, network: Features, progress: Callable[[int], Any]) -> NDArray[np.float32]:
    device = _device(network)
    made = []
    with torch.no_grad():
        for batch in _read_ahead(images, indices):
            values = network(batch.to(device))
            if values.shape != (len(batch), network.dim):
                raise PartError(
                    f"features {type(network).__name__} gave {tuple(values.shape)} for {len(batch)} images; "
                    f"({len(batch)}, {network.dim}) is needed"
                )
            made.append(values.float().cpu().numpy())
            progress(len(batch))
    rows = np.concatenate(made)
    if not np.isfinite(rows).all():
        wrong = indices[~np.isfinite(rows).all(1)]
        raise DataError(f"{images.name}: features of image {wrong[0]} are not finite; look for broken images")
    return rows


def _read_ahead(images: ImageSet, indices: Indices) -> Iterator[Tensor]:
    """Batches as (k, c, h, w) float32 in [0, 255]; the next one is decoded while one is used."""

    def read(start: int) -> Tensor:
        raw = images.read(indices[start : start + BATCH])
        if raw.shape[1:] != images.shape:
            raise DataError(f"{images.name}: images of {raw.shape[1:]} among images of {images.shape}: use one size")
        low, high = images.value_range
        scaled = (raw.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
        if not np.isfinite(scaled).all():
            raise DataError(f"{images.name}: there are pixels that are NaN or infinite")
        return torch.from_numpy(scaled)

    starts = range(0, len(indices), BATCH)
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(read, 0)
        for start in starts:
            batch = following.result()
            if start + BATCH < len(indices):
                following = pool.submit(read, start + BATCH)
            yield batch


def _logits(features: NDArray[np.float32], network: Features) -> NDArray[np.float32]:
    device = _device(network)
    with torch.no_grad():
        made = [
            network.logits(torch.tensor(features[start : start + CHUNK], device=device)).float().cpu().numpy()
            for start in range(0, len(features), CHUNK)
        ]
    return np.concatenate(made)


def _device(network: Features) -> torch.device:
    """Where the network's tensors are; the CPU where it has none."""
    tensors = [*network.parameters(), *network.buffers()]
    return tensors[0].device if tensors else torch.device("cpu")
