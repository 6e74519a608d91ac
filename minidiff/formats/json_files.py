"""JSON files that describe models, read through one schema: the frozen dataclass or type that they must become.

Whatever such a file holds, the answer is that object, or one line with the file, the field, its value and what is allowed.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from minidiff.files import write
from minidiff.registry import UserError, of_the_user
from minidiff.tokenizer import shorten

T = TypeVar("T")
LARGEST_FILE = 2**24  # bytes; the vocabulary of CLIP has 2**20
# the smallest and the largest number in a field, where they are not 1 and 2**16: what memory can hold
RANGES = {
    "layers": (1, 2**7), "picture": (1, 2**12), "vocab": (2, 2**20), "length": (2, 2**12), "end": (0, 2**20),
    "scale": (-1e4, 1e4), "scaling": (1e-4, 1e4), "mean": (-1e4, 1e4), "std": (1e-4, 1e4),
}  # fmt: skip
MOST_ITEMS = 16  # of a list: levels of a network, channels of an image


def write_json(path: Path, fields: dict) -> None:
    write(path, json.dumps(fields, indent=2) + "\n")


def read_text(path: Path, largest: int = LARGEST_FILE) -> str:
    """The text of an ordinary file, in UTF-8. Raises UserError for anything else, and for one of more bytes."""
    if not path.is_file():  # nor a folder, nor a device without end
        raise UserError(f"{path} is missing" if not path.exists() else f"{path} is no file")
    try:
        with path.open("rb") as opened:
            content = opened.read(largest + 1)
        if len(content) > largest:
            raise UserError(f"{path} has more than {largest} bytes: it is something else")
        return content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error})") from None


def read_json(path: Path, what: str, kind: Any = dict[str, Any]) -> Any:
    """What a JSON file that describes `what` holds, as `kind`; see `checked`. Raises UserError."""
    text = read_text(path)
    try:
        fields = json.loads(text, object_pairs_hook=_once)
        if not isinstance(fields, dict):
            raise ValueError("it holds no fields")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} does not describe {what} ({error})") from None
    with of_the_user(path):
        return checked(kind, fields)


def checked(kind: Any, fields: Any, called: Mapping[str, str] = {}) -> Any:
    """`fields`, as JSON has them, as a dataclass or type. Raises UserError for another type, an unknown or a missing field.

    "4" and 4.0 are no whole numbers, and true is none. called: what the file calls a field.
    """
    try:
        return TypeAdapter(kind).validate_json(json.dumps(fields), strict=True, extra="forbid")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(called.get(str(step), str(step)) for step in first["loc"][:4])
        value = "" if first["type"] in ("missing", "value_error") else f" is {shorten(repr(first['input']), 60)}:"
        raise UserError(f"{field}{value} {first['msg'].removeprefix('Value error, ')}".strip()) from None


def config(kind: type[T], fields: Mapping[str, Any], called: Mapping[str, str] = {}) -> T:
    """The config of a network or model, numbers within RANGES. called: what the file calls a field. Raises UserError."""
    for field, value in fields.items():
        _within(field, value, called.get(field, field))
    built = checked(kind, fields, called)
    networks = {field: value for field, value in fields.items() if isinstance(value, Mapping)}
    for field, value in networks.items():  # nothing is guessed: tensors do not tell how many heads there are
        if missing := {inner.name for inner in dataclasses.fields(getattr(built, field))} - set(value):
            raise UserError(f"{field}.{min(missing)} is missing")
    return built


def _within(field: str, value: Any, called: str) -> None:
    if isinstance(value, Mapping):
        for inner, content in value.items():
            _within(inner, content, f"{called}.{inner}")
    elif isinstance(value, list | tuple):
        if len(value) > MOST_ITEMS:
            raise UserError(f"{called} has {len(value)} entries: at most {MOST_ITEMS} are allowed")
        for content in value:
            _within(field, content, called)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        least, most = RANGES.get(field, (1, 2**16))
        if not least <= value <= most:  # nor NaN
            raise UserError(f"{called} is {value}: it must lie between {least} and {most}")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it says {next(name for name in names if names.count(name) > 1)!r} twice")
    return fields
