"""Suites for generators and critics."""

import copy
from typing import Any, ClassVar, cast

import pytest
import torch
from torch import Tensor, nn

from gankit import seeds
from gankit.interfaces import Critic, FeatureCritic, Generator, ImageSpec
from gankit.nn.gradients import penalty_error
from gankit.runs.networks import step_hooks
from gankit.testing._in_place import in_place_error
from gankit.testing._suite import assert_is_gradient, each_image, labels_for, save_and_load, slope_fault
from gankit.testing._trained import TrainedSuite

Inputs = tuple[Tensor, Tensor | None]


class _NetworkTests(TrainedSuite):
    """What holds for both networks of a GAN."""

    SAMPLES: ClassVar[int] = 4

    def inputs(self, network: Any, image: ImageSpec, dtype: torch.dtype = torch.float32) -> Inputs:
        """What the network is called with: latents or images, and labels."""
        raise NotImplementedError

    def trained(self, network: Any, inputs: Inputs) -> Tensor:
        """What a training differentiates: the outputs, and whatever else losses ask the network for, as one tensor."""
        return cast(Tensor, network(*inputs))

    @each_image
    def test_every_parameter_gets_a_finite_gradient(self, kind_of_image: str) -> None:
        """A parameter that nothing depends on is trained by no step, and one that is not finite spoils all."""
        image = self.like(kind_of_image)
        network = self.build_or_skip(image)
        outputs = self.trained(network, self.inputs(network, image))
        (outputs * torch.randn_like(outputs)).sum().backward()  # type: ignore[no-untyped-call]
        trainable = {name: value for name, value in network.named_parameters() if value.requires_grad}
        missing = [name for name, value in trainable.items() if value.grad is None]
        assert not missing, (
            f"no gradient reaches {', '.join(missing)}; where a loss asks the network for more than forward, let "
            "`trained` of this test class return that too"
        )
        broken = [name for name, value in trainable.items() if not torch.isfinite(value.grad).all()]
        assert not broken, f"gradients are not finite: {', '.join(broken)}"
        assert not trainable or any(value.grad.any() for value in trainable.values()), "every gradient is zero"

    @each_image
    def test_keeps_its_inputs(self, kind_of_image: str) -> None:
        """An operation in place on an input changes what others read."""
        image = self.like(kind_of_image)
        network = self.build_or_skip(image)
        inputs = self.inputs(network, image)
        before = copy.deepcopy(inputs)
        with torch.no_grad():
            network(*inputs)
        assert torch.equal(inputs[0], before[0]), "forward changes its first argument in place"
        if inputs[1] is not None and before[1] is not None:
            assert torch.equal(inputs[1], before[1]), "forward changes the labels in place"

    @each_image
    def test_computes_in_double(self, kind_of_image: str) -> None:
        """`training.precision = "float64"`: a tensor made in forward must take the type of its input."""
        image = self.like(kind_of_image)
        network = self.build_or_skip(image).double()
        outputs = network(*self.inputs(network, image, torch.float64))
        assert outputs.dtype == torch.float64, f"float64 in, {outputs.dtype} out"

    def test_activations_in_place_change_nothing_that_is_used_again(self) -> None:
        """Before a shortcut, relu in place makes the shortcut carry relu(x) in place of x."""
        network = self.build()
        inputs = self.inputs(network, self.image)

        def run() -> Tensor:
            seeds.manual_seed(1)
            return cast(Tensor, copy.deepcopy(network)(*copy.deepcopy(inputs)))

        with torch.no_grad():
            change = in_place_error(run)
        assert change < 1e-6, (
            f"an activation in place changes a value that is used again, as by a shortcut around it; computed out of "
            f"place the output differs by {change:.2g}: leave out inplace=True there"
        )

    @pytest.mark.parametrize("kind_of_image", ["classes", "conditions"])
    def test_labels_matter(self, kind_of_image: str) -> None:
        """A network that cannot use labels refuses conditional images; it does not ignore them."""
        image = self.like(kind_of_image)
        network = self.build_or_skip(image).eval()
        with torch.no_grad():
            for parameter in network.parameters():  # which may start at zero
                parameter.add_(0.1 * torch.randn_like(parameter))
        inputs, labels = self.inputs(network, image)
        assert labels is not None
        outputs = [_run(network, inputs, values) for values in (labels, labels.roll(1, 0))]
        assert not torch.equal(*outputs), "other labels change nothing: use them, or refuse such images (PartError)"

    def test_is_deterministic_under_a_seed(self) -> None:
        """The same seed gives the same initial weights and the same outputs, bit by bit."""
        results = []
        for _ in range(2):
            seeds.manual_seed(3)
            network = self.build()
            inputs = self.inputs(network, self.image)
            with torch.no_grad():
                results.append((network.state_dict(), network(*inputs)))
        (first_state, first), (second_state, second) = results
        assert first_state.keys() == second_state.keys()
        for name, value in first_state.items():
            assert torch.equal(value, second_state[name]), f"{name} differs between two networks of one seed"
        assert torch.equal(first, second), "outputs differ between two calls under one seed"

    def test_state_survives_a_checkpoint(self) -> None:
        """A fresh network that takes up the saved state computes the same."""
        network, other = self.build(), self.build()
        inputs = self.inputs(network, self.image)
        for hook in step_hooks(network):
            hook(3)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
            network(*inputs)  # running statistics move
        other.load_state_dict(save_and_load(network.state_dict()))
        for mode in (True, False):
            outputs = [_run(copy.deepcopy(original).train(mode), *inputs) for original in (network, other)]
            assert torch.equal(*outputs), "a network with the saved state computes something else: a buffer is missing"

    def test_survives_a_change_of_memory_format(self) -> None:
        """Where the network declares `channels_last`, that layout must change nothing but rounding."""
        network = self.build().double().eval()
        if not network.channels_last:
            pytest.skip("it is trained in the layout in which it is built")
        inputs, labels = self.inputs(network, self.image, torch.float64)
        outputs = []
        for memory_format in (torch.contiguous_format, torch.channels_last):
            if inputs.dim() == 4:
                inputs = inputs.contiguous(memory_format=memory_format)
            outputs.append(_run(copy.deepcopy(network).to(memory_format=memory_format), inputs, labels))
        torch.testing.assert_close(*outputs, rtol=1e-9, atol=1e-9)


