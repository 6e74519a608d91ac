"""The exercise of lesson 12 that is about precision: a training step under autocast."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from minidiff.course.checks.cases import Draw
from minidiff.course.checks.exercise import Bug, exercise


def step(weight: Tensor, x: Tensor, target: Tensor, lr: float) -> Tensor:
    return _step(weight, x, target, lr)


def _step(weight, x, target, lr, bf16: bool = True, compare: Callable = F.mse_loss) -> Tensor:
    """compare: the loss, of what comes out of the layer and the target."""
    learned = weight.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        out = F.linear(x, learned)
    compare(out.float(), target).backward()
    return weight - lr * learned.grad


def _rounded(values: Tensor) -> Tensor:
    return values.bfloat16().float()


def _step_given(d: Draw):
    """Weights that bfloat16 rounds, and targets so near to the outputs that it takes them for the same."""
    b, out, size = d.sizes("B E D", E=(1, 2), D=(1, 3))
    weight = d.uniform(0.4, 1.1, out, size, digits=3, ends=False)
    x = 16 * d.uniform(-6, 6, b, size, digits=0)
    target = (x @ weight.T).round() + d.uniform(-0.5, 0.5, b, out)
    return weight.float(), x.float(), target.float(), d.choose("lr", [0.001, 0.004])


exercise(
    "l12_step",
    step,
    _step_given,
    (
        Bug(
            lambda weight, x, target, lr: _step(weight, x, target, lr, compare=lambda a, b: F.mse_loss(a, _rounded(b))),
            "a loss in bfloat16: output and target are near each other, and rounding takes most of their difference away.",
            "where autocast ends, and what is rounded: the target is not.",
            "a loss that stops falling early, and pictures that keep their grain.",
            "https://github.com/wandb/senpai/pull/328",
        ),
        Bug(
            lambda weight, x, target, lr: _step(weight, x, target, lr, bf16=False),
            "float32 throughout: nothing was computed in bfloat16.",
            "the line that calls the layer: it belongs under autocast.",
            "there is no visible effect: the pictures are as good, but a GPU takes several times as long.",
        ),
        Bug(
            lambda weight, x, target, lr: _rounded(_step(_rounded(weight), x, target, lr)),
            "weights that live in bfloat16. Steps that are smaller than its spacing are lost.",
            "what is stored: float32 weights, of which autocast makes rounded copies to compute with.",
            "training that stands still although the gradients are fine, first where weights are large.",
            "https://github.com/vllm-project/speculators/pull/765",
        ),
        Bug(
            lambda weight, x, target, lr: _rounded(_step(weight, x, target, lr)),
            "weights that are rounded after the step. Steps that are smaller than the spacing of bfloat16 are lost.",
            "what is returned: float32.",
            "training that stands still although the gradients are fine, first where weights are large.",
            "https://github.com/workofart/ml-by-hand/pull/85",
        ),
        Bug(
            lambda weight, x, target, lr: _step(_rounded(weight), x, target, lr),
            "a step from the rounded weights; rounded are only the copies that autocast computes with.",
            "what the step is subtracted from.",
            "training that loses what it has learned since the last rounding.",
        ),
        Bug(
            lambda weight, x, target, lr: _step(weight, x, target, -lr),
            "a step uphill.",
            "the sign.",
            "a loss that grows without end.",
        ),
        Bug(
            lambda weight, x, target, lr: _step(weight, x, target, lr * target.numel()),
            "a sum of squared errors, where the mean was asked for.",
            "the last step of the loss.",
            "the same as a learning rate that grows with the batch.",
        ),
    ),
    returns="a tensor (out, in)",
    points=3,
)
