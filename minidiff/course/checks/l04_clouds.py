"""Exercises of lesson 04, continued: what is measured of a whole cloud."""

from collections.abc import Callable

import torch
from torch import Tensor

from minidiff.course.checks.cases import Draw
from minidiff.course.checks.exercise import Bug, exercise
from minidiff.course.checks.l04_memory import distances

# Precision ----------------------------------------------------------------------------------


def reach(cloud: Tensor, k: int) -> Tensor:
    """How far each ball reaches: the distance to the k-th nearest other point, (N,)."""
    return distances(cloud, cloud).sort(1).values[:, k]  # [:, 0] is the point itself


def precision(real: Tensor, fake: Tensor, k: int) -> Tensor:
    return (distances(fake, real) <= reach(real, k)).any(1).double().mean()


def _precision_given(d: Draw):
    """Points on a grid: some lie on the border of a ball, and some are there twice."""
    n, m, size = d.sizes("N M D", N=(3, 7), M=(4, 8))
    k = d.whole("k", 1, n - 1)
    return d.uniform(-2, 2, n, size, digits=0), d.uniform(-3, 3, m, size, digits=0), min(k, 3)


exercise(
    "l04_precision",
    precision,
    _precision_given,
    (
        Bug(
            lambda real, fake, k: (
                (distances(fake, real) <= distances(real, real).sort(1).values[:, k - 1]).any(1).double().mean()
            ),
            "the point itself counted as its own nearest neighbour: every ball is one neighbour too small.",
            "the k-th smallest distance: the smallest in each row is 0, that to the point itself.",
            "at k = 1 precision is 0, or the fraction of copies; with more neighbours it is a little too low.",
            "https://github.com/satijalab/seurat/issues/2326",
        ),
        Bug(
            lambda real, fake, k: precision(fake, real, k),
            "recall: balls around the generated points, and the fraction of real ones in them.",
            "whose balls, and whose points: balls around the real ones here.",
            "a model that draws one good digit only gets the low number where it deserves the high one, and the reverse.",
            "https://github.com/toshas/torch-fidelity/issues/58",
        ),
        Bug(
            lambda real, fake, k: (distances(fake, real) <= reach(fake, k)[:, None]).any(1).double().mean(),
            "balls around the generated points, though it is the generated points that are counted.",
            "the radii: each real point has one, (N,), along the columns of your distances.",
            "scattered noise has large balls, and so a high precision.",
        ),
        Bug(
            lambda real, fake, k: (distances(fake, real) <= reach(real, k)).all(1).double().mean(),
            "points that lie in all balls at once.",
            "the operation over the balls: any of them is enough.",
            "0 as soon as there are two kinds of pictures.",
        ),
        Bug(
            lambda real, fake, k: (distances(fake, real) <= reach(real, k)).double().mean(),
            "the fraction of all pairs of point and ball, not of points.",
            "the operation over the balls: first any ball, then the mean.",
            "a number near 0 even for real digits.",
        ),
        Bug(
            lambda real, fake, k: (distances(fake, real) <= reach(real, k)).any(0).double().mean(),
            "coverage, the fraction of balls that hold a generated point: the axis is the other one.",
            "the axis of any: one truth for each generated point should be left.",
            "it behaves like recall: it falls when kinds of pictures are missing.",
        ),
        Bug(
            lambda real, fake, k: (distances(fake, real) <= reach(real, k).mean()).any(1).double().mean(),
            "one radius for all balls, the mean of their own.",
            "the radii: where real points are dense, balls should be small.",
            "thin regions lose their pictures, and dense ones let bad pictures pass.",
        ),
        Bug(
            lambda real, fake, k: (distances(fake, real).min(1).values <= reach(real, k).max()).double().mean(),
            "one radius for all balls, the largest.",
            "the radii: each ball has its own.",
            "a single outlier in the real data, and every picture passes.",
        ),
        Bug(
            lambda real, fake, k: (
                (distances(fake, real) <= distances(real, real).sort(1).values[:, 1 : k + 1].mean(1))
                .any(1)
                .double()
                .mean()
            ),
            "balls that reach to the mean of the k neighbours, not to the k-th.",
            "the radius: the k-th distance alone.",
            "precision that is a little too low. At k = 1 the two are the same.",
        ),
        Bug(
            lambda real, fake, k: (distances(fake, real) <= reach(real, k) / 2).any(1).double().mean(),
            "balls of half the size: the distance to the neighbour taken for a diameter.",
            "the radius: the ball reaches to the neighbour.",
            "far too low, for real digits too.",
        ),
        Bug(
            lambda real, fake, k: (distances(fake, real).square() <= reach(real, k)).any(1).double().mean(),
            "squared distances compared with a radius that is not squared.",
            "both sides of the comparison: the same power on each.",
            "a number that changes when all features are multiplied by ten.",
        ),
        Bug(
            lambda real, fake, k: (
                (distances(fake, real) <= reach(torch.cat([real, fake]), k)[: len(real)]).any(1).double().mean()
            ),
            "neighbours looked for among real and generated points together.",
            "the set in which the k-th neighbour is found: real points only.",
            "the more generated pictures there are, the smaller the balls.",
        ),
    ),
    returns="one number",
    points=2,
)


# The Frechet distance -----------------------------------------------------------------------


def frechet(
    a: Tensor, b: Tensor, *, cov: Callable = lambda x: x.T.cov(), factor=2.0, power=2, root: Callable | None = None
) -> Tensor:
    """The right answer, with places in which to plant a mistake."""
    cov_a, cov_b = cov(a), cov(b)
    cross = (root or _root)(cov_a, cov_b)
    return (a.mean(0) - b.mean(0)).norm() ** power + cov_a.trace() + cov_b.trace() - factor * cross