class GeneratorTests(_NetworkTests):
    """Tests of a generator: give its class, or its registered name, as `part`."""

    kind = "generator"

    def inputs(self, network: Any, image: ImageSpec, dtype: torch.dtype = torch.float32) -> Inputs:
        """(n, latent_dim) latents and labels."""
        z = torch.randn(self.SAMPLES, network.latent_dim, dtype=dtype)
        return z, labels_for(image, self.SAMPLES, z)

    @each_image
    def test_makes_images_of_the_right_shape_and_range(self, kind_of_image: str) -> None:
        """(n, latent_dim) to (n, channels, height, width) in [-1, 1], as its defaults have it too."""
        image = self.like(kind_of_image)
        generator: Generator = self.build_or_skip(image)
        assert isinstance(generator.latent_dim, int)
        assert generator.latent_dim > 0
        for n in (self.SAMPLES, 2):
            z, labels = self.inputs(generator, image)
            images = generator(z[:n], None if labels is None else labels[:n])
            assert tuple(images.shape) == (n, *image.shape), f"{tuple(images.shape)} in place of {(n, *image.shape)}"
            assert images.dtype == torch.float32
            assert images.abs().max() <= 1, f"values reach {images.abs().max():.3g}: end on tanh"  # NaN fails too

    def test_has_finite_first_and_second_derivatives(self) -> None:
        """By its latents: regularisers such as path length differentiate twice."""
        generator = self.build().double().eval()
        z, labels = self.inputs(generator, self.image, torch.float64)
        z.requires_grad_()

        def images(at: Tensor) -> Tensor:
            seeds.manual_seed(4)
            return cast(Tensor, generator(at, labels))

        weights = torch.randn_like(images(z))
        (gradient,) = torch.autograd.grad((images(z) * weights).sum(), z, create_graph=True)
        assert gradient.any(), "images do not depend on the latents"
        assert_is_gradient(
            gradient, lambda at: (images(at) * weights).sum(), z, "the generator's images by its latents"
        )
        second = torch.autograd.grad(gradient.square().sum(), [z, *_trainable(generator)], allow_unused=True)
        assert all(torch.isfinite(value).all() for value in second if value is not None), "second derivatives"

    def test_an_image_depends_on_its_own_latents_alone_when_sampling(self) -> None:
        """In evaluation mode, so that sample i is the same whatever it is drawn beside."""
        generator = self.build().eval()
        z, labels = self.inputs(generator, self.image)
        alone = _run(generator, z[:1], None if labels is None else labels[:1])
        for others in (z, z.flip(0)):
            beside_others = _run(generator, torch.cat([z[:1], others[1:]]), labels)[:1]
            torch.testing.assert_close(beside_others, alone, rtol=1e-4, atol=1e-4)


