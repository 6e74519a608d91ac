"""Networks in folders: tensors, and a JSON file that says what they are, in our words or a library's.

Weights are read from safetensors alone: a .bin, .ckpt or .pt file is a pickle, and reading one can run any program.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from minidiff.files import write, write_tensors
from minidiff.registry import UserError

T = TypeVar("T")
Net = TypeVar("Net", bound=nn.Module)
PICKLES = (".bin", ".ckpt", ".pt", ".pth")


class Checkpoint:
    """The tensors of one network, in one file or in several; read when they are asked for, one by one.

    stem: "model" for transformers, "diffusion_pytorch_model" for diffusers. The first of `file_names` is read. Raises
    UserError where there is none or one of them is not whole.
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
    """Where the tensors of a network can be, the first choice first: in one file, or in those that a list names."""
    ends = ("safetensors", "safetensors.index.json", "fp16.safetensors", "safetensors.index.fp16.json")
    return [f"{stem}.{end}" for end in ends]


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


def fill(net: Net, checkpoint: Checkpoint, rename: Callable[[str], str | None] = lambda name: name,
         dtype: torch.dtype = torch.float32) -> Net:  # fmt: skip
    """The network, which may be without numbers (on "meta"), with every tensor, ready to be used, or a UserError.

    rename: the name in the file -> the name here, None for one that is not needed. Matrices that the file has as 1x1
    convolutions are taken as matrices. One tensor after the other, so that they never lie twice in memory.
    """
    misfit, wanted = f"{checkpoint.path} does not fit its model", net.state_dict()
    theirs = {ours: name for name in checkpoint.where if (ours := rename(name)) is not None}
    for name, tensor in wanted.items():
        if name not in theirs:
            raise UserError(f"{misfit}: it has no {name}")
        shape = checkpoint.shape(theirs[name])
        if shape not in (tuple(tensor.shape), (*tensor.shape, 1, 1)):
            raise UserError(f"{misfit}: {name} has shape {shape}, expected {tuple(tensor.shape)}")
    if more := next((name for name in theirs if name not in wanted), None):
        raise UserError(f"{misfit}, which has no {more}")
    read = {name: checkpoint[theirs[name]].to(dtype).reshape(tensor.shape) for name, tensor in wanted.items()}
    net.load_state_dict(read, assign=True)
    return net.eval().requires_grad_(False)


@dataclass(frozen=True, kw_only=True)
class Part(Generic[Net]):
    """How diffusers or transformers keeps one of our networks: what differs is declared, in unet, vae and clip."""

    what: str  # the network's name in messages
    net: type[Net]
    kind: type  # of its config
    stem: str = "model"  # of the file with its tensors
    words: dict[str, str]  # their name of a field of our config -> ours
    absent: dict[str, Any]  # what a field is where their file leaves it out, if it is not our default
    fixed: dict[str, Any]  # what our network has no choice about
    follows: Callable[[Any], dict[str, Any]]  # our config -> what else their file says, and must say
    more: Callable[[dict, Path], dict[str, Any]] = lambda fields, path: {}  # what they say -> the other fields of ours
    rename: Callable[[str], str | None] = lambda name: name  # see `fill`
    label: dict[str, Any] = field(default_factory=dict)  # what is written for them alone

    def config(self, fields: dict, path: Path) -> Any:
        """Our config for what they wrote into a config.json. Raises UserError if it would compute something else."""
        given = self.absent | fields
        said = {our: given[their] for their, our in self.words.items() if their in given} | self.more(fields, path)
        try:
            config = self.kind(**tuples(said))
        except (TypeError, ValueError) as error:
            raise UserError(f"{path}: {error}") from None
        for name, value in (self.fixed | self.follows(config)).items():
            found, every = fields.get(name, value), [value] * len(getattr(config, "channels", ()))
            if found not in (value, every):  # some are given once a level
                raise UserError(f"{path}: {name} is {found}, and minidiff's {self.what} knows {value} alone")
        return config

    def load(self, folder: str | Path, device: str | torch.device = "cpu",
             dtype: torch.dtype = torch.float32) -> Net:  # fmt: skip
        """The network of a folder, ready to be used, or a UserError for what is not there, does not fit or differs."""
        path = Path(folder) / "config.json"
        config = self.config(read_json(path, f"a {self.what}"), path)
        with torch.device("meta"):  # no random weights, which would take longer than reading the real ones
            net = self.net(config)
        return fill(net, Checkpoint(Path(folder), self.stem), self.rename, dtype).to(device)

    def save(self, net: Net, folder: str | Path, **more: Any) -> None:
        """Write its tensors (float16) and config.json. more: fields of that which are none of ours."""
        fields = {their: getattr(net.config, our) for their, our in self.words.items()}
        save_net(net, folder, "config.json", fields | self.follows(net.config) | self.label | more, self.stem)


def save_net(net: nn.Module, folder: str | Path, name: str, about: dict, stem: str = "model") -> None:
    """Write a network's tensors (float16), and beside them what it is, under this name."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.half() for name, tensor in net.state_dict().items()}
    write_tensors(folder / f"{stem}.safetensors", tensors, {"format": "pt"})  # transformers asks for that word
    write_json(folder / name, about)


def write_json(path: Path, fields: dict) -> None:
    write(path, json.dumps(fields, indent=2) + "\n")


def read_json(path: Path, what: str) -> dict:
    """The fields of a JSON file that describes `what`, or a UserError."""
    if not path.is_file():
        raise UserError(f"{path} is missing")
    return described(path, what, dict)


def described(path: Path, what: str, build: Callable[[dict], T]) -> T:
    """What is built of the fields of a JSON file, or a UserError."""
    try:
        return build(dict(json.loads(path.read_text(encoding="utf-8"))))
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path} does not describe {what} ({error})") from None


def tuples(fields: dict) -> dict:
    """The fields of a config, which JSON knows no tuples for."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
