"""Exercises of lesson 07, classifier guidance: log p, and its gradient."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from minidiff.course.checks.cases import Draw
from minidiff.course.checks.exercise import Bug, exercise

# What a classifier says about the wanted class ----------------------------------------------


def log_p(logits: Tensor, labels: Tensor) -> Tensor:
    return F.log_softmax(logits, dim=1)[torch.arange(len(labels)), labels]


def _log_p_given(d: Draw):
    b, classes = d.sizes("B K", K=(2, 5))
    scale = d.choose("logits", {"": 2.0, "logits up to a hundred": 40.0})
    return scale * d.normal(b, classes), d.labels(b, classes)


exercise(
    "l07_log_p",
    log_p,
    _log_p_given,
    (
        Bug(
            lambda logits, labels: log_p(logits, labels).exp(),
            "p, not log p.",
            "what the sum of Bayes' rule is made of: logarithms, since a product of probabilities became a sum.",
            "a gradient that dies where it is needed most: where the class is still unlikely, p is flat at 0.",
        ),
        Bug(
            lambda logits, labels: F.log_softmax(logits, dim=0)[torch.arange(len(labels)), labels],
            "a softmax over the batch: the pictures compete with each other, not the classes.",
            "`dim`: the probabilities of one picture, a row, should add up to 1.",
            "pictures that change with what else is in the batch; alone in a batch, none is guided at all.",
            "https://github.com/fxia22/pointnet.pytorch/issues/27",
        ),
        Bug(
            lambda logits, labels: logits[torch.arange(len(labels)), labels],
            "the logit itself, without the softmax.",
            "what makes log-probabilities of logits: they are only known up to a constant of each picture.",
            "a gradient that makes this class likelier without making the others less so.",
        ),
        Bug(
            lambda logits, labels: -log_p(logits, labels),
            "a loss: minus log p, which is made small in training.",
            "the sign. Guidance climbs; PyTorch's cross-entropy is for going down.",
            "digits of every class but the one that you asked for.",
        ),
        Bug(
            lambda logits, labels: log_p(logits.softmax(1), labels),
            "two softmaxes: probabilities handed to a function that expects logits.",
            "what `log_softmax` or `cross_entropy` is given: logits as they are.",
            "guidance that is weak, and weakest where it should pull hardest.",
            "https://github.com/vahidk/EffectiveTensorflow/issues/9",
        ),
        Bug(
            lambda logits, labels: log_p(logits, labels.roll(1)),
            "labels that have moved on by one picture: each gets its neighbour's class.",
            "how rows and labels are paired.",
            "good digits in the wrong positions; the accuracy is no better than chance.",
        ),
        Bug(
            lambda logits, labels: F.log_softmax(logits, dim=1)[:, labels],
            "every picture paired with every label, (B, B): a slice in front of the labels does not pair them with the rows.",
            "the first index: it should be the row's own number, not a colon.",
            "all pictures pulled toward a mixture of all the classes of the batch.",
        ),
    ),
    returns="a tensor (B)",
)


# Its gradient -------------------------------------------------------------------------------


def gradient(log_p: Callable, x: Tensor) -> Tensor:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return torch.autograd.grad(log_p(x).sum(), x)[0]


def _scored(weights: Tensor) -> Callable[[Tensor], Tensor]:
    """A log p (B,) of pictures, each by itself."""
    return lambda x: F.logsigmoid((weights.to(x) * x).flatten(1).sum(1) - 0.3 * x.flatten(1).square().sum(1))


def _of_the_first(log_p: Callable, x: Tensor) -> Tensor:
    return gradient(lambda z: log_p(z)[:1], x)


def _of_length_1(log_p: Callable, x: Tensor) -> Tensor:
    found = gradient(log_p, x)
    return found / found.flatten(1).norm(dim=1).reshape(-1, *[1] * (x.ndim - 1))


exercise(
    "l07_gradient",
    gradient,
    lambda d: (_scored(d.normal(*(x := d.images(1)[0]).shape[1:])), x),
    (
        Bug(
            lambda log_p, x: gradient(lambda z: log_p(z) / len(z), x),
            "the mean over the batch where the sum belongs: every gradient is divided by the number of pictures.",
            "what is made of the B numbers before the gradient is asked for. Pictures do not touch each other's log p, so a sum keeps them apart.",
            "guidance that gets weaker the more pictures you draw at once.",
            "https://github.com/openai/guided-diffusion/issues/51",
        ),
        Bug(
            _of_the_first,
            "the gradient of the first picture's log p alone: for all others it is zero.",
            "what is made of the B numbers before the gradient is asked for.",
            "one guided picture in every batch; the others are unconditional.",
        ),
        Bug(
            lambda log_p, x: gradient(lambda z: log_p(z).exp(), x),
            "the gradient of p, which is p times that of log p.",
            "what `log_p` returns: it is a logarithm already, and should stay one.",
            "no pull at the start of sampling, where every class has a small p.",
        ),
        Bug(
            lambda log_p, x: -gradient(log_p, x),
            "the gradient of a loss, downhill.",
            "the sign: log p is to become larger.",
            "digits of every class but the one that you asked for.",
        ),
        Bug(
            _of_length_1,
            "a gradient brought to length 1.",
            "the length: it says how much there is still to be done, and goes to zero once the classifier is sure.",
            "pictures that are pushed on long after they show what was asked for.",
        ),
        Bug(
            lambda log_p, x: gradient(log_p, x).sum(0, keepdim=True).expand(x.shape),
            "one gradient for all: those of the pictures were added up.",
            "the shape before you return: each picture has a gradient of its own.",
            "the same faint shape in every picture of the batch.",
        ),
    ),
    returns="a tensor of the shape of `x`, (B, C, H, W)",
)
