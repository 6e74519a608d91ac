"""One choice of device for everything: CUDA, then Apple's MPS, then the CPU."""

import psutil
import torch

from minidiff.registry import UserError


def pick_device(name: str | None = None) -> torch.device:
    """The device called `name` ("cpu", "cuda", "cuda:1", "mps"), or the best there is for None.

    Raises UserError for a device that this machine does not have.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name is None:
        return torch.device(next(kind for kind, is_there in there.items() if is_there))
    try:
        device = torch.device(str(name))
    except RuntimeError:
        device = None
    if device is None or not there.get(device.type):
        raise UserError(f"no device {name!r} here; there is {', '.join(k for k, v in there.items() if v)}")
    return device


def check_memory(device: torch.device, least: int) -> None:
    """Raises UserError if `least` bytes are more than are free. CUDA says so itself; a CPU's system ends the process."""
    free = psutil.virtual_memory().available
    if device.type != "cuda" and least > free:
        gigabytes = f"at least {least / 2**30:.1f} GiB of memory, {free / 2**30:.1f} are free"
        raise UserError(f"this needs {gigabytes}: ask for fewer or smaller images")
