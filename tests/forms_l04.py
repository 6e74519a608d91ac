"""Correct answers to lesson 04's exercises, each written differently from the course's own."""

import warnings

import numpy as np
import torch
from einops import rearrange, reduce


def accuracy_by_one_hot(answers, wanted, classes):
    asked = torch.nn.functional.one_hot(wanted, classes).float()  # (N, classes)
    hit = (answers == wanted).float()
    return hit @ asked / asked.sum(0)


def accuracy_by_confusion(answers, wanted, classes):
    table = torch.bincount(wanted * classes + answers, minlength=classes**2).reshape(classes, classes)
    return table.diagonal() / table.sum(1)


def accuracy_in_a_loop(answers, wanted, classes):
    shares = []
    for d in range(classes):
        pairs = [(a, w) for a, w in zip(answers.tolist(), wanted.tolist(), strict=True) if w == d]
        shares.append(sum(a == w for a, w in pairs) / len(pairs))
    return shares


def features_with_modes_restored(judge, pictures, size):
    before = judge.training
    judge.train(False)
    rows = []
    for first in range(0, len(pictures), size):
        with torch.inference_mode():
            rows.append(judge.features((pictures[first : first + size] - 0.5) / 0.5))
    judge.train(before)
    return torch.cat(rows).to(torch.float64)


def features_one_by_one(judge, pictures, size):
    judge = judge.eval()
    return torch.stack([judge.features(2 * picture[None].float() - 1)[0] for picture in pictures])


def memorisation_by_loop(queries, train, heldout):
    def nearest(pool):
        return sum(min(float((q - p).norm()) for p in pool) for q in queries)

    return nearest(train) / nearest(heldout)


def memorisation_in_float32(queries, train, heldout):
    rows = [rearrange(part.float(), "n c h w -> n (c h w)") for part in (queries, train, heldout)]
    near = [reduce(torch.cdist(rows[0], pool), "n m -> n", "min").mean() for pool in rows[1:]]
    return near[0] / near[1]


def memorisation_by_library(queries, train, heldout):
    from minidiff.evaluation import metrics

    return metrics.memorisation(queries, train, heldout)


def precision_by_topk(real, fake, k):
    apart = torch.cdist(real, real).fill_diagonal_(float("inf"))
    reach = apart.topk(k, dim=1, largest=False).values[:, -1]
    return ((torch.cdist(fake, real) - reach[None]).min(1).values <= 0).float().mean()


def precision_in_loops(real, fake, k):
    balls = []
    for i, centre in enumerate(real):
        others = sorted(float((centre - other).norm()) for j, other in enumerate(real) if j != i)
        balls.append((centre, others[k - 1]))
    inside = [any(float((point - centre).norm()) <= radius for centre, radius in balls) for point in fake]
    return np.mean(inside)


def precision_by_library(real, fake, k):
    from minidiff.evaluation import metrics

    return metrics.precision_recall(real, fake, k)[0]


def frechet_by_singular_values(a, b):
    """tr (AB)^(1/2) is the sum of the singular values of X Y^T, X and Y the centred points."""
    x, y = ((rows - rows.mean(0)) / (len(rows) - 1) ** 0.5 for rows in (a, b))
    cross = torch.linalg.svdvals(x @ y.T).sum()
    return (a.mean(0) - b.mean(0)).square().sum() + x.square().sum() + y.square().sum() - 2 * cross


def frechet_by_scipy(a, b):
    from scipy.linalg import sqrtm

    cov_a, cov_b = a.T.cov().numpy(), b.T.cov().numpy()
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a singular matrix is no reason to say so
        cross = sqrtm(cov_a + 1e-12 * np.eye(len(cov_a))) @ sqrtm(cov_b + 1e-12 * np.eye(len(cov_b)))
    return float((a.mean(0) - b.mean(0)).square().sum()) + np.trace(cov_a + cov_b) - 2 * np.linalg.svd(cross)[1].sum()


def frechet_by_numpy(a, b):
    a, b = a.numpy(), b.numpy()
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(cov_a)
    root = vectors @ np.diag(np.sqrt(values.clip(0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ cov_b @ root).clip(0)).sum()
    return np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(cov_a + cov_b) - 2 * cross


def frechet_by_library(a, b):
    from minidiff.evaluation import metrics

    return metrics.frechet(a, b)


FORMS = {
    "l04_accuracy": [accuracy_by_one_hot, accuracy_by_confusion, accuracy_in_a_loop],
    "l04_features": [features_with_modes_restored, features_one_by_one],
    "l04_memorisation": [memorisation_by_loop, memorisation_in_float32, memorisation_by_library],
    "l04_precision": [precision_by_topk, precision_in_loops, precision_by_library],
    "l04_frechet": [frechet_by_singular_values, frechet_by_numpy, frechet_by_library, frechet_by_scipy],
}
