"""The one optimisation loop, for any loss: AdamW, warm-up and decay, gradient clipping, averaged weights, checkpoints."""

import copy
import math
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn

from minidiff import __version__
from minidiff.registry import UserError
from minidiff.training.checkpoint import RunFolder
from minidiff.training.distributed import average, batch_parts, is_first, my_rows, together

Net = TypeVar("Net", bound=nn.Module)
PATIENCE = 10  # steps in a row whose loss or gradient is not finite, until the run is given up


@dataclass(frozen=True)
class OptimConfig:
    steps: int = 1000  # batches in all, also over several sittings
    lr: float = 2e-3  # the highest learning rate
    warmup: int = 100  # steps until it is reached; from there half a cosine down to 0
    betas: tuple[float, float] = (0.9, 0.999)  # of AdamW
    weight_decay: float = 0.01
    clip: float = 1.0  # largest gradient norm
    ema: float = 0.999  # decay of the weights' moving average
    seed: int = 0
    save_every: int = 500  # steps between two checkpoints, at most
    save_seconds: float = 60.0  # and seconds between them, where steps take long
    accumulate: int = 1  # parts that a batch is computed in, one after the other: more need less memory
    bf16: bool = False  # compute in bfloat16 where autocast sees fit; weights and their average stay float32
    compile: bool = False  # the network through torch.compile: a minute or so at first, faster steps after
    graphs: bool = False  # with compile, on an NVIDIA GPU: its work is recorded once and replayed (CUDA graphs)
    fused: bool = False  # AdamW in one kernel for all parameters

    def __post_init__(self):
        for name in ("steps", "accumulate"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.graphs and not self.compile:
            raise UserError("graphs needs compile: it is torch.compile that records them")
        if self.graphs and self.accumulate > 1:  # pytorch issue 169545: the second part's gradients do not arrive
            raise UserError(f"graphs needs a batch in one part, got accumulate {self.accumulate}")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed must lie between 0 and {2**32 - 1}, got {self.seed}")


class Progress(NamedTuple, Generic[Net]):
    """The state of training after a step."""

    step: int  # steps done
    loss: Tensor  # of this step's batch, a scalar
    seen: int  # images seen
    net: Net  # the network with averaged weights, ready for sampling


class EMA(Generic[Net]):
    """An exponential moving average of a network's weights; faster at first, so that random ones are soon forgotten."""

    def __init__(self, net: Net, decay: float):
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


def optimise(
    net: Net, batches: Iterable[Any], examples: Callable[[Any, torch.Generator], tuple[Tensor | None, ...]],
    loss: Callable[..., Tensor], config: OptimConfig, *, folder: Path | None = None, about: dict | None = None,
    after: Callable[[], Any] = lambda: None,
) -> Generator[Progress[Net]]:  # fmt: skip
    """Train `net` in place, on the device it is on; yields after every step.

    batches: from the first step on, the same at every call, all of one size; or functions that make them, so that those
    before a checkpoint are not made again. examples(batch, generator): what the loss takes, each (B, ...) or None; all
    random numbers of a step are drawn here, for the whole batch, by a generator keyed by (seed, step). So a run that
    was stopped and resumed equals one that was not, and a run of several processes (see distributed.py) equals one of
    a single process, up to the order of sums. loss(net, *rows of the examples): a scalar, the mean over these rows.
    folder: where checkpoints go, and where training resumes if there is one. about: settings that a resumed run must
    share with its checkpoint. after: called after every update of the weights.

    A step whose loss or gradient is not finite is skipped; FloatingPointError after PATIENCE of them in a row.
    """
    device = next(net.parameters()).device
    mode = "reduce-overhead" if config.graphs else None
    wrapped = together(cast(nn.Module, torch.compile(net, mode=mode)) if config.compile else net)
    ema = EMA(net, config.ema)
    nets = nn.ModuleDict({"net": net, "ema": ema.net})
    how = {"weight_decay": config.weight_decay, "fused": config.fused or None}  # False: PyTorch's slowest of three ways
    optimizer = torch.optim.AdamW(net.parameters(), config.lr, config.betas, **how)
    net.train()

    def drawn(batch: Any, step: int) -> tuple[Tensor | None, ...]:
        generator = torch.Generator().manual_seed(1_000_003 * config.seed + step)  # its seeds have 32 bits
        return examples(batch() if callable(batch) else batch, generator)

    head = next(batches := iter(batches))
    first = [each for each in drawn(head, 0) if each is not None]
    size = len(first[0])
    if config.accumulate > size:
        raise UserError(f"accumulate must be at most the batch, {size}, got {config.accumulate}")
    mine = range(size)[my_rows(size)] if is_first() else ()
    means = [[float(each[row].double().mean()) for each in first] for row in mine]
    noted = {"batch": size, "fingerprint": means, "versions": {"minidiff": __version__, "torch": torch.__version__}}
    run = RunFolder(folder, nets, optimizer, asdict(config) | noted | (about or {}))
    done, skipped = run.begin()
    try:
        for batch in islice(chain([head], batches), done, config.steps):
            warm, decay = min(1.0, (done + 1) / config.warmup), 1 + math.cos(math.pi * done / config.steps)
            lr = config.lr * (warm * decay / 2)
            for group in optimizer.param_groups:
                group["lr"] = lr
            every = drawn(batch, done)
            buffers = [buffer.clone() for buffer in net.buffers()]
            optimizer.zero_grad()
            value = torch.zeros((), device=device)
            for rows, fraction in batch_parts(wrapped, size, config.accumulate):  # usually one: all rows
                with torch.autocast(device.type, torch.bfloat16, enabled=config.bf16):
                    part = loss(wrapped, *(each if each is None else each[rows] for each in every))
                (fraction * part).backward()
                value = value + fraction * part.detach()  # not +=: that would keep the dtype of the zero
            value, norm = average(value), nn.utils.clip_grad_norm_(net.parameters(), config.clip)
            if torch.isfinite(value + norm):
                optimizer.step()
                after()
                ema.update(net, done)
                skipped = 0
            else:  # weights, moments and averages stay as they are
                for buffer, before in zip(net.buffers(), buffers, strict=True):
                    buffer.copy_(before)
                skipped += 1
            done += 1
            run.note(step=done, loss=None if skipped else float(value), lr=lr, images=done * size)
            if skipped == PATIENCE:
                where = f"in {PATIENCE} steps in a row, up to step {done}, at a learning rate of {lr:.2g}"
                raise FloatingPointError(
                    f"not finite: the loss or its gradient {where}; {max(run.saved, 0)} steps are kept"
                )
            if done % config.save_every == 0 or time.monotonic() - run.saved_at > config.save_seconds:
                run.save(done, skipped)
            yield Progress(done, value, done * size, ema.net)
    except GeneratorExit:  # the caller stopped early, between two steps: nothing is lost
        pass
    run.save(done, skipped)
