"""Right answers to the exercises of lesson 10, each written in another way: all of them must pass."""

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from torch.distributions import Normal, kl_divergence


def picture_line_by_line(z, decode, scaling):
    x = decode((1 / scaling) * z)
    x = 0.5 + 0.5 * x
    return torch.where(x < 0, 0.0, torch.where(x > 1, 1.0, x))


def picture_clamped_first(z, decode, scaling):
    return decode(z.float() / scaling).clamp(-1, 1).add(1).div(2)


def picture_one_by_one(z, decode, scaling):
    return torch.cat([(decode(one / scaling).clip(-1, 1) + 1) / 2 for one in z.split(1)])


def loss_by_torch(x, mean, log_variance, noise, decode, weight):
    std = log_variance.exp().sqrt()
    price = kl_divergence(Normal(mean, std), Normal(torch.zeros_like(mean), torch.ones_like(std)))
    return F.l1_loss(decode(mean + std * noise), x) + weight * price.mean()


def loss_in_float32(x, mean, log_variance, noise, decode, weight):
    x, mean, log_variance, noise = (value.float() for value in (x, mean, log_variance, noise))
    variance = torch.exp(log_variance)
    price = -0.5 * torch.mean(1 + log_variance - mean**2 - variance)
    return torch.mean(torch.abs(x - decode(mean + variance**0.5 * noise))) + weight * price


def loss_picture_by_picture(x, mean, log_variance, noise, decode, weight):
    total = 0.0
    for k in range(len(x)):
        std = torch.exp(0.5 * log_variance[k : k + 1])
        back = decode(mean[k : k + 1] + std * noise[k : k + 1])[0]
        price = 0.5 * (mean[k].pow(2) + std[0].pow(2)) - 0.5 - 0.5 * log_variance[k]
        total += (back - x[k]).abs().mean() + weight * price.mean()
    return total / len(x)


def scaling_by_moments(mean, log_variance):
    second = (mean.square() + log_variance.exp()).mean()
    return (second - mean.mean() ** 2) ** -0.5


def scaling_by_two_samples(mean, log_variance):
    std = (log_variance / 2).exp()
    both = torch.cat([mean + std, mean - std])  # two points a std to either side have the same mean and variance
    return both.std().reciprocal()


def scaling_in_a_loop(mean, log_variance):
    middle, total = mean.mean(), 0.0
    for m, v in zip(mean.float(), log_variance.float(), strict=True):
        total += float(((m - middle) ** 2 + v.exp()).sum())
    return (mean.numel() / total) ** 0.5


def smaller_by_indexing(x, weight):
    return F.conv2d(x, weight, padding=1)[:, :, 1::2, 1::2]


def smaller_by_windows(x, weight):
    wide = torch.cat([x, torch.zeros_like(x[..., :1])], 3)
    wide = torch.cat([wide, torch.zeros_like(wide[:, :, :1])], 2)
    windows = wide.unfold(2, 3, 2).unfold(3, 3, 2)  # (B, C, H / 2, W / 2, 3, 3)
    return einsum(windows, weight, "b c h w i j, o c i j -> b o h w")


def smaller_with_two_more(x, weight):
    return F.conv2d(F.pad(x.float(), (0, 2, 0, 2)), weight.float(), stride=2)


def slerp_picture_by_picture(a, b, amount):
    out = []
    for one, other in zip(a, b, strict=True):
        cosine = (one * other).sum() / (one.norm() * other.norm())
        angle = torch.arccos(cosine)
        weights = torch.sin(torch.stack([(1 - amount) * angle, amount * angle])) / torch.sin(angle)
        out.append(weights[0] * one + weights[1] * other)
    return torch.stack(out)


def slerp_by_a_turn(a, b, amount):
    """Turn a toward what of b stands at a right angle to it, in vectors of length 1; then put the lengths back."""
    flat = [rearrange(x, "b c h w -> b (c h w)") for x in (a, b)]
    one, other = (F.normalize(x, dim=1) for x in flat)
    cosine = (one * other).sum(1, keepdim=True)
    up = F.normalize(other - cosine * one, dim=1)
    angle = cosine.acos()
    # in the plane of the two: slerp is linear in a and in b, so lengths are weights
    first = (((1 - amount) * angle).sin() / angle.sin()) * flat[0].norm(dim=1, keepdim=True) * one
    second = ((amount * angle).sin() / angle.sin()) * flat[1].norm(dim=1, keepdim=True)
    return (first + second * (angle.cos() * one + angle.sin() * up)).reshape(a.shape)


def slerp_in_float32(a, b, amount):
    flat_a, flat_b = a.float().flatten(1), b.float().flatten(1)
    angle = torch.cosine_similarity(flat_a, flat_b).acos().reshape(-1, 1, 1, 1)
    return (torch.sin(angle - amount * angle) * a + torch.sin(amount * angle) * b) / torch.sin(angle)


FORMS = {
    "l10_picture": [picture_line_by_line, picture_clamped_first, picture_one_by_one],
    "l10_loss": [loss_by_torch, loss_in_float32, loss_picture_by_picture],
    "l10_scaling": [scaling_by_moments, scaling_by_two_samples, scaling_in_a_loop],
    "l10_smaller": [smaller_by_indexing, smaller_by_windows, smaller_with_two_more],
    "l10_slerp": [slerp_picture_by_picture, slerp_by_a_turn, slerp_in_float32],
}