def _root(cov_a: Tensor, cov_b: Tensor) -> Tensor:
    return torch.linalg.eigvals(cov_a @ cov_b).real.clamp(min=0).sqrt().sum()


def _apart(**mistake) -> Callable:
    return lambda a, b: frechet(a, b, **mistake)


def _frechet_given(d: Draw):
    """Clouds that are turned and shifted; also of fewer points than dimensions."""
    n, m, size = d.sizes("N M D", N=(2, 8), M=(2, 8))
    scale = d.choose("spread", [1.0, 2.0, 0.3])
    return d.normal(n, size) @ d.normal(size, size) + d.normal(size), scale * d.normal(m, size) @ d.normal(size, size)


exercise(
    "l04_frechet",
    lambda a, b: frechet(a, b),
    _frechet_given,
    (
        Bug(
            _apart(cov=lambda x: x.T.cov(correction=0)),
            "a covariance divided by N, not by N - 1.",
            "how the covariance is made: `cov()` divides by N - 1, and so does `numpy.cov`, but not with `bias=True`.",
            "there is little effect with a thousand pictures; with few, sets of different size are treated differently.",
            "https://github.com/tqch/ddpm-torch/issues/11",
        ),
        Bug(
            _apart(cov=lambda x: x.T @ x / (len(x) - 1)),
            "a covariance without the mean taken out.",
            "how the covariance is made: subtract the mean of each feature first.",
            "a mean that is off is counted twice, and features far from 0 drown the rest.",
            "https://github.com/lisabug/guided-filter/issues/2",
        ),
        Bug(
            _apart(root=lambda a, b: (a @ b).clamp(min=0).sqrt().trace()),
            "a matrix product, but its root taken entry by entry.",
            "the last term: the eigenvalues are what the roots are taken of.",
            "a distance that depends on how the features are turned.",
        ),
        Bug(
            _apart(root=lambda a, b: _root(a, torch.eye(3, dtype=a.dtype)) * _root(b, torch.eye(3, dtype=b.dtype))),
            "the product of two traces where the trace of a product belongs.",
            "the last term: first multiply A and B, then take roots, then sum.",
            "numbers below 0.",
        ),
        Bug(
            _apart(root=lambda a, b: torch.linalg.eigvals(a @ b).real.clamp(min=0).sum()),
            "eigenvalues summed without their roots: the trace of AB.",
            "the last term: a root of each eigenvalue.",
            "numbers far below 0 where features vary a lot, and too large where they vary little.",
        ),
        Bug(
            _apart(root=lambda a, b: torch.linalg.eigvals(a @ b).real.clamp(min=0).sum().sqrt()),
            "one root of the sum; the sum of the roots was asked for.",
            "the last term: the root comes before the sum.",
            "real against real is far above 0, however many pictures there are.",
        ),
        Bug(
            _apart(factor=1.0),
            "a last term that is taken once; it needs the factor 2, as in (s - r)^2 = s^2 + r^2 - 2 s r.",
            "the factor in front of the root.",
            "real against real is far above 0, however many pictures there are.",
        ),
        Bug(
            _apart(factor=-2.0),
            "a last term that is added where it should be taken away.",
            "its sign.",
            "a distance of a set to itself of four times its variance.",
        ),
        Bug(
            _apart(factor=0.0),
            "the last term left out.",
            "the formula: A + B - 2 times the root.",
            "sets with little variety win.",
        ),
        Bug(
            _apart(power=1),
            "the distance of the means, not squared.",
            "the first term.",
            "small shifts count too much and large ones too little.",
        ),
        Bug(
            _apart(power=0),
            "the means left out, with a 1 in their place.",
            "the first term: the distance of the means, to the power of 2.",
            "never below 1.",
        ),
        Bug(
            lambda a, b: (a.mean(0) - b.mean(0)).square().sum(),
            "the means alone: the covariances are missing.",
            "the second half of the formula.",
            "a generator that always draws the same mean digit is perfect.",
        ),
        Bug(
            lambda a, b: frechet(a, b) - (a.mean(0) - b.mean(0)).square().sum(),
            "the covariances alone: the means are missing.",
            "the first term.",
            "pictures that are all shifted alike go unnoticed.",
        ),
        Bug(
            lambda a, b: (a.mean(0) - b.mean(0)).square().sum() + (a.std(0) - b.std(0)).square().sum(),
            "the formula of one dimension, feature by feature, as with a product and root taken entry by entry, (A * B).sqrt().",
            "the last term: `@` multiplies matrices; which feature goes with which is off the diagonal.",
            "a generator that shuffles features between its pictures gets a perfect score.",
            "https://github.com/bioinf-jku/TTUR/issues/12",
        ),
        Bug(
            lambda a, b: frechet(a, b).sqrt(),
            "the root of what was asked for.",
            "the last operation: both are called Frechet distance, and the field reports the one without the root.",
            "all differences look smaller than in papers.",
        ),
        Bug(
            lambda a, b: (
                (a.mean(0) - b.mean(0)).square().mean()
                + (a.T.cov().trace() + b.T.cov().trace() - 2 * _root(a.T.cov(), b.T.cov())) / a.shape[1]
            ),
            "the mean over the features instead of the sum.",
            "the sums: squared distances and traces add up.",
            "everything smaller by the number of features.",
        ),
    ),
    returns="one number",
    points=3,
)
