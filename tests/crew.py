"""What tests/test_distributed.py lets torchrun start, and does itself in one process: `python crew.py OUT`."""

import itertools
import sys
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import torch
import torch.distributed as dist

from minidiff import data
from minidiff.diffusion import FLOW, flow
from minidiff.files import write_tensors
from minidiff.networks import Conditional, LabelEncoder, UNet, UNetConfig
from minidiff.training import TrainConfig, loop, train
from minidiff.training.distributed import any_of, first_goes_ahead, join, of_first

TINY = UNetConfig(1, 1, channels=(8, 16), attention=(False, True), layers=1, heads=2, context_dim=8, groups=4)
N, BATCH = 48, 16


def pictures(dtype=torch.float32):
    """Picture k has the value k / N in its corner, so that it is known again."""
    images = torch.randn(N, 1, 8, 8, generator=torch.Generator().manual_seed(7)).to(dtype)
    images[:, 0, 0, 0] = torch.arange(N) / N
    return data.Pictures(images, torch.arange(N) % 10, [""] * N)


def sgd(params, lr, betas, weight_decay, fused):
    return torch.optim.SGD(params, lr=lr, momentum=0.9)


def run(optimizer="AdamW", dtype=torch.float32, folder=None, stop=None, batch=BATCH, **config):
    """Weights, averaged weights and losses of a short run."""
    torch.manual_seed(0)
    net = Conditional(UNet(TINY), LabelEncoder(10, 8)).to(dtype)
    config = TrainConfig(**{"steps": 5, "warmup": 2, "lr": 1e-2} | config)
    batches = data.batches(pictures(dtype), batch)
    with mock.patch.object(torch.optim, "AdamW", sgd) if optimizer == "SGD" else mock.MagicMock():
        steps = list(itertools.islice(train(net, flow(), FLOW, batches, config, null=10, folder=folder), stop))
    told = {f"net.{name}": value.clone() for name, value in net.state_dict().items()}
    if steps:
        told |= {f"ema.{name}": value.clone() for name, value in steps[-1].net.state_dict().items()}
        told["losses"] = torch.stack([step.loss for step in steps]).to(dtype)
    return told


@contextmanager
def spied(seen):
    """Which pictures this process learns from, step by step."""
    real = loop.loss

    def loss(ask, schedule, pred, x0, *rest):
        seen.append((x0[:, 0, 0, 0] * N).round().long())
        return real(ask, schedule, pred, x0, *rest)

    with mock.patch.object(loop, "loss", loss):
        yield


def work(out: Path, rank: int) -> None:
    write_tensors(out / f"sgd.{rank}", run("SGD", torch.float64))
    write_tensors(out / f"adamw.{rank}", run())
    write_tensors(out / f"parts.{rank}", run("SGD", torch.float64, accumulate=3))  # of its 8 rows 3, 3 and 2
    with spied(seen := []):
        run(steps=N // BATCH)
    write_tensors(out / f"seen.{rank}", {"seen": torch.stack(seen)})
    write_tensors(out / f"begun.{rank}", run(folder=out / "by_two", stop=3))
    write_tensors(out / f"back.{rank}", run(folder=out / "by_one"))  # all done: it is only read and written
    with first_goes_ahead():
        there = (out / "fetched").exists()
        (out / "fetched").touch()
    told = {"any": any_of(rank == 1), "none": any_of(False), "of_first": of_first(10 + rank), "there": there}
    write_tensors(out / f"told.{rank}", {name: torch.tensor(value) for name, value in told.items()})


def stumble(rank: int) -> None:
    """The second process fails in the middle of a step."""

    def loss(*args):
        if rank == 1:
            raise SystemExit("stumbled")
        return real(*args)

    real = loop.loss
    with mock.patch.object(loop, "loss", loss):
        run()


if __name__ == "__main__":
    join(torch.device("cpu"))
    out, rank = Path(sys.argv[1]), dist.get_rank()
    work(out, rank)
    (out / f"done.{rank}").touch()
    stumble(rank)
    (out / "waited").touch()
