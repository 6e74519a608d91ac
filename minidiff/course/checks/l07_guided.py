"""Exercises of lesson 07, classifier guidance: the guided x0_hat."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from minidiff.course.checks.cases import Draw
from minidiff.course.checks.exercise import Bug, exercise
from minidiff.course.checks.l07 import gradient

# The estimate, moved ------------------------------------------------------------------------


def _per_picture(value: Tensor) -> Tensor:
    return value.reshape(-1, 1, 1, 1)


def move(x0_hat: Tensor, gradient: Tensor, alpha: Tensor, sigma: Tensor, w: float) -> Tensor:
    return x0_hat + w * _per_picture(sigma**2 / alpha) * gradient


# fmt: skip


exercise(
    "l07_move",
    move,
    lambda d: (
        *(images := d.images(2)),
        *d.coefficients(len(images[0]), low=0.05, high=0.95)[1:],
        d.number_in("w", 0, 4),
    ),
    (
        Bug(
            lambda x0_hat, gradient, alpha, sigma, w: x0_hat + w * gradient,
            "the gradient added as it is: the factor from a score to a picture was forgotten.",
            "what stands in front of the score when you solve its equation for the picture.",
            "guidance of the same strength at all times: too weak in noise, where the class is decided, and too strong at the end.",
        ),
        Bug(
            lambda x0_hat, gradient, alpha, sigma, w: x0_hat + w * _per_picture(sigma**2) * gradient,
            "a division by alpha that was forgotten. It is right only where alpha is 1, as in EDM's schedule.",
            "the picture in x: it is alpha times x0.",
            "guidance that is too weak at the beginning, where alpha is small and the class is decided.",
        ),
        Bug(
            lambda x0_hat, gradient, alpha, sigma, w: x0_hat + w * _per_picture((sigma / alpha) ** 2) * gradient,
            "alpha squared: only sigma is.",
            "the factor: one alpha, from the picture in x; two sigmas, from the variance of the noise.",
            "guidance that is far too strong at the beginning: bright blots before there is a digit.",
        ),
        Bug(
            lambda x0_hat, gradient, alpha, sigma, w: x0_hat + w * _per_picture(sigma / alpha) * gradient,
            "sigma where its square belongs.",
            "the denominator of the score: a variance.",
            "guidance that goes on too strongly near the end, where there is hardly any noise left: speckles.",
            "https://github.com/zhanyisun/lpb/issues/2",
        ),
        Bug(
            lambda x0_hat, gradient, alpha, sigma, w: x0_hat + w * _per_picture(sigma**2 * alpha) * gradient,
            "a multiplication by alpha where you should divide.",
            "the factor in front of the gradient.",
            "almost nothing: in noise, where it matters, alpha is near 0.",
        ),
        Bug(
            lambda x0_hat, gradient, alpha, sigma, w: move(x0_hat, gradient, alpha, sigma, -w),
            "a step down, away from the class.",
            "the sign in front of the gradient. It is minus only for a network that predicts noise.",
            "digits of every class but the one that you asked for.",
        ),
        Bug(
            lambda x0_hat, gradient, alpha, sigma, w: move(x0_hat, gradient, alpha, sigma, 1 + w),
            "1 + w in place of w: another convention for the scale.",
            "what w = 0 should give: x0_hat as it was.",
            "pictures that show the class though the scale is 0.",
        ),
        Bug(
            lambda x0_hat, gradient, alpha, sigma, w: move(x0_hat, gradient, alpha, sigma, w**2),
            "a scale that was multiplied in twice.",
            "how often `w` occurs.",
            "a dial that does too much above 1 and too little below.",
        ),
        Bug(
            lambda x0_hat, gradient, alpha, sigma, w: x0_hat + w * sigma**2 / alpha * gradient,
            "silent broadcasting: (B,) times (B, C, H, W) multiplies columns, not pictures, and raises no error if W is B.",
            "the shape of the factor: it needs to be (B, 1, 1, 1).",
            "pictures that are guided at one edge and not at the other.",
        ),
    ),
    returns="a tensor of the shape of `x0_hat`, (B, C, H, W)",
    points=2,
)


# All of it ----------------------------------------------------------------------------------


def _pull(classify: Callable, x: Tensor, t: float, labels: Tensor) -> Tensor:
    """The gradient of log p(labels | x), as the classifier sees it."""
    return gradient(lambda z: -F.cross_entropy(classify(z, t), labels, reduction="none"), x)


def guided_x0(
    denoise: Callable, classify: Callable, x: Tensor, t: float, labels: Tensor, alpha: float, sigma: float, w: float
) -> Tensor:
    return denoise(x, t) + w * sigma**2 / alpha * _pull(classify, x, t, labels)


def _pulled(pull: Callable) -> Callable:
    """x0_hat, moved along another gradient: pull(denoise, classify, x, t, labels)."""

    def wrong(denoise, classify, x, t, labels, alpha, sigma, w):
        return denoise(x, t) + w * sigma**2 / alpha * pull(denoise, classify, x, t, labels)

    return wrong


def _over_the_batch(denoise, classify, x, t, labels):
    rows = torch.arange(len(labels))
    return gradient(lambda z: F.log_softmax(classify(z, t), dim=0)[rows, labels], x)


def _denoised_after(denoise, classify, x, t, labels, alpha, sigma, w):
    return denoise(guided_x0(lambda z, t: z, classify, x, t, labels, alpha, sigma, w), t)


def _guided_given(d: Draw):
    """A denoiser and a classifier that are a few fixed numbers, both of which look at the time."""
    (x,) = d.images(1)
    weights, spread = d.normal(3, x[0].numel()), d.normal(x[0].numel(), x[0].numel())

    def classify(x, t):
        return torch.tanh(x.flatten(1) @ weights.to(x).T * (1.5 - t)) * (2 + t)

    def denoise(x, t):
        return torch.tanh((x.flatten(1) @ spread.to(x)).reshape(x.shape) / (1 + t))

    t, alpha, sigma = (float(value) for value in d.coefficients(low=0.05, high=0.95))
    return denoise, classify, x, t, d.labels(len(x), 3), alpha, sigma, d.number_in("w", 0, 4)


exercise(
    "l07_belief",
    guided_x0,
    _guided_given,
    (
        Bug(
            _pulled(lambda denoise, classify, x, t, labels: _pull(classify, denoise(x, t), t, labels)),
            "a gradient with respect to x0_hat: the classifier was given x0_hat in place of x.",
            "the input of the classifier, and the variable in `autograd.grad`: both should be x.",
            "a classifier of noisy pictures that gets blurred clean ones: its gradient is of no use.",
            "https://github.com/YWolfeee/Training-Free-Guidance/issues/5",
        ),
        Bug(
            _pulled(
                lambda denoise, classify, x, t, labels: _pull(lambda z, t: classify(denoise(z, t), t), x, t, labels)
            ),
            "a classifier whose input is x0_hat, with the gradient taken through the denoiser: that is the approximation called DPS.",
            "the input of the classifier. This one was trained on noisy pictures, so give it x itself; then there is no approximation.",
            "sampling that costs twice as much, and a classifier whose input is unlike its training data.",
        ),
        Bug(
            _pulled(lambda denoise, classify, x, t, labels: _pull(classify, x, 0.0, labels)),
            "a classifier that is given t = 0, as if x were clean.",
            "the time you hand to `classify`.",
            "a classifier that takes noise for ink, and pulls at every speck.",
            "https://github.com/openai/guided-diffusion/issues/51",
        ),
        Bug(
            _pulled(lambda denoise, classify, x, t, labels: _pull(classify, x, t, labels.roll(1))),
            "labels that have moved on by one picture.",
            "how pictures and labels are paired.",
            "good digits in the wrong positions.",
        ),
        Bug(
            _pulled(lambda denoise, classify, x, t, labels: _pull(classify, x, t, labels) / len(x)),
            "the mean over the batch where the sum belongs.",
            "what is made of the B numbers before the gradient is asked for. With PyTorch's cross-entropy, the mean is what you get unless you say otherwise.",
            "guidance that gets weaker the more pictures you draw at once.",
        ),
        Bug(
            _pulled(_over_the_batch),
            "a softmax over the batch: the pictures compete with each other, not the classes.",
            "`dim`: the probabilities of one picture, a row, should add up to 1.",
            "pictures that change with what else is in the batch.",
            "https://github.com/fxia22/pointnet.pytorch/issues/27",
        ),
        Bug(
            _pulled(lambda denoise, classify, x, t, labels: -_pull(classify, x, t, labels)),
            "a step down, away from the class.",
            "the sign. `cross_entropy` is minus log p.",
            "digits of every class but the one that you asked for.",
        ),
        Bug(
            lambda denoise, classify, x, t, labels, alpha, sigma, w: guided_x0(
                lambda z, t: z, classify, x, t, labels, alpha, sigma, w
            ),
            "x that was moved, not x0_hat: the denoiser is not called.",
            "what the pull is added to.",
            "sampling that treats noise as the picture, and ends in a gray blur.",
        ),
        Bug(
            _denoised_after,
            "x that was moved first and denoised after.",
            "the order: denoise x as it is, then move the result.",
            "a denoiser that gets noise of the wrong strength: it wipes some of the guidance away again.",
        ),
    ),
    returns="a tensor of the shape of `x`, (B, C, H, W)",
    points=3,
    forbids=("minidiff.",),
)
