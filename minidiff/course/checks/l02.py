"""Exercises of lesson 02, denoising."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from minidiff.course.checks.cases import Draw
from minidiff.course.checks.catch import catch
from minidiff.course.checks.exercise import Bug, exercise

# Noise, ask, compare ------------------------------------------------------------------------


def loss(net: Callable, x0: Tensor, eps: Tensor, t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    return (net(alpha * x0 + sigma * eps, t) - eps).square().mean()


class _Net(nn.Module):
    """A network of two weights, tanh(a (1 + t) x) - b t: it looks at the time."""

    def __init__(self):
        super().__init__()
        self.a, self.b = (nn.Parameter(torch.tensor(value, dtype=torch.float64)) for value in (0.8, 0.5))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        t = torch.as_tensor(t).to(x.dtype).reshape(-1, 1, 1, 1)
        return torch.tanh(self.a * (1 + t) * x) - self.b * t


def _loss_given(d: Draw):
    x0, eps = d.images(2)
    t, alpha, sigma = d.coefficients(len(x0), 1, 1, 1)
    return _Net(), x0, eps, t.flatten(), alpha, sigma


exercise(
    "l02_loss",
    loss,
    _loss_given,
    (
        Bug(
            lambda net, x0, eps, t, alpha, sigma: (net(alpha * x0 + sigma * eps, t) - x0).square().mean(),
            "the clean picture as the target, for a network that is meant to predict the noise.",
            "what the answer is compared with: it should be eps.",
            "the network learns well, but the sampler takes its pictures for noise, and no digit comes out.",
            "https://github.com/rinongal/textual_inversion/issues/135",
        ),
        Bug(
            lambda net, x0, eps, t, alpha, sigma: (net(alpha * eps + sigma * x0, t) - eps).square().mean(),
            "eps and x0 swapped where the picture is noised.",
            "which of the two alpha belongs to.",
            "the network learns to clean at t = 1 and to see noise at t = 0, and sampling gives noise.",
        ),
        Bug(
            lambda net, x0, eps, t, alpha, sigma: (net(x0, t) - eps).square().mean(),
            "a network that is given the clean picture, from which the noise cannot be predicted.",
            "the first argument of net.",
            "the loss stays at 1, and samples are noise.",
        ),
        Bug(
            lambda net, x0, eps, t, alpha, sigma: (net(alpha * x0 + sigma * eps, t) - eps).square().sum(),
            "a sum where the mean was asked for.",
            "the last operation: with the sum, the learning rate would depend on the size of pictures and batch.",
            "there is no visible effect with AdamW, which rescales its gradients; plain gradient descent diverges.",
            "https://github.com/zoubohao/DenoisingDiffusionProbabilityModel-ddpm-/issues/12",
        ),
        Bug(
            lambda net, x0, eps, t, alpha, sigma: (net(alpha * x0 + sigma * eps, t) - eps).square().flatten(1).mean(1),
            "one loss for every picture; training needs a single number.",
            "the axes of your mean: take it over the pictures too.",
            "training never starts: `backward` accepts only a scalar.",
        ),
        Bug(
            lambda net, x0, eps, t, alpha, sigma: (net(alpha * x0 + sigma * eps, t) - eps).abs().mean(),
            "the absolute error; its best answer is a median, and the theory needs the mean.",
            "the operation before the mean: square, not abs.",
            "samples that are a little too smooth and too much alike.",
        ),
        Bug(
            lambda net, x0, eps, t, alpha, sigma: (net(alpha * x0 + sigma * eps, t) - eps).square().mean().sqrt(),
            "the root of the mean squared error.",
            "the last operation: no root.",
            "there is little visible effect. But the gradient is then divided by the loss, so batches no longer count equally.",
        ),
        Bug(
            lambda net, x0, eps, t, alpha, sigma: (net(alpha * x0 + sigma**2 * eps, t) - eps).square().mean(),
            "a variance where a standard deviation belongs: sigma is squared.",
            "the factor in front of eps.",
            "samples that stay grainy, since the network has learned the wrong amount of noise for every t.",
        ),
        Bug(
            lambda net, x0, eps, t, alpha, sigma: (net(alpha**2 * x0 + sigma * eps, t) - eps).square().mean(),
            "alpha-bar where alpha belongs: alpha is squared.",
            "the factor in front of x0. In this course alpha is the factor itself.",
            "samples of the wrong contrast, since the network has only seen pictures that are too dim.",
        ),
        Bug(
            lambda net, x0, eps, t, alpha, sigma: (net(alpha * x0 + sigma * eps, sigma) - eps).square().mean(),
            "a network that is given sigma in place of the time.",
            "the second argument of net. On the flow schedule the two are the same, on others they are not.",
            "the sampler passes t, so the network removes a different amount of noise than there is.",
        ),
        Bug(
            lambda net, x0, eps, t, alpha, sigma: (net(alpha * x0 + sigma * eps, 1 - t) - eps).square().mean(),
            "time that runs backwards: the network is given 1 - t.",
            "the second argument of net. Here 0 is the clean end.",
            "the loss looks healthy, but the sampler counts the other way and draws noise.",
        ),
    ),
    returns="one number, as a tensor",
    gradient=("net",),
)


# From the noise to the picture --------------------------------------------------------------


def x0_from_eps(x: Tensor, eps_hat: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    return (x - sigma * eps_hat) / alpha


def _answer_given(d: Draw, *on: str):
    """(x, what the network said, alpha, sigma), short of t = 1, where alpha may be 0."""
    x, said = d.images(2)
    return x, said, *d.coefficients(len(x), 1, 1, 1, high=0.95, on=on or ("circle", "flow", "edm"))[1:]


exercise(
    "l02_x0_from_eps",
    x0_from_eps,
    _answer_given,
    (
        Bug(
            lambda x, eps_hat, alpha, sigma: x - sigma * eps_hat,
            "alpha * x0: the noise is gone, but the picture is still shrunk.",
            "the end of your line: what is left has to be divided by alpha.",
            "pictures that fade to gray as t grows.",
        ),
        Bug(
            lambda x, eps_hat, alpha, sigma: (x - sigma * eps_hat) / alpha**2,
            "a division by alpha-bar: alpha is squared.",
            "the divisor. In this course alpha is the factor itself.",
            "too much contrast; at large t nothing but black and white.",
        ),
        Bug(
            lambda x, eps_hat, alpha, sigma: (x + sigma * eps_hat) / alpha,
            "noise added where it should be taken away.",
            "the sign in front of sigma.",
            "twice the noise there was.",
        ),
        Bug(
            lambda x, eps_hat, alpha, sigma: (x - sigma**2 * eps_hat) / alpha,
            "a variance where a standard deviation belongs: sigma is squared.",
            "the factor in front of eps_hat.",
            "grain that stays, most of it at intermediate times.",
        ),
        Bug(
            lambda x, eps_hat, alpha, sigma: (x - sigma * eps_hat) / sigma,
            "a division by sigma, where alpha belongs.",
            "the divisor: solve x = alpha * x0 + sigma * eps for x0.",
            "pictures that are too faint at large t and blow up at small t.",
        ),
        Bug(
            lambda x, eps_hat, alpha, sigma: (x - alpha * eps_hat) / sigma,
            "eps and x0 mixed up: this is the noise in x, for a network that says x0.",
            "which of the two factors belongs to eps.",
            "noise where there should be a picture.",
        ),
        Bug(
            lambda x, eps_hat, alpha, sigma: x - sigma / alpha * eps_hat,
            "a division by alpha of the noise alone; x has to be divided too.",
            "the brackets.",
            "pictures that are as dim as x, with some noise in the negative.",
        ),
    ),
    returns="a tensor of the shape of `x`, (B, C, H, W)",
)


# From v to the picture ----------------------------------------------------------------------


def x0_from_v(x: Tensor, v: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    return alpha * x - sigma * v


exercise(
    "l02_x0_from_v",
    x0_from_v,
    lambda d: _answer_given(d, "circle"),
    (
        Bug(
            lambda x, v, alpha, sigma: alpha * x + sigma * v,
            "a v of the opposite sign, sigma * x0 - alpha * eps.",
            "the sign in front of sigma: put v = alpha * eps - sigma * x0 in, and eps should cancel.",
            "noise that grows where it should go.",
        ),
        Bug(
            lambda x, v, alpha, sigma: sigma * x + alpha * v,
            "the noise: this is eps_hat, the other half of what v knows.",
            "what cancels when you put x and v in: it should be eps, so that x0 stays.",
            "noise where there should be a picture.",
        ),
        Bug(
            lambda x, v, alpha, sigma: sigma * x - alpha * v,
            "alpha and sigma swapped.",
            "the factors: at t = 0, alpha is 1 and x is the picture already.",
            "a negative of the picture at small t, and noise at large t.",
        ),
        Bug(
            lambda x, v, alpha, sigma: x - sigma * v,
            "the formula of flow matching, where v is eps - x0 and alpha + sigma is 1.",
            "the factor in front of x: here it is the squares that add up to 1.",
            "too much contrast, and some noise that stays.",
        ),
        Bug(
            lambda x, v, alpha, sigma: (x - sigma * v) / alpha,
            "v taken for eps.",
            "what v is made of: it has some of the picture in it, so there is no need to divide.",
            "pictures that explode where alpha is small, which is what v is there to avoid.",
            "https://github.com/invoke-ai/InvokeAI/issues/7495",
        ),
        Bug(
            lambda x, v, alpha, sigma: alpha**2 * x - sigma**2 * v,
            "alpha and sigma squared.",
            "the two factors: squares come up in the derivation, as alpha**2 + sigma**2 = 1, but not in the result.",
            "dim pictures with noise that stays.",
        ),
    ),
    returns="a tensor of the shape of `x`, (B, C, H, W)",
    points=2,
)


# A test of it -------------------------------------------------------------------------------


def there_and_back(x0_from_eps: Callable) -> bool:
    x0, eps = 2 * torch.randn(2, 3, 2, 3, 4)
    angle = torch.tensor([0.2, 0.7, 1.3]).reshape(3, 1, 1, 1)
    alpha, sigma = angle.cos(), angle.sin()
    return torch.allclose(x0_from_eps(alpha * x0 + sigma * eps, eps, alpha, sigma), x0, atol=1e-3)


catch("l02_catch", "l02_x0_from_eps", there_and_back, points=2)
