"""Exercises of lesson 06, colour: bytes to pictures, mirrors, and budgets. The others are in l06_scale.py."""

from collections.abc import Callable

import torch
from torch import Tensor

from minidiff.course.checks.cases import Draw
from minidiff.course.checks.exercise import Bug, exercise

# Records of bytes ---------------------------------------------------------------------------


def records(raw: Tensor, side: int) -> Tensor:
    return _pixels(raw, side).double() / 127.5 - 1


def _pixels(raw: Tensor, side: int) -> Tensor:
    """The bytes without their labels, as planes (N, 3, side, side)."""
    return raw.reshape(-1, 1 + 3 * side**2)[:, 1:].reshape(-1, 3, side, side)


def _records_given(d: Draw):
    (n,), side = d.sizes("N", N=(1, 3)), d.whole("side", 1, 3)
    return d.uniform(0, 255, n * (1 + 3 * side**2), digits=0).to(torch.uint8), side


exercise(
    "l06_records",
    records,
    _records_given,
    (
        Bug(
            lambda raw, side: (
                (raw.reshape(-1, 1 + 3 * side**2)[:, 1:].reshape(-1, side, side, 3).permute(0, 3, 1, 2) / 127.5) - 1
            ),
            "bytes read as red, green, blue, red, green, blue, pixel by pixel, as image files often have them.",
            "the order in which you unfold the 3,072: here all of red comes first.",
            "a gray mosaic of nine small pictures, three beside three, with coloured fringes.",
            "https://github.com/Trusted-AI/adversarial-robustness-toolbox/issues/2101",
        ),
        Bug(
            lambda raw, side: records(raw, side).permute(0, 2, 3, 1),
            "the channels as the last axis, (N, H, W, C), which is what matplotlib wants; torch wants (N, C, H, W).",
            "the order of the axes in the result.",
            "there is no visible effect yet; but a network for 3 channels raises an error, or takes rows for colours where the sizes happen to fit.",
            "https://github.com/irom-princeton/dppo/issues/54",
        ),
        Bug(
            lambda raw, side: raw.reshape(-1, 1 + 3 * side**2)[:, :-1].reshape(-1, 3, side, side) / 127.5 - 1,
            "records whose label was kept, and whose last byte was dropped instead.",
            "which byte of a record you leave out: the first.",
            "everything shifted by one pixel, with a dark dot in the upper left corner of the red plane.",
            "https://github.com/tensorflow/models/pull/2024",
        ),
        Bug(
            lambda raw, side: (
                raw[1 : 1 + 3 * side**2 * (raw.numel() // (3 * side**2))].reshape(-1, 3, side, side) / 127.5 - 1
            ),
            "a label taken off once, at the beginning of the file; every record has one.",
            "the order of two steps: first cut the bytes into records, then take the label off each.",
            "the first picture is right, and each one after it is shifted by one more pixel.",
        ),
        Bug(
            lambda raw, side: _pixels(raw, side) / 255,
            "pictures in [0, 1]; noise is symmetric around 0, and pictures should be too.",
            "the scaling at the end.",
            "washed-out samples that are never darker than gray.",
            "https://github.com/zengbohan0217/FADM/issues/2",
        ),
        Bug(
            lambda raw, side: _pixels(raw, side).view(torch.int8).double() / 127.5 - 1,
            "signed bytes: everything from 128 on has become negative.",
            "the dtype in which the bytes were read: uint8, not int8.",
            "bright places turn black, as in an overexposed negative.",
            "https://github.com/NVlabs/InstantSplat/pull/119",
        ),
        Bug(
            lambda raw, side: _pixels(raw, side) * 2 / 255 - 1,
            "arithmetic in bytes: times 2 overflows from 128 on, and starts anew at 0.",
            "what happens before the numbers are floats: change the dtype first.",
            "bright places turn black, and their surroundings show false edges.",
            "https://github.com/LCAV/LenslessPiCam/pull/173",
        ),
        Bug(
            lambda raw, side: records(raw, side).flip(1),
            "blue, green, red: the planes in reverse order.",
            "the order of the planes: red is first.",
            "blue faces and orange skies.",
            "https://github.com/TreB1eN/InsightFace_Pytorch/issues/35",
        ),
        Bug(
            lambda raw, side: records(raw, side).transpose(2, 3),
            "rows and columns swapped.",
            "how a plane is unfolded: the bytes of the upper row come first, from left to right.",
            "every picture lies on its side, mirrored.",
        ),
    ),
    returns="a tensor (N, 3, side, side)",
)


# Mirrors ------------------------------------------------------------------------------------


def mirror(pictures: Tensor, coins: Tensor) -> Tensor:
    return torch.where(coins[:, None, None, None], pictures.flip(3), pictures)


def _mirror_by(*dims: int) -> Callable:
    return lambda pictures, coins: torch.where(coins[:, None, None, None], pictures.flip(dims), pictures)


exercise(
    "l06_mirror",
    mirror,
    lambda d: (
        pictures := d.images(1)[0],
        d.choose(
            "coins",
            {
                "": d.labels(len(pictures), 2),
                "no heads": 0 * d.labels(len(pictures), 2),
                "all heads": 0 * d.labels(len(pictures), 2) + 1,
            },
        )
        > 0,
    ),
    (
        Bug(
            lambda pictures, coins: pictures.flip(3) if coins.any() else pictures,
            "one decision for the whole batch: if any coin is heads, all pictures are mirrored.",
            "the condition: every picture has a coin of its own.",
            "there is no visible effect, but the batches vary less than they could.",
        ),
        Bug(
            lambda pictures, coins: pictures.flip(3) if coins[0] else pictures,
            "one decision for the whole batch, taken by the first coin.",
            "the condition: every picture has a coin of its own.",
            "there is no visible effect, but the batches vary less than they could.",
            "https://github.com/pytorch/vision/issues/8484",
        ),
        Bug(
            _mirror_by(2),
            "pictures turned upside down: the rows were reversed, not the columns.",
            "the axis: in (B, C, H, W) left and right are the last one.",
            "aeroplanes on their backs, and cars with their wheels in the air.",
            "https://github.com/libffcv/ffcv/pull/213",
        ),
        Bug(
            _mirror_by(1),
            "channels reversed, red for blue.",
            "the axis: in (B, C, H, W) left and right are the last one.",
            "blue dogs before an orange sky.",
        ),
        Bug(
            _mirror_by(2, 3),
            "a half turn: rows and columns are both reversed.",
            "the axes: only the last one is reversed.",
            "things that hang from the ceiling.",
        ),
        Bug(
            lambda pictures, coins: mirror(pictures, ~coins),
            "coins read the wrong way round: tails are mirrored, heads are left.",
            "which of the two cases a coin that is True stands for.",
            "there is no visible effect with a fair coin.",
        ),
        Bug(
            lambda pictures, coins: pictures.flip(3),
            "every picture mirrored, whatever its coin says.",
            "the argument `coins`: it is not used.",
            "a data set that is no larger than before, only mirrored; writing in it can no longer be read.",
            "https://github.com/tom-roddick/mono-semantic-maps/issues/6",
        ),
        Bug(
            lambda pictures, coins: pictures[coins].flip(3),
            "only the mirrored pictures; the others have got lost.",
            "the result: it has as many pictures as came in, in the same order.",
            "batches of changing size, and labels that belong to other pictures.",
        ),
        Bug(
            lambda pictures, coins: torch.cat([pictures[~coins], pictures[coins].flip(3)]),
            "pictures in another order: first those that were left, then those that were mirrored.",
            "the order of the result: picture k still belongs to label k.",
            "prompts that have lost their meaning, since labels and pictures no longer belong together.",
        ),
        Bug(
            lambda pictures, coins: torch.where(coins[:, None, None, None], pictures.flip(0, 3), pictures),
            "pictures that are mirrored and have swapped positions: the batch was reversed too.",
            "the axes that are reversed: only the last one.",
            "prompts that have lost half of their meaning, since some labels belong to other pictures.",
            "https://github.com/lavi135246/pytorch-Learning-to-See-in-the-Dark/issues/11",
        ),
    ),
    returns="a tensor of the shape of `pictures`, (B, C, H, W)",
)


# Days ---------------------------------------------------------------------------------------


def days(steps: int, batch: int, trial_steps: int, trial_batch: int, trial_seconds: float) -> float:
    return steps * batch / (trial_steps * trial_batch / trial_seconds) / 86_400


def _days_given(d: Draw):
    same = d.choose("batches", {"": False, "a trial of the same batch": True})
    steps, batch, small = (
        round(10 ** d.random.uniform(3, 6)),
        d.random.choice([16, 64, 128]),
        d.random.choice([1, 8, 32]),
    )
    return steps, batch, d.random.randint(1, 30), batch if same else small, round(10 ** d.random.uniform(-1, 2), 2)


exercise(
    "l06_days",
    days,
    _days_given,
    (
        Bug(
            lambda steps, batch, n, small, seconds: steps * seconds / n / 86_400,
            "a step that costs the same whatever its batch: both batches are missing.",
            "the unit: what is nearly the same in both runs are pictures a second, not steps a second.",
            "there is no visible effect, but the run takes longer than you planned for.",
        ),
        Bug(
            lambda steps, batch, n, small, seconds: steps * batch * seconds / n / 86_400,
            "a trial of one picture a step: its batch is missing.",
            "how many pictures the trial has seen: its steps times its batch.",
            "there is no visible effect, but you never start a run that seems to take so long.",
        ),
        Bug(
            lambda steps, batch, n, small, seconds: steps * seconds / (n * small) / 86_400,
            "a full run of one picture a step: its batch is missing.",
            "how many pictures the full run sees: its steps times its batch.",
            "there is no visible effect, but the run takes longer than you planned for.",
        ),
        Bug(
            lambda steps, batch, n, small, seconds: steps * small * seconds / (n * batch) / 86_400,
            "the two batches swapped.",
            "which batch belongs to which number of steps.",
            "there is no visible effect, but the run takes longer than you planned for.",
        ),
        Bug(
            lambda steps, batch, n, small, seconds: steps * batch * seconds / small / 86_400,
            "a trial of a single step: the seconds were not divided by its steps.",
            "how many pictures the trial has seen: its steps times its batch.",
            "there is no visible effect, but you never start a run that seems to take so long.",
        ),
        Bug(
            lambda steps, batch, n, small, seconds: 24 * days(steps, batch, n, small, seconds),
            "hours.",
            "the last division: a day has 24 * 60 * 60 seconds.",
            "there is no visible effect, but you never start a run that seems to take so long.",
        ),
        Bug(
            lambda steps, batch, n, small, seconds: 1440 * days(steps, batch, n, small, seconds),
            "minutes.",
            "the last division: a day has 24 * 60 * 60 seconds.",
            "there is no visible effect, but you never start a run that seems to take so long.",
        ),
        Bug(
            lambda steps, batch, n, small, seconds: 86_400 * days(steps, batch, n, small, seconds),
            "seconds.",
            "the last division: a day has 24 * 60 * 60 seconds.",
            "there is no visible effect, but you never start a run that seems to take so long.",
        ),
        Bug(
            lambda steps, batch, n, small, seconds: days(steps, batch, n, small, seconds) / 1000,
            "seconds taken for milliseconds.",
            "the unit of the trial: `time.perf_counter()` gives seconds.",
            "there is no visible effect, but the run takes longer than you planned for.",
        ),
        Bug(
            lambda steps, batch, n, small, seconds: n * small / seconds * steps * batch / 86_400,
            "pictures a second multiplied where they should divide.",
            "the units: pictures divided by pictures a second are seconds.",
            "there is no visible effect, but the slower the machine, the shorter the estimate.",
        ),
    ),
    returns="one number",
)
