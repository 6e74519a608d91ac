"""The exercise of lesson 11 about what the network's answer means: betas to alpha, eps or v to the clean latent."""

import torch
from torch import Tensor

from minidiff.course.checks.cases import Draw
from minidiff.course.checks.exercise import Bug, exercise


def clean(x: Tensor, out: Tensor, betas: Tensor, index: int, says_v: bool) -> Tensor:
    return _read(x, out, _kept(betas)[index], says_v)


def _kept(betas: Tensor) -> Tensor:
    """alpha squared: what is left of the picture's variance."""
    return torch.cumprod(1 - betas, 0)


def _read(x: Tensor, out: Tensor, kept: Tensor, says_v: bool) -> Tensor:
    alpha, sigma = kept.sqrt(), (1 - kept).sqrt()
    return alpha * x - sigma * out if says_v else (x - sigma * out) / alpha


def _of(kept):
    """clean with alpha squared computed otherwise, (betas, index) -> kept."""
    return lambda x, out, betas, index, says_v: _read(x, out, kept(betas, index), says_v)


def _says(eps=None, v=None):
    """clean that reads an answer otherwise, (x, out, alpha, sigma) -> x0; the other kind is read well."""

    def wrong(x, out, betas, index, says_v):
        kept, other = _kept(betas)[index], v if says_v else eps
        return other(x, out, kept.sqrt(), (1 - kept).sqrt()) if other else _read(x, out, kept, says_v)

    return wrong


def _given(d: Draw):
    (n,) = d.sizes("n", n=(1, 5))
    betas = d.uniform(0, d.choose("largest", {"small betas": 0.02, "": 0.5}), n, digits=3)
    says_v = d.choose("answer", {"the network says v": True, "the network says eps": False})
    return *d.images(2), betas, d.whole("index", 0, n - 1), says_v


exercise(
    "l11_clean",
    clean,
    _given,
    (
        Bug(
            _says(v=lambda x, out, alpha, sigma: (x - sigma * out) / alpha),
            "v that was read as eps. Shapes are the same, so there is no error.",
            "the two formulas, and which belongs to `says_v`.",
            "brown mud or noise, of a checkpoint of Stable Diffusion 2.x that is taken for 1.x.",
            "https://github.com/invoke-ai/InvokeAI/issues/7495",
        ),
        Bug(
            _says(eps=lambda x, out, alpha, sigma: alpha * x - sigma * out),
            "eps that was read as v.",
            "the two formulas, and which belongs to `says_v`.",
            "pale pictures that never become clean.",
        ),
        Bug(
            lambda x, out, betas, index, says_v: clean(x, out, betas, index, not says_v),
            "eps and v exchanged.",
            "which branch is for `says_v`.",
            "noise from every checkpoint.",
        ),
        Bug(
            _says(v=lambda x, out, alpha, sigma: alpha * x + sigma * out),
            "the sign of v: v is alpha * eps - sigma * x0, so it is taken away.",
            "the sign between the two terms, for v.",
            "the negative of what should come, under more and more noise.",
        ),
        Bug(
            _says(v=lambda x, out, alpha, sigma: sigma * x - alpha * out),
            "alpha and sigma exchanged, for v. That gives minus the picture at one end of the times and noise at the other.",
            "which of the two x is multiplied with: where there is no noise, x0 is x.",
            "noise.",
        ),
        Bug(
            _says(v=lambda x, out, alpha, sigma: sigma * x + alpha * out),
            "the noise in place of the picture: alpha * v + sigma * x is eps.",
            "what is asked for: x0, not eps.",
            "noise.",
        ),
        Bug(
            _says(eps=lambda x, out, alpha, sigma: x - sigma * out),
            "a picture that is still dimmed: the division by alpha is missing, for eps.",
            "the last thing that is done to x0: x is alpha * x0 + sigma * eps.",
            "black pictures, the darker the more noise there was.",
        ),
        Bug(
            _says(eps=lambda x, out, alpha, sigma: (x - out) / alpha),
            "noise that was taken away at full strength: sigma is missing, for eps.",
            "what `out` is multiplied with.",
            "hard edges and colours that burst.",
        ),
        Bug(
            _says(eps=lambda x, out, alpha, sigma: x / alpha - sigma * out),
            "a division that stops short: both terms are divided by alpha, for eps.",
            "the brackets.",
            "grain that is left over.",
        ),
        Bug(
            _of(lambda betas, index: 1 - betas[index]),
            "the noise of one step in place of that of all steps so far.",
            "the product: what is left after k steps is what every one of them has left.",
            "pictures that stay noise: the network is taken to have seen hardly any.",
        ),
        Bug(
            _of(lambda betas, index: 1 - betas.cumsum(0)[index].clamp(max=0.999)),
            "betas that were added up. What each step leaves is multiplied.",
            "cumsum, where cumprod is asked for.",
            "good pictures at the clean end only.",
        ),
        Bug(
            _of(lambda betas, index: _kept(betas)[index] ** 2),
            "the root left out: the product is alpha squared.",
            "which of your names is alpha, and which is its square.",
            "too dark, and too noisy.",
        ),
        Bug(
            _of(lambda betas, index: torch.cat([torch.ones(1, dtype=betas.dtype), _kept(betas)])[index]),
            "one step too early: index 0 means that one step of noise was added.",
            "what the product holds at `index`: the beta of that index is in it.",
            "there is hardly any effect with a thousand steps: a trace of grain.",
        ),
        Bug(
            _of(lambda betas, index: torch.cumprod(1 - betas.flip(0), 0)[index]),
            "betas from the other end.",
            "the order of the betas: small ones come first.",
            "too much noise taken away at the clean end.",
        ),
        Bug(
            _of(lambda betas, index: torch.cumprod(1 - betas**2, 0)[index]),
            "betas that were squared: they are variances already.",
            "what is taken from 1.",
            "noise that is left over.",
        ),
        Bug(
            lambda x, out, betas, index, says_v: clean(x, out, betas, index, says_v).clamp(-1, 1),
            "a clamp to [-1, 1]. These are latents: they have no such limits.",
            "the last thing you do before you return.",
            "pale colours.",
        ),
    ),
    parts=("the network says v", "the network says eps"),
    returns="a tensor (B, c, h, w)",
    points=2,
)
