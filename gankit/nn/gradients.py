"""Gradients of each sample's score with respect to that sample: what gradient penalties are made of."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from gankit import seeds
from gankit.errors import PartError
from gankit.nn import compilation
from gankit.nn.modes import without_autocast as without_autocast
from gankit.nn.modes import without_float16


def score_gradients(critic: Callable[..., Tensor], images: Tensor, labels: Tensor | None = None) -> Tensor:
    """The gradient of every sample's score with respect to that sample.

    WGAN-GP penalises it (Gulrajani et al. 2017, arXiv 1704.00028, equation 3), and so do R1 and R2 (Mescheder et al.
    2018, arXiv 1801.04406, equations 9 and 10). Where gradients are enabled, the result has a graph: a penalty can be
    differentiated with respect to everything that the critic depends on, except `images`.

    Autocast to float16, in which products of gradients underflow, is off inside. Autocast to bfloat16, which has the
    range of float32, stays: gradients are then as exact as those of the critic's other losses (docs/measured/bf16.md).

    Args:
        critic: called as `critic(images)`, or `critic(images, labels)` where labels are given. It must score each
            sample without looking at the others. Scores of shape (n, ...) are averaged per sample first.
        images: (n, ...) of any trailing shape.
        labels: None, (n,) int64 classes, or (n, k) float conditions.

    Returns:
        Gradients of the shape of `images`, in float32 or finer; zeros where the scores do not depend on them.

    Raises:
        PartError: the scores have no graph, or there is not one score, or one map of scores, per sample.
    """
    create_graph = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.enable_grad(), without_float16(images.device):
        images = _without_inference(images).detach().to(torch.promote_types(images.dtype, torch.float32))
        labels = None if labels is None else _without_inference(labels)
        if torch._C._are_functorch_transforms_active():
            return _compilable(critic, images, labels)
        # Only modules: a function that is defined anew at each update would be compiled at each update.
        if create_graph and compilation.compiles_penalties() and isinstance(critic, nn.Module):
            return compilation.call(_compilable, critic, images, labels)
        images.requires_grad_()
        scores = critic(images) if labels is None else critic(images, labels)
        if scores.shape[:1] != images.shape[:1]:
            raise PartError(
                f"the critic gave scores of shape {tuple(scores.shape)} for {len(images)} images; "
                f"a gradient penalty needs scores of shape ({len(images)}, ...)"
            )
        if not scores.requires_grad:
            raise PartError(
                "the critic's scores cannot be differentiated; a gradient penalty needs a critic without "
                "no_grad, detach or NumPy in it"
            )
        means = _sample_scores(scores)
        (gradients,) = torch.autograd.grad(means.sum(), images, create_graph=create_graph, allow_unused=True)
        if gradients is None:
            # Tied to the scores, so that the critic's parameters get a gradient of zero instead of an error.
            gradients = torch.zeros_like(images) + (0 * means).reshape(-1, *[1] * (images.ndim - 1))
        return gradients if create_graph else gradients.detach()


def slope_error(
    gradient: Tensor, function: Callable[[Tensor], Tensor], at: Tensor, scale: Tensor | float = 1.0
) -> float:
    """How far a scalar function's gradient `at` float64 values is from central differences, as a share of these.

    It is the median over random directions, each multiplied by `scale`, which broadcasts to the one shape of `gradient`
    and `at`. Left out are those in which twice the step gives another slope: there is a kink, or the function computes
    partly in float32. NaN with fewer than three of five directions left, or where one is not finite.
    """
    step, generator, slopes = 1e-8, torch.Generator().manual_seed(0), []
    for _ in range(5):
        direction = scale * torch.randn(at.shape, generator=generator, dtype=at.dtype).to(at.device)
        with torch.no_grad():
            near, far = ((function(at + h * direction) - function(at - h * direction)) / (2 * h)
                         for h in (step, 2 * step))  # fmt: skip
        slopes.append(((gradient * direction).sum().item(), near.item(), far.item()))
    if not all(math.isfinite(value) for values in slopes for value in values):
        return math.nan
    largest = max(abs(near) for _, near, _ in slopes)
    smooth = [(slope, near) for slope, near, far in slopes if abs(near - far) <= 1e-3 * largest]
    if len(smooth) < 3:
        return math.nan
    largest = max(1e-9, *(abs(near) for _, near in smooth))
    return sorted(abs(slope - near) / largest for slope, near in smooth)[len(smooth) // 2]


def penalty_error(critic: nn.Module, images: Tensor, labels: Tensor | None) -> float:
    """The `slope_error` of squared `score_gradients` by the weights of a critic, whose numbers are float64.

    Weights and the global generators are left changed. `images` are (n, c, h, w) in [-1, 1], and `labels` None, (n,)
    classes or (n, k) conditions.
    """
    parameters = [parameter for parameter in critic.parameters() if parameter.requires_grad]

    def penalty(weights: Tensor) -> Tensor:
        nn.utils.vector_to_parameters(weights, parameters)
        seeds.seed_torch(4, "penalty")
        return score_gradients(critic, images, labels).square().sum()

    weights = nn.utils.parameters_to_vector(parameters).detach()
    gradients = torch.autograd.grad(penalty(weights), parameters, allow_unused=True, materialize_grads=True)
    spreads = [torch.full_like(value, max(value.std(correction=0).item(), 1e-2)) for value in parameters]
    by_weights, scale = (torch.cat([value.flatten() for value in values]) for values in (gradients, spreads))
    return slope_error(by_weights, penalty, weights, scale)


def _sample_scores(scores: Tensor) -> Tensor:
    """(n, ...) scores to the (n,) mean of each sample."""
    return scores.flatten(1).mean(1) if scores.ndim > 1 else scores


def _without_inference(tensor: Tensor) -> Tensor:
    """The tensor, or a copy of it that can be differentiated if it was made in inference mode."""
    return tensor.clone() if tensor.is_inference() else tensor


def _compilable(critic: Callable[..., Tensor], images: Tensor, labels: Tensor | None) -> Tensor:
    """`score_gradients` by `torch.func`: the first derivative is taken inside compiled code, and the second outside."""

    def total(images: Tensor) -> Tensor:
        scores = critic(images) if labels is None else critic(images, labels)
        if scores.shape[:1] != images.shape[:1]:
            raise PartError("a gradient penalty needs one score, or one map of scores, per sample")
        return _sample_scores(scores).sum()

    gradients: Tensor = torch.func.grad(total)(images)
    return gradients
