"""What all suites share: building the part, tests of its settings and of its source."""

import contextlib
import inspect
import math
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import tomlkit
from pydantic import BaseModel, ValidationError
from torch import Tensor

from gankit import seeds
from gankit.errors import GankitError, PartError
from gankit.interfaces import ImageSpec
from gankit.nn.gradients import slope_error
from gankit.registry import Part, construct, registry
from gankit.registry.plugins import KINDS
from gankit.runs.networks import probe_labels
from gankit.training.rehearsal import read_back

SOURCE = re.compile(r"arXiv \d{4}\.\d{4,5}|doi\b|10\.\d{4,}/|\b[A-Z][\w-]+( (and|,) [A-Z][\w-]+| et al\.)*,? \(?\d{4}")
"""An arXiv number, a DOI, or authors with a year."""

IMAGES: dict[str, dict[str, Any]] = {
    "colour": {"channels": 3},
    "grey": {"channels": 1},
    "wide": {"width": 2},
    "tall": {"height": 2},
    "classes": {"classes": 3, "conditions": 0},
    "conditions": {"classes": 0, "conditions": 2},
}
"""Kinds of images that a part is tested with, as changes to the suite's image; height and width are factors."""

each_image = pytest.mark.parametrize("kind_of_image", IMAGES)


@contextlib.contextmanager
def isolated_registry() -> Iterator[None]:
    """Forget, at the end, the parts that are registered inside: for tests that register parts.

    @pytest.fixture(autouse=True)
    def _isolated():
        with gankit.testing.isolated_registry():
            yield
    """
    with contextlib.ExitStack() as stack:
        for kind in KINDS:
            stack.enter_context(registry(kind).isolated())
        yield


class Suite:
    """Tests for parts of every kind; the suite of a kind inherits them.

    Attributes:
        kind: the kind of part.
        part: the part's class, or the name of a registered part.
        settings: the part's settings in all tests but that of its defaults, for example a small width.
        image: a specification that the part must take; it may refuse others in one line, whose tests are then skipped.
        cites: whether the part must name its source.
    """

    kind: ClassVar[str]
    part: ClassVar[str | type]
    settings: ClassVar[Mapping[str, Any]] = {}
    image: ClassVar[ImageSpec] = ImageSpec(3, 32, 32)
    cites: ClassVar[bool] = True

    def write(self, folder: Path) -> Mapping[str, Any]:
        """Write the files that the part needs into an empty folder, and return the settings that name them, as text."""
        return {}

    @pytest.fixture(autouse=True)
    def _seeded(self, tmp_path: Path) -> Iterator[None]:
        # On a fork of torch's generator, so that the order of tests decides nothing.
        with seeds.own_draws([]), isolated_registry():
            seeds.manual_seed(0)
            self.files = dict(self.write(tmp_path))
            yield

    @property
    def settings_model(self) -> type[BaseModel]:
        """The model of the part's settings."""
        return registry(self.kind).settings(self.part)

    def build(self, image: ImageSpec | None = None, **settings: Any) -> Any:
        """The part with the suite's settings and these, for `image` or the suite's image.

        Raises:
            PartError: it refuses the image or the settings.
        """
        return self._construct(self.given(image), {**self.settings, **self.files, **settings})

    def _construct(self, given: Any, settings: Mapping[str, Any]) -> Any:
        return build_part(self.kind, self.part, given, settings, self.settings_model)

    def given(self, image: ImageSpec | None) -> Any:
        """The value for the constructor's positional parameter."""
        return image or self.image

    def like(self, kind_of_image: str) -> ImageSpec:
        """The suite's image, changed to be grey, wide, conditional or the like."""
        changes = dict(IMAGES[kind_of_image])
        for side in ("height", "width"):
            if side in changes:
                changes[side] *= getattr(self.image, side)
        return replace(self.image, **changes)

    def build_or_skip(self, image: ImageSpec) -> Any:
        """The part for an image that it may refuse; a refusal in one line skips the test."""
        try:
            return self.build(image)
        except PartError as error:
            assert_one_line(error)
            pytest.skip(f"refused: {error}")

    def test_builds_from_defaults(self) -> None:
        """It needs no setting but the files that `write` names."""
        assert isinstance(self._construct(self.given(None), self.files), registry(self.kind).interface())

    def test_settings_refuse_unknown_keys(self) -> None:
        """A misspelt key must not be ignored."""
        with pytest.raises(ValidationError, match="no_such_setting"):
            self.settings_model.model_validate({**self.settings, **self.files, "no_such_setting": 1})

    def test_settings_survive_an_experiment_file(self) -> None:
        """A run's experiment.toml builds the part that was trained."""
        validated = self.settings_model.model_validate({**self.settings, **self.files})
        table = Part(kind=self.kind, name="x", settings=validated).table()
        read = tomllib.loads(tomlkit.dumps(table))
        assert self.settings_model.model_validate({k: v for k, v in read.items() if k != "name"}) == validated

    def test_cites_its_source(self) -> None:
        """The docstring of the class or of its file names a paper: arXiv number, DOI, or authors and year."""
        if not self.cites:
            pytest.skip(f"a {self.kind} need not come from a paper")
        part = registry(self.kind).get(self.part)
        texts = [part.__doc__ or "", sys.modules[part.__module__].__doc__ or ""]
        assert any(SOURCE.search(inspect.cleandoc(text)) for text in texts), (
            f"{part.__name__} cites no source: name the paper in the first lines, as in 'Zhao et al. 2020, arXiv "
            f"2006.10738, section 3'; for a part without a paper, set cites = False in {type(self).__name__}"
        )


def build_part(
    kind: str, part: str | type, given: Any, settings: Mapping[str, Any], model: type[BaseModel] | None = None
) -> Any:
    """A part, by its name or its class, with settings that its own model or another validates.

    Raises:
        PartError: it refuses the settings or what it is given; or its constructor raised another error, the cause.
    """
    try:
        validated = (model or registry(kind).settings(part)).model_validate(settings)
    except ValidationError as error:
        reasons = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise PartError(f"{kind} {part}: {reasons}") from error
    return construct(kind, part, given, validated)


def labels_for(image: ImageSpec, n: int, like: Tensor | None = None) -> Tensor | None:
    """Any valid labels of n samples, or None; float conditions take the type of `like`."""
    labels = probe_labels(n, image)
    return labels.to(like.dtype) if labels is not None and like is not None and image.conditions else labels


def save_and_load(state: Mapping[str, Any]) -> Any:
    """A state that was saved to a checkpoint and loaded again."""
    try:
        return read_back(state)
    except Exception as error:
        pytest.fail(f"the state holds more than tensors, numbers and text, so no checkpoint can be read back: {error}")


def assert_is_gradient(gradient: Tensor, function: Callable[[Tensor], Tensor], at: Tensor, what: str) -> None:
    """Assert that a scalar function's gradient `at` float64 values is that of central differences; `what` names it."""
    error = slope_error(gradient, function, at)
    assert error < 1e-3, slope_fault(what, error)


def slope_fault(what: str, error: float) -> str:
    """What a `slope_error` says of a function's derivatives."""
    if math.isnan(error):
        return f"{what}: derivatives are not finite, or the function is not smooth in float64"
    return f"{what}: derivatives differ from finite differences by {error:.2%}"


def assert_one_line(error: GankitError) -> None:
    """Assert that an error takes one line."""
    assert "\n" not in str(error), f"an error takes one line: {error}"
