"""Exercise of lesson 04, continued: memorisation."""

import torch
from torch import Tensor

from minidiff.course.checks.cases import Draw
from minidiff.course.checks.exercise import Bug, exercise

# Learned by heart? --------------------------------------------------------------------------


def distances(a: Tensor, b: Tensor) -> Tensor:
    return (a.flatten(1)[:, None] - b.flatten(1)).square().sum(-1).sqrt()  # (N, M)


def _near(queries: Tensor, pool: Tensor) -> Tensor:
    return distances(queries, pool).min(1).values


def memorisation(queries: Tensor, train: Tensor, heldout: Tensor) -> Tensor:
    return _near(queries, train).mean() / _near(queries, heldout).mean()


def _memorisation_given(d: Draw):
    n, m, k, *shape = d.sizes("N M K C H W", K=(1, 5))
    queries, train, heldout = (d.normal(size, *shape) for size in (n, m, k))
    if n > 1 and d.choose("train", {"": False, "train holds one of the queries": True}):
        train[-1] = queries[0]
    return queries, train, heldout


exercise(
    "l04_memorisation",
    memorisation,
    _memorisation_given,
    (
        Bug(
            lambda queries, train, heldout: 1 / memorisation(queries, train, heldout),
            "the ratio upside down.",
            "which of the two is divided by which: copies should give a small number.",
            "a set of copies gets an enormous number instead of one near 0.",
        ),
        Bug(
            lambda queries, train, heldout: (_near(queries, train) / _near(queries, heldout)).mean(),
            "the mean of the ratios, not the ratio of the means.",
            "the order: first the two means, then one division.",
            "one picture with a held-out twin decides the whole number.",
            "https://github.com/vincentarelbundock/marginaleffects/pull/1121",
        ),
        Bug(
            lambda queries, train, heldout: _near(train, queries).mean() / _near(heldout, queries).mean(),
            "the nearest generated picture for each real one: the minimum goes along the wrong axis.",
            "the axis of the minimum, which should leave one number for each query.",
            "a single copy among a thousand pictures changes nothing, and 55,000 training digits are averaged.",
        ),
        Bug(
            lambda queries, train, heldout: distances(queries, train).mean() / distances(queries, heldout).mean(),
            "the mean distance to all pictures, not to the nearest.",
            "the operation on each row of distances: a minimum.",
            "always about 1, for copies too.",
        ),
        Bug(
            lambda queries, train, heldout: distances(queries, train).min() / distances(queries, heldout).min(),
            "the smallest distance of all: one pair decides.",
            "the minimum: take it within each row, then the mean of the rows.",
            "0 as soon as a single picture is a copy.",
        ),
        Bug(
            lambda queries, train, heldout: (
                _near(queries, train).square().mean() / _near(queries, heldout).square().mean()
            ),
            "squared distances: the root is missing.",
            "the distance of two pictures, which ends with a root.",
            "every ratio is pushed away from 1, so that small differences look large.",
            "https://github.com/facebookresearch/faiss/issues/192",
        ),
        Bug(
            lambda queries, train, heldout: _near(queries, train).mean(),
            "the distance to the training pictures alone, with nothing to compare it to.",
            "the held-out pictures, which your answer does not use.",
            "smooth pictures seem copied, since they are near to everything.",
        ),
        Bug(
            lambda queries, train, heldout: _near(queries, train).mean() / _near(heldout, train).mean(),
            "the held-out pictures in place of the queries in the denominator: how near *they* are to train.",
            "the denominator: again the distances of the queries.",
            "a model whose pictures are dull and near to everything looks like a copier.",
        ),
        Bug(
            lambda queries, train, heldout: (
                _near(queries, train).mean() / _near(queries, torch.cat([train, heldout])).mean()
            ),
            "training pictures among the held-out ones: judged on the training split.",
            "the second pool, in which no training picture may be.",
            "always close to 1, for copies too.",
        ),
        Bug(
            lambda queries, train, heldout: (_near(queries, train) < _near(queries, heldout)).double().mean(),
            "the fraction of pictures that are nearer to train than to held-out.",
            "the comparison: means were asked for, not a vote.",
            "the larger of the two pools wins the vote, whatever the model does.",
        ),
    ),
    returns="one number",
    points=2,
)
