"""Networks in folders: tensors, and a config that says what they are, in our words or a library's.

Weights are read from safetensors alone: a .bin, .ckpt or .pt file is a pickle, and reading one can run any program.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any, Generic, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from minidiff.files import write_tensors
from minidiff.formats.json_files import checked, config, read_json, write_json
from minidiff.registry import UserError, of_the_user
from minidiff.tokenizer import shorten

Net = TypeVar("Net", bound=nn.Module)
PICKLES = (".bin", ".ckpt", ".pt", ".pth")
FLOATS = ("F64", "F32", "F16", "BF16")  # the kinds of numbers that weights are made of


class Checkpoint:
    """The tensors of one network, in one file or in several; read when they are asked for, one by one.

    stem: "model" for transformers, "diffusion_pytorch_model" for diffusers. The first of `file_names` is read. Raises
    UserError where there is none or one of them is not whole.
    """

    def __init__(self, folder: Path, stem: str):
        names = file_names(stem)
        self.path = next((folder / name for name in names if (folder / name).is_file()), folder / names[0])
        index = index_of(self.path)
        files = {name: _opened(folder / name) for name in sorted(set(index.values())) or [self.path.name]}
        names = {file: opened.keys() for file, opened in files.items()}
        self.where = {name: files[file] for file in files for name in names[file]}  # a tensor's name: its file
        for name, file in index.items():
            if name not in names[file]:
                raise UserError(f"{folder / file} has no {name}, against what {self.path.name} says")
            self.where[name] = files[file]

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.where[name].get_slice(name).get_shape())

    def read(self, name: str, dtype: torch.dtype) -> Tensor:
        """A tensor in this precision. Raises UserError unless it has finite numbers of that kind: floating-point, or whole."""
        kinds = FLOATS if dtype.is_floating_point else ("I64",)
        if (kind := self.where[name].get_slice(name).get_dtype()) not in kinds:
            raise UserError(f"{self.path}: {name} has numbers of kind {kind}: it should be {' or '.join(kinds)}")
        tensor = self.where[name].get_tensor(name).to(dtype)
        if not tensor.isfinite().all():
            raise UserError(f"{self.path}: {name} has numbers that are not finite, or too large for {dtype}")
        return tensor


def file_names(stem: str) -> list[str]:
    """Where the tensors of a network can be, the first choice first: in one file, or in those that a list names."""
    ends = ("safetensors", "safetensors.index.json", "fp16.safetensors", "safetensors.index.fp16.json")
    return [f"{stem}.{end}" for end in ends]


def index_of(path: Path) -> dict[str, str]:
    """Of a list of files: a tensor's name, and the file beside it that has it. Nothing of any other file."""
    if ".index." not in path.name:
        return {}
    index = read_json(path, "the files of a checkpoint").get("weight_map")
    with of_the_user(f"{path}: weight_map"):
        index = checked(dict[str, str], index)
        for file in index.values():
            if PureWindowsPath(file).name != file or not file.endswith(".safetensors"):
                raise UserError(f"{file!r} is not the name of a safetensors file in the same folder")
    return index


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
    theirs = {}
    for name in checkpoint.where:
        if (ours := rename(name)) in theirs:
            raise UserError(f"{misfit}: {theirs[ours]} and {name} are the same")
        if ours is not None:
            theirs[ours] = name
    for name, tensor in wanted.items():
        if name not in theirs:
            raise UserError(f"{misfit}: it has no {name}")
        shape = checkpoint.shape(theirs[name])
        if shape not in (tuple(tensor.shape), (*tensor.shape, 1, 1)):
            raise UserError(f"{misfit}: {name} has shape {shape}, expected {tuple(tensor.shape)}")
    if more := next((name for name in theirs if name not in wanted), None):
        raise UserError(f"{misfit}, which has no {more}")
    read = {}
    for name, tensor in wanted.items():
        kind = dtype if tensor.is_floating_point() else tensor.dtype  # BatchNorm counts its batches in whole numbers
        read[name] = checkpoint.read(theirs[name], kind).reshape(tensor.shape)
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
    more: Callable[[dict], dict[str, Any]] = lambda fields: {}  # what they say -> the other fields of ours
    rename: Callable[[str], str | None] = lambda name: name  # see `fill`
    label: dict[str, Any] = field(default_factory=dict)  # what is written for them alone

    def config(self, fields: dict, path: Path) -> Any:
        """Our config for what they wrote into a config.json. Raises UserError if it would compute something else."""
        given = self.absent | fields
        with of_the_user(path):
            said = {our: given[their] for their, our in self.words.items() if their in given} | self.more(fields)
            ours = config(self.kind, said, {our: their for their, our in self.words.items()})
            for name, value in (self.fixed | self.follows(ours)).items():
                found, every = fields.get(name, value), [value] * len(getattr(ours, "channels", ()))
                if found not in (value, every):  # some are given once a level
                    raise UserError(
                        f"{name} is {shorten(str(found), 60)}, and minidiff's {self.what} knows {value} alone"
                    )
        return ours

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


def save_net(net: nn.Module, folder: str | Path, name: str, fields: dict, stem: str = "model") -> None:
    """Write a network's tensors (float16), and beside them what it is, under this name."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.half() for name, tensor in net.state_dict().items()}
    if wrong := next((name for name, tensor in tensors.items() if not tensor.isfinite().all()), None):
        raise UserError(f"{folder} is not written: {wrong} has numbers that are not finite in float16")
    write_tensors(folder / f"{stem}.safetensors", tensors, {"format": "pt"})  # transformers asks for that word
    write_json(folder / name, fields)
