"""Right answers to the exercises of lesson 06, each written in another way: all of them must pass."""

import copy
from fractions import Fraction

import numpy as np
import torch
from einops import rearrange


def records_by_numpy(raw, side):
    rows = raw.numpy().reshape(-1, 1 + 3 * side * side)
    planes = rows[:, 1:].astype(np.float32).reshape(len(rows), 3, side, side)
    return planes * 2 / 255 - 1


def records_one_by_one(raw, side):
    size, pictures = side * side, []
    for start in range(0, len(raw), 1 + 3 * size):
        planes = [raw[start + 1 + c * size : start + 1 + (c + 1) * size] for c in range(3)]
        pictures.append(torch.stack([plane.float().view(side, side) for plane in planes]))
    return (torch.stack(pictures) - 127.5) / 127.5


def records_by_einops(raw, side):
    bytes_ = rearrange(raw, "(n r) -> n r", r=3 * side**2 + 1)[:, 1:]
    return rearrange(bytes_ / 255, "n (c h w) -> n c h w", c=3, h=side) * 2 - 1


def records_as_nested_lists(raw, side):
    """A list of images, of lists of planes, of lists of rows of plain numbers."""
    rows = raw.reshape(-1, 1 + 3 * side**2)[:, 1:].tolist()
    value = [[byte / 127.5 - 1 for byte in row] for row in rows]
    plane = side * side
    return [
        [[row[c * plane + i * side : c * plane + (i + 1) * side] for i in range(side)] for c in range(3)]
        for row in value
    ]


def days_by_fractions(steps, batch, trial_steps, trial_batch, trial_seconds):
    seconds = Fraction(trial_seconds) * steps * batch / (trial_steps * trial_batch)
    return seconds / 86_400


def mirror_by_a_view(pictures, coins):
    """A numpy view with a negative stride."""
    out = pictures.numpy().copy()
    out[coins.numpy()] = out[coins.numpy(), :, :, ::-1]
    return out[:, :, :, ::-1][:, :, :, ::-1]


def mirror_in_place_of_a_copy(pictures, coins):
    pictures = pictures.clone()
    pictures[coins] = pictures[coins].flip(-1)
    return pictures


def mirror_one_by_one(pictures, coins):
    return torch.stack([p.flip(2) if c else p for p, c in zip(pictures, coins, strict=True)])


def mirror_by_index(pictures, coins):
    width = pictures.shape[3]
    columns = torch.arange(width).expand(len(pictures), -1)
    columns = torch.where(coins[:, None], width - 1 - columns, columns)
    return pictures.gather(3, columns[:, None, None, :].expand_as(pictures))


def days_by_hours(steps, batch, trial_steps, trial_batch, trial_seconds):
    seconds_a_picture = trial_seconds / trial_steps / trial_batch
    hours = seconds_a_picture * batch * steps / 3600
    return hours / 24


def days_by_tensors(steps, batch, trial_steps, trial_batch, trial_seconds):
    seconds_a_step = torch.tensor(trial_seconds / trial_steps) * batch / trial_batch
    return steps * seconds_a_step / (24 * 60 * 60)


def larger_by_ratio(t, s):
    ratio = s * t / (1 - t)
    return ratio / (1 + ratio)


def larger_by_library(t, s):
    from minidiff.diffusion import flow

    path = flow()
    return path.time_of(s * path.sigma(t) / path.alpha(t))


def larger_in_float32(t, s):
    t = t.float()
    return 1 - (1 - t) / (1 - t + s * t)


def album_by_library(begin, n, every, decay):
    weights, training_step, draw = begin()
    mean, pictures = copy.deepcopy(weights), []
    for step in range(n):
        training_step()
        for old, new in zip(mean.values(), weights.values(), strict=True):
            if old.is_floating_point():
                old.lerp_(new, 1 - decay)
            else:
                old.copy_(new)
        if (step + 1) % every == 0:
            pictures.append(draw(mean))
    return torch.stack(pictures)


def album_with_the_weights_put_back(begin, n, every, decay):
    weights, training_step, draw = begin()
    mean, pictures = {name: weight.clone() for name, weight in weights.items()}, []
    for _ in range(n // every):
        for _ in range(every):
            training_step()
            for name in mean:
                share = decay if weights[name].is_floating_point() else 0
                mean[name] = share * mean[name] + (1 - share) * weights[name]
        kept = {name: weight.clone() for name, weight in weights.items()}
        for name in weights:
            weights[name].copy_(mean[name])
        pictures.append(draw(weights).tolist())
        for name in weights:
            weights[name].copy_(kept[name])
    return pictures


FORMS = {
    "l06_records": [records_by_numpy, records_one_by_one, records_by_einops, records_as_nested_lists],
    "l06_mirror": [mirror_in_place_of_a_copy, mirror_one_by_one, mirror_by_index, mirror_by_a_view],
    "l06_days": [days_by_hours, days_by_tensors, days_by_fractions],
    "l06_larger": [larger_by_ratio, larger_by_library, larger_in_float32],
    "l06_album": [album_by_library, album_with_the_weights_put_back],
}
