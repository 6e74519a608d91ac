"""Exercises of lesson 12 that are about several processes: their gradients, and who visits which picture."""

from collections.abc import Callable

import torch
from torch import Tensor

from minidiff.course.checks.cases import Draw
from minidiff.course.checks.exercise import Bug, exercise

# Gradients of several processes -------------------------------------------------------------


def gradient(gradients: Tensor, pictures: Tensor) -> Tensor:
    return (gradients * pictures[:, None]).sum(0) / pictures.sum()


def _gradient_given(d: Draw):
    n, size = d.sizes("N D", N=(1, 4))
    pictures = d.choose("pictures", {"": d.labels(n, 5) + 1, "as many images each": d.labels(1, 5).repeat(n) + 1})
    return d.normal(n, size), pictures


exercise(
    "l12_gradient",
    gradient,
    _gradient_given,
    (
        Bug(
            lambda gradients, pictures: gradients.sum(0),
            "gradients that were added up; each is a mean already, and the mean of the whole batch is no larger.",
            "what you divide by.",
            "the same as a learning rate that grows with the number of GPUs: grain, and from some number on only noise.",
            "https://github.com/TianhongDai/hindsight-experience-replay/issues/4",
        ),
        Bug(
            lambda gradients, pictures: gradients.mean(0),
            "a plain mean, as if all had equally many pictures. Whoever has few of them gives each too much weight.",
            "the argument `pictures`: it is not used.",
            "there is no visible effect, but the run on two GPUs differs from the run on one.",
            "https://github.com/ml-explore/mlx-lm/pull/1413",
        ),
        Bug(
            lambda gradients, pictures: gradient(gradients, pictures) / len(pictures),
            "gradients that were averaged twice.",
            "what you divide by: the pictures of all, and nothing after that.",
            "the same as a learning rate that shrinks with the number of GPUs: more of them, and it learns no faster.",
            "https://github.com/sanderwood/bgpt/issues/5",
        ),
        Bug(
            lambda gradients, pictures: (gradients * pictures[:, None]).sum(0),
            "a sum over all pictures that was not divided by their number.",
            "what you divide by.",
            "noise, unless the gradient is clipped: then there is no visible effect, but the learning rate means nothing.",
        ),
        Bug(
            lambda gradients, pictures: (gradients * pictures[:, None]).mean(0),
            "a sum over all pictures, divided by the number of processes.",
            "what you divide by: the pictures of all.",
            "noise, unless the gradient is clipped.",
        ),
        Bug(
            lambda gradients, pictures: gradients[0],
            "the first process's gradient; the others are ignored.",
            "the first axis of `gradients`: there is a row for each process.",
            "eight GPUs that learn what one would, each something else.",
        ),
        Bug(
            lambda gradients, pictures: gradient(gradients, 1 / pictures),
            "weights the wrong way round: who has more pictures counts less.",
            "which way a weight grows.",
            "there is no visible effect where all have equally many.",
        ),
    ),
    returns="a tensor (D)",
    points=2,
)


# Who visits which picture -------------------------------------------------------------------


def visits(shuffled: Callable[[int], Tensor], seed: int, epoch: int, batch: int, rank: int, world: int) -> Tensor:
    return _visits(shuffled(seed + epoch), batch, rank, world)


def _visits(order: Tensor, batch: int, rank: int, world: int) -> Tensor:
    mine = batch // world
    return _batches(order, batch)[:, rank * mine : (rank + 1) * mine]


