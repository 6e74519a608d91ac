"""Downloads: a file from a public address, whole and as published, or one clear line about why not."""

import hashlib
import http.client
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

CHUNK = 1 << 18  # bytes
TIMEOUT = 30  # seconds without a byte until the network counts as gone

# torchvision has a downloader too: it starts anew after every break, knows MD5 alone, and gives the file its
# name before it is checked.


def fetch(url: str, path: str | Path, size: int, sha256: str) -> Path:
    """The file `path`, of `size` bytes and this checksum; downloaded from `url` if it is not there.

    It grows as `path`.part and gets its name once it has been checked. A download that broke off is gone on
    with. A file that is there is checked, and never touched.

    Raises ValueError for a file that is not the published one, OSError where there is no network, no
    permission or no space.
    """
    path = Path(path)
    part = path.with_name(f"{path.name}.part")
    try:
        if path.exists():
            if problem := difference(path, size, sha256):
                raise ValueError(f"{path} is not the published file: {problem}. Delete it, and it is fetched anew")
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        grow(part, url, size)
        if problem := difference(part, size, sha256):
            part.unlink()  # to go on from it would give the same again
            raise ValueError(f"what came from {url} is not the published file: {problem}. It was thrown away")
        os.replace(part, path)
    except Unreachable as error:
        raise OSError(f"{error}: try again, or put {path.name} into the folder {path.parent} by hand") from None
    except OSError as error:
        raise OSError(f"cannot keep {path.name} in the folder {path.parent}: {error.strerror or error}") from None
    return path


def difference(path: Path, size: int, sha256: str) -> str | None:
    """What is wrong with a file, in words; None if it has this size and checksum."""
    found = path.stat().st_size
    if found != size:
        return f"it has {found:,} bytes, expected {size:,}{' (it is cut short)' if found < size else ''}"
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"its sha256 is {digest}, expected {sha256}" if digest != sha256 else None


class Unreachable(OSError):
    """The network's fault, not the disk's."""


def grow(part: Path, url: str, size: int) -> None:
    """Append to `part` what it lacks; start it anew where the server cannot go on in the middle."""
    from tqdm import tqdm

    try:
        with part.open("ab") as file:
            there = file.tell()
            if there == size:  # it was stopped between the last byte and the check
                return
            free = shutil.disk_usage(part.parent).free
            if free < size - there:
                raise OSError(f"{(size - there) / 1e6:,.0f} MB are to come, {free / 1e6:,.0f} MB are free")
            begin, chunks = download(url, there if there < size else 0, size)
            if begin != there:
                file.truncate(begin)
            with tqdm(desc=part.stem, total=size, initial=begin, unit="B", unit_scale=True, delay=1) as bar:
                for chunk in chunks:
                    file.write(chunk)
                    bar.update(len(chunk))
        if (there := part.stat().st_size) < size:
            raise Unreachable(f"{url} broke off after {there:,} of {size:,} bytes, which are kept")
    finally:
        if part.exists() and not part.stat().st_size:
            part.unlink()


def download(url: str, begin: int, size: int) -> tuple[int, Iterator[bytes]]:
    """Where the bytes start, and the bytes: from `begin` on, or from 0 where the server cannot do that."""
    headers = {"User-Agent": "minidiff"} | ({"Range": f"bytes={begin}-"} if begin else {})
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if begin and error.code == 416:  # nothing lies behind `begin`: half of another file is there
            return download(url, 0, size)
        raise Unreachable(f"cannot fetch {url} ({error})") from None
    except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
        raise Unreachable(f"cannot fetch {url} ({getattr(error, 'reason', error)})") from None
    if not answer.headers.get("Content-Range", "").startswith(f"bytes {begin}-"):
        begin = 0
    if answer.length is not None and begin + answer.length != size:
        answer.close()
        raise ValueError(f"{url} has {begin + answer.length:,} bytes, expected {size:,}: it is not the published file")
    return begin, read(answer, size - begin)


def read(answer: http.client.HTTPResponse, count: int) -> Iterator[bytes]:
    """What the server sends, `count` bytes at most; less where the connection breaks."""
    with answer:
        while count > 0:
            try:
                chunk = answer.read(min(CHUNK, count))
            except (OSError, http.client.HTTPException):
                return
            if not chunk:
                return
            count -= len(chunk)
            yield chunk
