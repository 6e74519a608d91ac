"""Files of a repository on huggingface.co, by way of its own library and cache."""

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath

from minidiff.formats.safetensors import index_of
from minidiff.registry import UserError, choose


class NotThere(UserError):
    """A file that a repository does not have."""


def find(name: str | Path, shipped: Mapping[str, Path], kind: str, hint: str, fetch: Callable[[str], Path]) -> Path:
    """The folder of a shipped model, of a path, or of an id, owner/name or owner/name@revision, that is fetched if need be."""
    if name in shipped:
        return shipped[str(name)]  # a folder of that name is ./name
    if str(name) and Path(name).is_dir():
        return Path(name)
    owner, _, repo = str(name).partition("/")
    if owner and repo and "/" not in repo and not owner.startswith((".", "~")) and not Path(owner).is_dir():
        return fetch(str(name))
    return choose(str(name), shipped, kind, hint)


def fetch(repo: str, groups: Iterable[list[str]], check: Callable[[Path], None] = lambda path: None) -> Path:
    """The folder of a repository on huggingface.co, owner/name or owner/name@revision, from the cache or the network.

    groups: of each, the first file that is there is fetched, and the files that it names; a group with "" may have none.
    check: looks at the very first file before the others are fetched. All are of the revision that this one was of.
    """
    repo, _, revision = repo.partition("@")
    first, *others = groups
    file = _first(repo, first, revision or None)
    assert file  # it is not optional
    check(file)
    for names in others:
        _first(repo, names, file.parent.name)  # by the commit: main, or a tag, may be another one a minute later
    return file.parent


def origin(folder: Path) -> str:
    """owner/name@commit for a folder of the hub's cache, and the folder's name for any other."""
    cache = folder.parent.parent.name
    return f"{cache[8:].replace('--', '/')}@{folder.name}" if cache.startswith("models--") else folder.name


def _first(repo: str, names: list[str], revision: str | None) -> Path | None:
    problem = None
    for name in filter(None, names):
        try:
            path = fetched(repo, name, revision)
        except (NotThere, OSError) as error:
            problem = problem or error
        else:
            for file in set(index_of(path).values()):
                fetched(repo, str(PurePosixPath(name).parent / file), revision)
            return path
    if problem and "" not in names:
        raise problem
    return None


def fetched(repo: str, file: str, revision: str | None = None) -> Path:
    """A file of a repository on huggingface.co, from huggingface's cache or the network, checked.

    revision: a branch, tag or commit; None: main. Raises UserError for a file that is not there, OSError without network.
    """
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ModuleNotFoundError:
        raise UserError(f"fetching {repo} needs one more package: pip install huggingface_hub") from None
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it would tell of each of its tries
    try:
        path = Path(hf_hub_download(repo, file, revision=revision))
    except LocalEntryNotFoundError:  # neither here nor reachable
        why = f"cannot fetch {file} of {repo} (no network, or huggingface.co does not answer)"
        raise OSError(f"{why}: try again, or name a folder that holds its files") from None
    except HFValidationError:
        raise UserError(f"{repo!r} is neither a folder nor an id on huggingface.co") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        gone = status in (401, 403, 404)
        why = "is not there, or not public" if gone else f"cannot be had (status {status})"
        problem = NotThere if gone else UserError
        raise problem(f"{repo} is no folder here, and its {file} on huggingface.co {why}") from None
    published = path.resolve().name  # large files lie in the cache under their sha256
    if len(published) == 64:
        with path.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        if digest != published:
            raise UserError(f"{path} is not the published file: delete {path.resolve()}, and it is fetched anew")
    return path
