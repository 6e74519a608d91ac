"""A training run on disk, to resume from."""

import json
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn
from torch.optim import Optimizer

from minidiff.files import read_tensors, write_tensors
from minidiff.registry import UserError
from minidiff.training.distributed import is_first, of_first

FILE = "resume.safetensors"
MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # what AdamW remembers of each parameter


def save(folder: Path, nets: nn.ModuleDict, optimizer: Optimizer, step: int, steps: int, about: dict) -> None:
    """nets: the network and its average. step: how many are done; steps: of how many. Of several processes, which hold the same, the first writes."""
    if not is_first():
        return
    tensors = {"step": torch.tensor(step), "steps": torch.tensor(steps)} | nets.state_dict()
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{key}": state[key] for key in MOMENTS}
    Path(folder).mkdir(parents=True, exist_ok=True)
    write_tensors(Path(folder) / FILE, tensors, {"about": json.dumps(about)})


def restore(folder: Path, nets: nn.ModuleDict, optimizer: Optimizer, about: dict | None = None) -> int:
    """Load a saved run, which must have been begun with these settings; returns the steps it had done, 0 if there is none."""
    path = Path(folder) / FILE
    done = read(path, nets, optimizer, about or {}) if path.exists() else 0
    if done != (first := of_first(done)):
        raise UserError(f"{path} ends at step {done}, at {first} for the first process: all must see the same folder")
    return done


def read(path: Path, nets: nn.ModuleDict, optimizer: Optimizer, about: dict) -> int:
    tensors = read_tensors(path)
    with safe_open(path, "pt") as file:
        saved = json.loads((file.metadata() or {}).get("about", "{}"))
    for key, value in about.items():
        if saved.get(key, value) != value:
            was = f"{path} was begun with {key} {saved[key]}, not {value}"
            raise UserError(f"{was}: choose another folder, or delete it")
    try:
        nets.load_state_dict({name: tensors[name] for name in tensors if name.startswith(tuple(nets))})
        done = int(tensors["step"])
    except (KeyError, RuntimeError):
        raise UserError(f"{path} holds another network: choose another folder, or delete it") from None
    for i, parameter in enumerate(optimizer.param_groups[0]["params"]):
        if f"optimizer.{i}.step" in tensors:
            step, *moments = (tensors[f"optimizer.{i}.{key}"] for key in MOMENTS)
            if optimizer.param_groups[0]["fused"]:
                step = step.to(parameter.device)  # else AdamW counts on the CPU, wherever the parameters are
            moments = [torch.empty_like(parameter).copy_(moment) for moment in moments]  # in its memory layout
            optimizer.state[parameter] = dict(zip(MOMENTS, [step, *moments], strict=True))
    return done


def planned_steps(folder: Path) -> int | None:
    """How many steps the saved run is to have in all; None if the folder holds none."""
    path = Path(folder) / FILE
    return int(read_tensors(path)["steps"]) if path.exists() else None
