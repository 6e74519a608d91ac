"""Several processes that train as one, a GPU each: torchrun starts them, each computes its own rows of the batch.

Every process draws the same random numbers, for the whole batch, and takes its rows. DDP averages the gradients, so
that the weights stay equal everywhere. Without torchrun, nothing here does anything.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from minidiff.registry import UserError


def join(device: torch.device) -> torch.device:
    """Meet the other processes of this torchrun; the device of this one: of several GPUs, each process has its own."""
    if not dist.is_torchelastic_launched() or dist.is_initialized():
        return device
    local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if device.type == "cuda":
        if device.index is not None:
            raise UserError(f"torchrun gives every process a GPU of its own: give cuda as device, not {device}")
        if local >= there:
            raise UserError(f"{os.environ['LOCAL_WORLD_SIZE']} processes for {there} GPUs: --nproc_per_node {there}")
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    elif device.type != "cpu":
        raise UserError(f"several processes can train on cuda or cpu, not on {device}")
    # a process waits ten minutes for the others before it gives up
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=timedelta(minutes=10))
    return device


def leave() -> None:
    """After training; not for a process that failed, which should not wait for the others."""
    if dist.is_initialized():
        dist.destroy_process_group()


def size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """The process that prints and writes."""
    return not dist.is_initialized() or dist.get_rank() == 0


def together(net: nn.Module) -> nn.Module:
    """The network to call in training: its gradients become the mean over all processes. Compile it before."""
    return DistributedDataParallel(net) if size() > 1 else net


def my_rows(count: int) -> slice:
    """Which rows of a batch of `count` are this process's. Raises UserError where they cannot be shared equally."""
    if count % size():
        raise UserError(f"a batch of {count} cannot be shared equally by {size()} processes: take a multiple")
    mine = count // size()
    first = dist.get_rank() * mine if dist.is_initialized() else 0
    return slice(first, first + mine)


def batch_parts(wrapped: nn.Module, count: int, parts: int = 1) -> Iterator[tuple[slice, float]]:
    """This process's rows of a batch in up to `parts` parts, and the fraction of its rows that each holds.

    wrapped: from `together`. Gradients add up in it; the last part's backward averages the sum over the processes.
    """
    mine = my_rows(count)
    rows = range(mine.start, mine.stop)
    step = -(-len(rows) // parts)
    *early, last = [rows[k : k + step] for k in range(0, len(rows), step)]
    with wrapped.no_sync() if early and isinstance(wrapped, DistributedDataParallel) else nullcontext():
        for part in early:
            yield slice(part.start, part.stop), len(part) / len(rows)
    yield slice(last.start, last.stop), len(last) / len(rows)


def average(value: Tensor) -> Tensor:
    """A scalar's mean over the processes."""
    if size() > 1:
        dist.all_reduce(value := value / size())
    return value


def any_of(flag: bool) -> bool:
    """Is the flag set in any process? All must call it: one that stops alone leaves the others waiting."""
    return float(average(torch.tensor(float(flag)))) > 0


def of_first(number: int) -> int:
    """The first process's number. All must call it."""
    value = torch.tensor(number)
    if size() > 1:
        dist.broadcast(value, src=0)
    return int(value)


@contextmanager
def first_goes_ahead() -> Iterator[None]:
    """The others on its machine wait until it is through: what has to be fetched is fetched once."""
    ahead = int(os.environ.get("LOCAL_RANK", 0)) == 0
    if not ahead:
        any_of(False)
    yield
    if ahead:
        any_of(False)
