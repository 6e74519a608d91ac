"""Exercises of lesson 11, Stable Diffusion: where sampling starts from a picture. The others: l11_*.py."""

import torch
from torch import Tensor

from minidiff.course.checks.cases import Draw
from minidiff.course.checks.exercise import Bug, exercise


def start(times: Tensor, strength: float, mean: Tensor, scaling: float, eps: Tensor) -> dict[str, Tensor]:
    left = times[_steps(times) - int(_steps(times) * strength) :]
    return {"times": left, "x": _noised(scaling * mean, eps, left[0])}


def _steps(times: Tensor) -> int:
    return len(times) - 1


def _noised(z: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """On the flow schedule, alpha = 1 - t and sigma = t, as the lesson's model has it."""
    return (1 - t) * z + t * eps


def _left(times):
    """start with other times, (times, strength) -> those that are left; x follows from them."""

    def wrong(given, strength, mean, scaling, eps):
        left = times(given, strength)
        return {"times": left, "x": _noised(scaling * mean, eps, left[0])}

    return wrong


def _begins(x):
    """start with another x, (mean, scaling, eps, t) -> x."""

    def wrong(given, strength, mean, scaling, eps):
        left = start(given, strength, mean, scaling, eps)["times"]
        return {"times": left, "x": x(mean, scaling, eps, left[0])}

    return wrong


def _given(d: Draw):
    n = d.whole("n", 1, 10)
    times = torch.linspace(1, 0, n + 1, dtype=torch.float64) ** d.choose(
        "times", {"even times": 1.0, "uneven times": 1.7}
    )
    mean, eps = d.images(2)
    return (
        times * d.choose("first", [1.0, 0.98]),
        d.number_in("strength", 0, 1),
        3 * mean,
        d.choose("scaling", [0.4, 0.18215, 1.3]),
        eps,
    )


exercise(
    "l11_start",
    start,
    _given,
    (
        Bug(
            _begins(lambda mean, scaling, eps, t: _noised(mean, eps, t)),
            "a latent that was not scaled. The diffusion model expects latents of standard deviation 1.",
            "what `scaling` is for: the encoder's means are multiplied with it.",
            "the old picture shines through in hard colours, at any strength below 1.",
            "https://github.com/city96/SD-Latent-Upscaler/issues/4",
        ),
        Bug(
            _begins(lambda mean, scaling, eps, t: _noised(mean / scaling, eps, t)),
            "a division by the scaling, as before the decoder. After the encoder, you multiply.",
            "the sign between `mean` and `scaling`.",
            "burst colours: at 0.18215 the latent is thirty times too large.",
            "https://github.com/CUHK-AIM-Group/Endora/issues/6",
        ),
        Bug(
            _begins(lambda mean, scaling, eps, t: scaling * _noised(mean, eps, t)),
            "noise that was scaled as well. Its standard deviation is 1 already.",
            "the bracket: scale first, then add the noise.",
            "smooth, empty areas: there is less noise than the time says.",
        ),
        Bug(
            _left(lambda times, strength: times[int(_steps(times) * strength) :]),
            "the strength the wrong way round: it says how much of sampling is left, not how much is left out.",
            "the index: the more strength, the earlier it begins.",
            "a small strength that changes everything, and a great one that changes nothing.",
            "https://github.com/mflux-community/mflux/issues/86",
        ),
        Bug(
            _left(lambda times, strength: times[: int(_steps(times) * strength) + 1]),
            "the first part of the steps in place of the last: sampling never reaches a clean picture.",
            "which side of the index you keep.",
            "noise that is left over at the end.",
        ),
        Bug(
            _left(lambda times, strength: times[-int(_steps(times) * strength) :]),
            "one time too few: n steps have n + 1 times.",
            "how many times there are: one more than steps.",
            "there is hardly any effect; sampling is a step shorter, and at strength 1 it does not start from pure noise.",
        ),
        Bug(
            _left(lambda times, strength: times[-int(len(times) * strength) - 1 :]),
            "the number of times, where the number of steps is asked for.",
            "what is multiplied with the strength.",
            "pictures that differ a little from those of others with the same numbers.",
        ),
        Bug(
            _left(lambda times, strength: times[_steps(times) - round(_steps(times) * strength) :]),
            "a number of steps that was rounded to the nearest; it is cut off.",
            "`round`, where `int` is asked for.",
            "pictures that differ from those of others, at some strengths only.",
        ),
        Bug(
            _left(lambda times, strength: torch.linspace(strength, 0, len(times), dtype=torch.float64)),
            "all steps, squeezed into a shorter interval. That works as well, but the exercise wants the last ones of the grid.",
            "what you return as times: some of those that were given.",
            "about the same pictures, for more work.",
        ),
        Bug(
            _left(lambda times, strength: times[times <= strength]),
            "the strength taken for a time. It is a fraction of the steps, which differs from a time where they are uneven.",
            "what the strength is compared with.",
            "a strength that means something else on every grid.",
        ),
        Bug(
            _begins(lambda mean, scaling, eps, t: scaling * mean + t * eps),
            "noise that was added without the picture being dimmed: alpha is missing.",
            "what the latent is multiplied with.",
            "washed-out pictures: the network takes what is too much for content.",
        ),
        Bug(
            _begins(lambda mean, scaling, eps, t: t * scaling * mean + (1 - t) * eps),
            "picture and noise exchanged: alpha is 1 - t.",
            "which of the two is multiplied with t.",
            "the greater the strength, the more of the old picture.",
        ),
        Bug(
            _begins(lambda mean, scaling, eps, t: (1 - t) * scaling * mean + t**0.5 * eps),
            "the root of sigma.",
            "what the noise is multiplied with: sigma is the factor itself.",
            "grain that is left over.",
        ),
        Bug(
            _begins(lambda mean, scaling, eps, t: scaling * mean),
            "a latent without noise. The network expects some, and removes what is not there.",
            "x: it has to be noised to the first time that is left.",
            "smooth, empty areas.",
        ),
        Bug(
            _begins(lambda mean, scaling, eps, t: eps),
            "noise alone: that is text to image.",
            "where `mean` comes in.",
            "pictures that are unrelated to the one you began with.",
        ),
        Bug(
            _begins(lambda mean, scaling, eps, t: _noised(scaling * mean, eps[:1], t)),
            "the same noise for all pictures of the batch.",
            "an index at eps that is not needed.",
            "the same blots in every picture of a batch.",
        ),
        Bug(
            lambda times, strength, mean, scaling, eps: {
                "times": start(times, strength, mean, scaling, eps)["times"],
                "x": _noised(scaling * mean, eps, times[0]),
            },
            "a picture that was noised to the first of all times.",
            "at which time you noise: the first of those that are left.",
            "grain that no step takes away.",
        ),
    ),
    returns="a dict with `times`, (k + 1,), and `x`, (B, c, h, w)",
    points=2,
)
