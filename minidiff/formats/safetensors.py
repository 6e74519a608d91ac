"""Checkpoints in folders: a config.json and tensors, as transformers and diffusers write them.

Weights are read from safetensors alone: a .bin, .ckpt or .pt file is a pickle, and reading one can run any program that its
author put there.
"""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from minidiff.files import write, write_tensors
from minidiff.registry import UserError

PICKLES = (".bin", ".ckpt", ".pt", ".pth")


class Checkpoint:
    """The tensors of one part, in one file or in several; read when they are asked for, one by one.

    stem: "model" for transformers, "diffusion_pytorch_model" for diffusers. Files are looked for in this order: stem.safetensors,
    stem.fp16.safetensors, and the lists of files of parts that were cut in several. Raises UserError where there is none
    or one of them is not whole.
    """

    def __init__(self, folder: Path, stem: str):
        names = file_names(stem)
        self.path = next((folder / name for name in names if (folder / name).is_file()), folder / names[0])
        self.where = {}  # a tensor's name: the open file that has it
        for name in files_of(self.path):
            opened = _opened(folder / name)
            self.where |= dict.fromkeys(opened.keys(), opened)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.where[name].get_slice(name).get_shape())

    def __getitem__(self, name: str) -> Tensor:
        return self.where[name].get_tensor(name)


def file_names(stem: str) -> list[str]:
    """Where the tensors of a part can be, the first choice first: in one file, or in those that a list names."""
    return [f"{stem}{end}" for end in (".safetensors", ".safetensors.index.json")] + [
        f"{stem}{end}" for end in (".fp16.safetensors", ".safetensors.index.fp16.json")
    ]


def files_of(path: Path) -> list[str]:
    """The files that hold tensors: this one, or, if it is a list, those that it names."""
    if path.suffix != ".json":
        return [path.name]
    return sorted(set(dict(read_json(path, "the files of a checkpoint").get("weight_map") or {}).values()))


def _opened(path: Path):
    if not path.is_file():
        if pickle := next((p for p in sorted(path.parent.glob("*")) if p.suffix in PICKLES), None):
            raise UserError(f"{pickle} is a pickle, which can run any program: minidiff reads {path.name} alone")
        raise UserError(f"{path} is missing")
    try:
        return safe_open(path, "pt")
    except SafetensorError as error:
        raise UserError(f"{path} is not a whole safetensors file ({error})") from None


def fill(
    net: nn.Module,
    checkpoint: Checkpoint,
    rename: Callable[[str], str | None] = lambda name: name,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Every tensor into the network, which may be one without numbers (on "meta"), and none left over, or a UserError.

    rename: the name in the file -> the name here, None for one that is not needed. Matrices that the file has as 1x1
    convolutions are taken as matrices. One tensor after the other, so that they never lie twice in memory.
    """
    path, wanted = checkpoint.path, net.state_dict()
    theirs = {ours: name for name in checkpoint.where if (ours := rename(name)) is not None}
    for name, tensor in wanted.items():
        if name not in theirs:
            raise UserError(f"{path} does not fit its model: it has no {name}")
        shape = checkpoint.shape(theirs[name])
        if shape not in (tuple(tensor.shape), (*tensor.shape, 1, 1)):
            raise UserError(f"{path} does not fit its model: {name} has shape {shape}, expected {tuple(tensor.shape)}")
    if more := next((name for name in theirs if name not in wanted), None):
        raise UserError(f"{path} does not fit its model, which has no {more}")
    read = {name: checkpoint[theirs[name]].to(dtype).reshape(tensor.shape) for name, tensor in wanted.items()}
    net.load_state_dict(read, assign=True)


def save_part(net: nn.Module, folder: str | Path, stem: str, fields: dict) -> None:
    """Write a network's tensors (float16) and its config.json."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.half() for name, tensor in net.state_dict().items()}
    write_tensors(folder / f"{stem}.safetensors", tensors, {"format": "pt"})  # transformers asks for that word
    write(folder / "config.json", json.dumps(fields, indent=2) + "\n")


def read_json(path: Path, what: str) -> dict:
    """The fields of a JSON file that describes `what`, or a UserError."""
    if not path.is_file():
        raise UserError(f"{path} is missing")
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} does not describe {what} ({error})") from None
