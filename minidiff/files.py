"""Files: where the shipped ones are, and how to read and write them whole."""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from minidiff.registry import UserError

_PACKAGE = Path(__file__).resolve().parent
ROOTS = (_PACKAGE / "_assets", _PACKAGE.parent / "assets")  # installed from a wheel; run from a clone


def asset(name: str) -> Path:
    """The path of a shipped file or folder, such as "weights/judge/model.safetensors", checked like `whole`.

    Raises FileNotFoundError if it is missing.
    """
    for root in ROOTS:
        if (root / name).exists():
            return whole(root / name)
    raise FileNotFoundError(f"the shipped file assets/{name} is missing: clone or install minidiff again")


def whole(path: Path) -> Path:
    """This path. Raises UserError if it is a shipped file or folder, and not as published."""
    for root in ROOTS:
        if path.resolve().is_relative_to(root) and (damage := damaged_assets(path.resolve().relative_to(root))):
            raise UserError(f"{damage[0]}. Get it back: git checkout assets, or install minidiff again")
    return path


def damaged_assets(inside: Path | str = "") -> list[str]:
    """What is wrong with the shipped files, or those inside a folder of them, by the checksums in assets/SHA256SUMS."""
    sums = next((root / "SHA256SUMS" for root in ROOTS if (root / "SHA256SUMS").is_file()), None)
    if sums is None:
        return ["assets/SHA256SUMS is missing"] if inside == "" else []
    damage = []
    for line in sums.read_text().splitlines():
        published, name = line.split(maxsplit=1)
        path = sums.parent / name
        if Path(name).is_relative_to(inside):
            if not path.is_file():
                damage.append(f"assets/{name} is missing")
            elif (found := _sha256(path, path.stat().st_size, path.stat().st_mtime_ns)) != published:
                damage.append(f"assets/{name} is damaged: its SHA-256 is {found}, of the published file {published}")
    return damage


@cache
def _sha256(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Make a folder, and those that it is in. What was made, and is empty afterwards, goes again."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for path in made:
            with suppress(OSError):  # it is not empty, or could not be made
                path.rmdir()


def write(path: str | Path, data: bytes | str) -> None:
    """Write a temporary file and rename it: at every moment, and after a power cut, there is a whole file, the old or the new.

    Raises OSError; what was there stays, and nothing is left beside it.
    """
    path = Path(path)
    part = path.with_name(f".minidiff-{secrets.token_hex(8)}.part")  # of a legal length, and nobody's
    try:
        with part.open("xb") as file:  # x: neither a file nor a link is there
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except FileExistsError:
        raise
    except BaseException as error:  # Ctrl-C too
        part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(f"cannot write {path}: {error.strerror or error}") from None
        raise


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