class CriticTests(_NetworkTests):
    """Tests of a critic: give its class, or its registered name, as `part`."""

    kind = "critic"

    def inputs(self, network: Any, image: ImageSpec, dtype: torch.dtype = torch.float32) -> Inputs:
        """(n, channels, height, width) images in [-1, 1] and labels."""
        images = torch.rand(self.SAMPLES, *image.shape, dtype=dtype) * 2 - 1
        return images, labels_for(image, self.SAMPLES, images)

    @each_image
    def test_gives_one_score_or_map_a_sample(self, kind_of_image: str) -> None:
        """(n, channels, height, width) to (n, ...) finite scores."""
        image = self.like(kind_of_image)
        critic: Critic = self.build_or_skip(image)
        for n in (self.SAMPLES, 2):
            images, labels = self.inputs(critic, image)
            scores = critic(images[:n], None if labels is None else labels[:n])
            assert scores.shape[:1] == (n,), f"scores of shape {tuple(scores.shape)} for {n} images"
            assert scores.dtype == torch.float32
            assert torch.isfinite(scores).all(), "scores are not finite"

    def test_has_finite_first_and_second_derivatives(self) -> None:
        """Scores by images, and the gradient penalty by the weights, beside finite differences."""
        critic = self.build().double().eval()  # in training mode normalisations may change themselves at each call
        images, labels = self.inputs(critic, self.image, torch.float64)
        images.requires_grad_()

        def scores(at: Tensor, labels: Tensor | None = labels) -> Tensor:
            seeds.manual_seed(4)
            return cast(Tensor, critic(at, labels))

        (gradient,) = torch.autograd.grad(scores(images).sum(), images)
        assert gradient.any(), "scores do not depend on the images"
        assert_is_gradient(gradient, lambda at: scores(at).sum(), images, "the critic's scores by its images")
        if _trainable(critic):
            error = penalty_error(critic, images.detach(), labels)
            assert error < 1e-3, slope_fault("the gradient penalty", error)

    @each_image
    def test_features_and_their_scores_are_the_forward_pass(self, kind_of_image: str) -> None:
        """Where it is a `FeatureCritic`: the turn takes scores from features, whatever `forward` does."""
        image = self.like(kind_of_image)
        critic: Any = self.build_or_skip(image)
        if not isinstance(critic, FeatureCritic):
            pytest.skip("it shows no inner features")
        critic.eval()  # type: ignore[attr-defined]  # a network too
        images, labels = self.inputs(critic, image)
        features = _run(critic.features, images)
        with torch.no_grad():
            torch.testing.assert_close(critic.score(features, labels), _run(critic, images, labels))
        parts = [features] if isinstance(features, Tensor) else features
        assert all(len(part) == len(images) for part in parts), "features have one row a sample"


def _run(network: Any, *inputs: Any) -> Any:
    """What a network gives without gradients, under a fixed seed."""
    seeds.manual_seed(2)
    with torch.no_grad():
        return network(*inputs)


def _trainable(network: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in network.parameters() if parameter.requires_grad]
