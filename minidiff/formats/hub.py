"""Files of a repository on huggingface.co, by way of its own library and cache."""

import hashlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from minidiff.registry import UserError, choose


class NotThere(UserError):
    """A file that a repository does not have."""


def find(name: str, shipped: Mapping[str, Path], kind: str, hint: str, fetch: Callable[[str], Path]) -> Path:
    """The folder of a path, of an id, owner/name, that is fetched if need be, or of a shipped one."""
    if name and Path(name).is_dir():
        return Path(name)
    owner, _, repo = name.partition("/")
    if owner and repo and "/" not in repo and not owner.startswith((".", "~")) and not Path(owner).is_dir():
        return fetch(name)
    return choose(name, shipped, kind, hint)


def fetched(repo: str, file: str) -> Path:
    """A file of a repository on huggingface.co, from huggingface's cache or the network, checked.

    Raises UserError for one that is not there, OSError where there is no network.
    """
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ModuleNotFoundError:
        raise UserError(f"fetching {repo} needs one more package: pip install huggingface_hub") from None
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it would tell of each of its tries
    try:
        path = Path(hf_hub_download(repo, file))
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
