"""What can be measured about images, mostly in a space of features that `judges` has. Tensors in, numbers out."""

from collections.abc import Callable

import torch
from torch import Tensor


def frechet(a: Tensor, b: Tensor) -> float:
    """The Frechet distance between two clouds of features, (N, D) and (M, D), taken as Gaussians.

    |mean_a - mean_b|^2 + trace(A + B - 2 (A B)^(1/2)). Dowson and Landau 1982; Heusel et al. 2017.
    It grows as N shrinks: compare at equal N. Raises ValueError for fewer than two rows.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError("a covariance needs at least two pictures on each side")
    a, b = a.double(), b.double()
    cov_a, cov_b = (torch.atleast_2d(cloud.T.cov()) for cloud in (a, b))  # of one feature, cov is a number
    # the trace of the root of A B is that of the symmetric root(A) B root(A), which eigh can do
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross)


def floor(features: Tensor, n: int, draws: int = 20, seed: int = 0) -> tuple[float, float]:
    """What n real images score against the other real ones: mean and standard deviation over draws.

    A generator that varies less than they do can come below it while n is small.
    """
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(features), generator=generator) for _ in range(draws)]
    scores = torch.tensor([frechet(features[order[:n]], features[order[n:]]) for order in orders])
    return float(scores.mean()), float(scores.std())


def bootstrap(measure: Callable[[Tensor], float], rows: Tensor, draws: int = 100, seed: int = 0) -> Tensor:
    """The measure of resamples of `rows` (N, ...), as many rows drawn with replacement: (draws,) in float64.

    Their standard deviation is the error that a measure has because N is finite. Efron 1979. The same seed draws the
    same rows: two sets made from the same prompts and noise are then compared pair by pair.
    """
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(len(rows), (draws, len(rows)), generator=generator)
    return torch.tensor([measure(rows[pick]) for pick in picks], dtype=torch.float64)


def precision_recall(real: Tensor, fake: Tensor, k: int = 5) -> tuple[float, float]:
    """How many of the fake lie where real ones are, and how many of the real where fake ones are.

    real (N, D), fake (M, D). A cloud is the union of balls around its points, each reaching to its point's k-th neighbour.
    Kynkaanniemi et al. 2019, section 2. Raises ValueError for clouds of k points or fewer.
    """
    if not 1 <= k < min(len(real), len(fake)):
        raise ValueError(f"k must lie between 1 and {min(len(real), len(fake)) - 1}, got {k}")

    def covered(points: Tensor, cloud: Tensor) -> float:
        reach = torch.cdist(cloud, cloud).kthvalue(k + 1, dim=1).values  # k + 1: the nearest is the point itself
        return float((torch.cdist(points, cloud) <= reach).any(1).double().mean())

    real, fake = real.double(), fake.double()
    return covered(fake, real), covered(real, fake)


def diversity(features: Tensor, labels: Tensor) -> float:
    """The mean distance between two pictures of a class; features (N, D), labels (N,). Raises ValueError without a pair."""
    total, pairs = 0.0, 0
    for label in labels.unique():
        distances = torch.pdist(features[labels == label].double())
        total, pairs = total + float(distances.sum()), pairs + len(distances)
    if not pairs:
        raise ValueError("no class has two pictures")
    return total / pairs


def nearest(queries: Tensor, pool: Tensor) -> tuple[Tensor, Tensor]:
    """The Euclidean distance from each query (N, ...) to the nearest of the pool (M, ...), and that one's row: (N,) each."""
    found = [torch.cdist(part, pool.flatten(1)).min(1) for part in queries.flatten(1).split(250)]
    return torch.cat([near.values for near in found]), torch.cat([near.indices for near in found])


def memorisation(queries: Tensor, train: Tensor, heldout: Tensor) -> float:
    """Mean distance to the nearest training image, over the same to the nearest held-out image.

    Images (N, C, H, W), or features. Far below what other real images get, the training set was memorised. The value
    itself depends on how large the two sets are.
    """
    return float(nearest(queries, train)[0].mean() / nearest(queries, heldout)[0].mean())


def calibration_error(confidence: Tensor, correct: Tensor, bins: int = 15) -> float:
    """The expected calibration error, in [0, 1]: 0 if of all answers given with 90 % confidence 90 % are right.

    confidence (N,) in [0, 1], correct (N,) bool. Bins have equal width. Guo et al. 2017, equation 3.
    """
    which = (confidence * bins).ceil().long().clamp(1, bins) - 1  # bins (0, 1/15], (1/15, 2/15], ...
    gap = torch.zeros(bins, dtype=torch.float64).index_add_(0, which, correct.double() - confidence.double())
    return float(gap.abs().sum() / len(confidence))
