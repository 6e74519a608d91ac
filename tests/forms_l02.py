"""Right answers to the exercises of lesson 02, each written in another way: all of them must pass."""

import copy

import torch
import torch.nn.functional as F
from einops import einsum, rearrange, reduce


def loss_by_pytorch(net, x0, eps, t, alpha, sigma):
    x = alpha * x0 + sigma * eps
    return F.mse_loss(net(x, t), eps)


def loss_picture_by_picture(net, x0, eps, t, alpha, sigma):
    total = 0.0
    for i in range(len(x0)):
        x = alpha[i : i + 1] * x0[i : i + 1] + sigma[i : i + 1] * eps[i : i + 1]
        total = total + ((net(x, t[i : i + 1]) - eps[i : i + 1]) ** 2).mean()
    return total / len(x0)


def loss_in_float32(net, x0, eps, t, alpha, sigma):
    x0, eps, t, alpha, sigma = (value.float() for value in (x0, eps, t, alpha, sigma))
    return reduce((eps - net(torch.lerp(eps * sigma, x0 + eps * sigma, alpha), t)) ** 2, "b c h w -> ", "mean")


@torch.compile
def x0_from_eps_compiled(x, eps_hat, alpha, sigma):
    return (x - sigma * eps_hat) / alpha


def x0_from_eps_by_ratio(x, eps_hat, alpha, sigma):
    return x / alpha - eps_hat * (sigma / alpha)


def x0_from_eps_by_library(x, eps_hat, alpha, sigma):
    from minidiff.diffusion import EPS, to_x0

    return to_x0(EPS, eps_hat, x, alpha, sigma)


def x0_from_eps_in_float32(x, eps_hat, alpha, sigma):
    return (alpha.float() ** -1) * (x.float() - sigma.float() * eps_hat.float())


def x0_from_v_by_eps(x, v, alpha, sigma):
    eps_hat = sigma * x + alpha * v
    return (x - sigma * eps_hat) / alpha


def x0_from_v_by_angle(x, v, alpha, sigma):
    angle = torch.atan2(sigma, alpha)
    return torch.cos(angle) * x - torch.sin(angle) * v


def x0_from_v_picture_by_picture(x, v, alpha, sigma):
    return torch.stack(
        [float(alpha[i % len(alpha)]) * x[i] - float(sigma[i % len(sigma)]) * v[i] for i in range(len(x))]
    )


def best_guess_by_library(x, points, alpha, sigma):
    share = torch.softmax(-(torch.cdist(x, alpha * points) ** 2) / (2 * sigma**2), dim=-1)
    return einsum(share, points, "b n, n d -> b d")


def best_guess_in_loops(x, points, alpha, sigma):
    rows = []
    for row in x:
        weights = torch.stack([torch.exp(-((row - alpha * p) ** 2).sum() / (2 * sigma**2)) for p in points])
        rows.append(sum(w * p for w, p in zip(weights, points, strict=True)) / weights.sum())
    return torch.stack(rows)


def best_guess_in_float32(x, points, alpha, sigma):
    x, points = x.float(), points.float()
    distance = reduce((rearrange(x, "b d -> b 1 d") - alpha * points) ** 2, "b n d -> b n", "sum")
    share = (-distance / sigma**2 / 2).exp()
    return (share / share.sum(1, keepdim=True)) @ points


def ema_in_place(begin, n, decay):
    weights, training_step = begin()
    mean = copy.deepcopy(weights)
    for _ in range(n):
        training_step()
        for name, weight in weights.items():
            mean[name].lerp_(weight, 1 - decay)
    return mean


def ema_by_sum(begin, n, decay):
    """Written out: weights k steps old count decay**k * (1 - decay), and the start what is left."""
    weights, training_step = begin()
    history = [{name: weight.clone() for name, weight in weights.items()}]
    for _ in range(n):
        training_step()
        history.append({name: weight.clone() for name, weight in weights.items()})
    shares = [decay**n] + [(1 - decay) * decay ** (n - k) for k in range(1, n + 1)]
    return {name: sum(s * h[name] for s, h in zip(shares, history, strict=True)) for name in weights}


def ema_in_float32(begin, n, decay):
    weights, training_step = begin()
    mean = {name: weight.float() + 0 for name, weight in weights.items()}
    while n:
        training_step()
        n -= 1
        for name in mean:
            mean[name] = mean[name] + (1 - decay) * (weights[name].float() - mean[name])
    return mean


FORMS = {
    "l02_loss": [loss_by_pytorch, loss_picture_by_picture, loss_in_float32],
    "l02_x0_from_eps": [x0_from_eps_by_ratio, x0_from_eps_by_library, x0_from_eps_in_float32, x0_from_eps_compiled],
    "l02_x0_from_v": [x0_from_v_by_eps, x0_from_v_by_angle, x0_from_v_picture_by_picture],
    "l02_best_guess": [best_guess_by_library, best_guess_in_loops, best_guess_in_float32],
    "l02_ema": [ema_in_place, ema_by_sum, ema_in_float32],
}