def _batches(order: Tensor, batch: int) -> Tensor:
    return order[: len(order) // batch * batch].reshape(-1, batch)


def _shuffles(n: int) -> Callable[[int], Tensor]:
    return lambda seed: torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def _own_part(shuffled, seed, epoch, batch, rank, world):
    part = _batches(shuffled(seed + epoch), batch).flatten().chunk(world)[rank]
    return part.reshape(-1, batch // world)


def _tail_twice(shuffled, seed, epoch, batch, rank, world):
    mine = _visits(shuffled(seed + epoch), batch, rank, world).flatten()
    return mine[: len(mine) // batch * batch].reshape(-1, batch // world)


def _overlapping(shuffled, seed, epoch, batch, rank, world):
    return _batches(shuffled(seed + epoch), batch)[:, rank : rank + batch // world]


def _visits_given(d: Draw):
    world = d.whole("world", 1, 3)
    batch = world * d.whole("batch / world", 1, 3)
    n = batch * d.random.randint(1, 3) + d.random.randrange(batch)
    return _shuffles(n), d.random.randint(0, 9), d.random.randint(0, 5), batch, d.whole("rank", 0, world - 1), world


exercise(
    "l12_visits",
    visits,
    _visits_given,
    (
        Bug(
            lambda shuffled, seed, epoch, *rest: _visits(shuffled(seed), *rest),
            "a seed that forgets the epoch: every epoch has the same order, and the same few pictures are always left out.",
            "the seed that you hand to `shuffled`.",
            "there is hardly any effect; a little more is memorised.",
            "https://github.com/lucidrains/DALLE-pytorch/pull/230",
        ),
        Bug(
            lambda shuffled, seed, epoch, *rest: _visits(shuffled(epoch), *rest),
            "the epoch alone as the seed: every run has the same order, whatever its seed.",
            "the seed that you hand to `shuffled`.",
            "two runs that were to differ, and are more alike than they should be.",
            "https://github.com/open-mmlab/mmagic/pull/815",
        ),
        Bug(
            lambda shuffled, seed, epoch, batch, rank, world: _visits(
                shuffled(seed + epoch + rank), batch, rank, world
            ),
            "a shuffling of its own in each process: their slices are no parts of one order, and overlap.",
            "the seed that you hand to `shuffled`: all processes need the same.",
            "there is hardly any effect: some pictures come twice in an epoch, others not at all.",
            "https://github.com/karpathy/llm.c/issues/792",
        ),
        Bug(
            lambda shuffled, seed, epoch, batch, rank, world: _batches(shuffled(seed + epoch), batch),
            "the whole batch in every process: all do the same work.",
            "the arguments `rank` and `world`: they are not used.",
            "there is no visible effect, but eight GPUs take as long as one.",
            "https://github.com/karpathy/llama2.c/issues/522",
        ),
        Bug(
            lambda shuffled, seed, epoch, batch, rank, world: _visits(shuffled(seed + epoch), batch, 0, world),
            "the first process's slice in every process.",
            "the argument `rank`: it is not used.",
            "there is hardly any effect: the batch is smaller than it seems, and most pictures are left out of the epoch.",
        ),
        Bug(
            lambda shuffled, seed, epoch, batch, rank, world: _visits(
                shuffled(seed + epoch), batch * world, rank, world
            ),
            "a batch for each process; here `batch` is what all of them have together.",
            "what the batch is divided by.",
            "there is no visible effect, but the batch grows with the number of GPUs, and the learning rate no longer fits it.",
            "https://github.com/pytorch/vision/issues/3938",
        ),
        Bug(
            _own_part,
            "a part of the epoch for each process, where it should be a part of each batch.",
            "what is cut first: batches of all, then slices of a batch.",
            "there is no visible effect, but a step on two GPUs has other pictures than the same step on one.",
        ),
        Bug(
            lambda shuffled, seed, epoch, batch, rank, world: _batches(shuffled(seed + epoch), batch)[:, rank::world],
            "every k-th row of a batch, not a slice of it. The batches are right, but the rows are not the ones asked for.",
            "the slice.",
            "there is no visible effect, but code that draws noise for the whole batch and takes a slice pairs it with other pictures.",
        ),
        Bug(
            _overlapping,
            "slices that overlap: each begins one row after the last, not where the last one ends.",
            "where the slice begins: at rank times its length.",
            "there is hardly any effect: some pictures count twice, others are left out.",
        ),
        Bug(
            _tail_twice,
            "a tail that is cut off twice: once of the epoch, and again of this process's part of it.",
            "how often you round down.",
            "there is hardly any effect: some more pictures are left out in every epoch.",
            "https://github.com/modelscope/ms-swift/pull/9907",
        ),
        Bug(
            lambda shuffled, seed, epoch, *rest: _visits(torch.arange(len(shuffled(seed))), *rest),
            "pictures in the order in which they lie on the disk.",
            "the argument `shuffled`: it is to be called.",
            "where they lie class by class, a network that knows only the last class it has seen.",
            "https://github.com/speechbrain/speechbrain/issues/1335",
        ),
    ),
    returns="a table of whole numbers (steps, batch / world)",
    points=2,
)
