"""Files: where the shipped ones are, and how to read and write them whole."""

import hashlib
import os
from pathlib import Path

from minidiff.registry import UserError

_PACKAGE = Path(__file__).resolve().parent
ROOTS = (_PACKAGE / "_assets", _PACKAGE.parent / "assets")  # installed from a wheel; run from a clone


def asset(name: str) -> Path:
    """The path of a shipped file or folder, such as "weights/judge/model.safetensors". Raises FileNotFoundError."""
    for root in ROOTS:
        if (root / name).exists():
            return root / name
    raise FileNotFoundError(f"the shipped file assets/{name} is missing: clone or install minidiff again")


def damaged_assets() -> list[str]:
    """The shipped files that are missing or not as published, by the checksums in assets/SHA256SUMS."""
    sums = asset("SHA256SUMS")
    wrong = []
    for line in sums.read_text().splitlines():
        digest, name = line.split(maxsplit=1)
        path = sums.parent / name
        if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            wrong.append(name)
    return wrong


def write(path: str | Path, data: bytes | str) -> None:
    """Write a temporary file and rename it: at every moment there is a whole file, the old or the new."""
    path = Path(path)
    beside = path.with_name(f".{path.name}.part")
    beside.write_bytes(data.encode() if isinstance(data, str) else data)
    os.replace(beside, path)


def write_tensors(path: str | Path, tensors: dict, about: dict[str, str] | None = None) -> None:
    """Write a safetensors file, whole. about: its metadata."""
    from safetensors.torch import save  # imports torch, which costs a second

    write(path, save({name: tensor.contiguous() for name, tensor in tensors.items()}, about))


def read_tensors(path: str | Path) -> dict:
    """The tensors of a safetensors file. Raises UserError if it is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not Path(path).is_file():
        raise UserError(f"{path} is missing")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} is not a whole safetensors file ({error})") from None


def check_writable(path: str | Path, kinds: tuple[str, ...]) -> Path:
    """`path`, if a file of one of these kinds (".png", ...) can be written there: ask before the work. Raises UserError."""
    path = Path(path)
    if path.suffix.lower() not in kinds:
        raise UserError(f'cannot write "{path}": its name must end in {" or ".join(kinds)}')
    if not path.parent.is_dir():
        raise UserError(f'cannot write "{path}": there is no folder "{path.parent}"')
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise UserError(f'cannot write "{path}": {"it is a folder" if path.is_dir() else "no permission"}')
    return path
