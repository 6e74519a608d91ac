"""The training loop: a generator, so that whoever calls it draws, logs and stops as they like."""

import copy
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from minidiff.diffusion import Prediction, Schedule
from minidiff.training.checkpoint import restore, save
from minidiff.training.distributed import average, shares, together
from minidiff.training.loss import TIMES, loss


@dataclass(frozen=True)
class TrainConfig:
    steps: int = 1000  # batches in all, also over several sittings
    lr: float = 2e-3  # the highest learning rate
    warmup: int = 100  # steps until it is reached; from there half a cosine down to 0
    weight_decay: float = 0.01
    clip: float = 1.0  # longest gradient
    drop: float = 0.1  # share of pictures whose condition is dropped
    times: str = "logit_normal"  # at which t, see TIMES
    weighting: str = "none"  # how much each t counts, see WEIGHTINGS
    ema: float = 0.999  # how slowly the average of the weights follows
    seed: int = 0
    save_every: int = 500  # steps between two checkpoints
    accumulate: int = 1  # parts that a batch is computed in, one after the other: more need less memory
    bf16: bool = False  # compute in bfloat16 where autocast sees fit; weights and their average stay float32
    compile: bool = False  # the network through torch.compile: a minute or so at first, faster steps after
    graphs: bool = False  # with compile, on an NVIDIA GPU: its work is recorded once and replayed (CUDA graphs)
    fused: bool = False  # AdamW in one kernel for all parameters

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")
        if self.accumulate < 1:
            raise ValueError(f"accumulate must be at least 1, got {self.accumulate}")
        if self.graphs and not self.compile:
            raise ValueError("graphs needs compile: it is torch.compile that records them")
        if self.graphs and self.accumulate > 1:  # pytorch issue 169545: the second part's gradients do not arrive
            raise ValueError(f"graphs needs a batch in one part, got accumulate {self.accumulate}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must lie between 0 and {2**32 - 1}, got {self.seed}")


class Progress(NamedTuple):
    """Where training stands after a step."""

    step: int  # steps done
    loss: Tensor  # of this step's batch, a scalar
    seen: int  # pictures seen
    net: nn.Module  # the averaged network, ready to draw with


class EMA:
    """An exponential moving average of a network's weights: what one draws with.

    In the first steps it follows faster, so that the random start is soon forgotten.
    """

    def __init__(self, net: nn.Module, decay: float):
        self.net = copy.deepcopy(net).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, net: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for mean, new in zip(self.net.state_dict().values(), net.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(new, 1 - decay)
            else:
                mean.copy_(new)


def train(
    net: nn.Module,
    schedule: Schedule,
    pred: Prediction,
    batches: Iterable[tuple[Tensor, Tensor | None]],
    config: TrainConfig = TrainConfig(),
    *,
    null: Tensor | int | None = None,
    folder: Path | None = None,
) -> Iterator[Progress]:
    """Train `net` in place, on the device it is on; yields after every step.

    batches: (x0, condition) from the first step on, the same at every call. null: the condition that
    means nothing, of the shape of one condition; None never drops any. folder: where checkpoints go, and
    where training goes on from if one is there. All randomness of a step is drawn for the whole batch and keyed by
    (seed, step), so that a run that was stopped and resumed equals one that was not, and a run of several
    processes (see distributed.py) one of a single process, up to the order of sums.
    """
    device = next(net.parameters()).device
    mode = "reduce-overhead" if config.graphs else None
    ask = together(torch.compile(net, mode=mode) if config.compile else net)
    ema = EMA(net, config.ema)
    fused = config.fused or None  # False would mean one parameter after the other, the slowest of PyTorch's three ways
    optimizer = torch.optim.AdamW(net.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=fused)
    done = restore(folder, net, ema.net, optimizer) if folder else 0
    net.train()
    try:
        for x0, condition in islice(batches, done, config.steps):
            for group in optimizer.param_groups:
                group["lr"] = config.lr * warm_up_and_decay(done, config)
            generator = torch.Generator().manual_seed(1_000_003 * config.seed + done)  # its seeds have 32 bits
            t = TIMES[config.times](len(x0), generator)
            eps = torch.randn(x0.shape, generator=generator)
            if null is not None:
                dropped = torch.rand(len(x0), generator=generator) < config.drop
                dropped = dropped.reshape(-1, *[1] * (condition.ndim - 1))
                condition = torch.where(dropped, null, condition)

            optimizer.zero_grad()
            value = 0.0
            for rows, share in shares(ask, len(x0), config.accumulate):  # all rows, unless the work is shared
                shown = None if condition is None else condition[rows].to(device)
                args = schedule, pred, x0[rows].to(device), shown, t[rows], eps[rows].to(device), config.weighting
                with torch.autocast(device.type, torch.bfloat16, enabled=config.bf16):
                    part = loss(ask, *args)
                (share * part).backward()
                value += share * part.detach()
            nn.utils.clip_grad_norm_(net.parameters(), config.clip)
            optimizer.step()
            ema.update(net, done)
            done += 1
            if folder and done % config.save_every == 0:
                save(folder, net, ema.net, optimizer, done, config.steps)
            yield Progress(done, average(value), done * len(x0), ema.net)
    except GeneratorExit:  # the caller stopped early, between two steps: nothing is lost
        pass
    if folder:
        save(folder, net, ema.net, optimizer, done, config.steps)


def warm_up_and_decay(step: int, config: TrainConfig) -> float:
    warm = min(1.0, (step + 1) / config.warmup)
    return warm * (1 + math.cos(math.pi * step / config.steps)) / 2
