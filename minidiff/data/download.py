"""Downloads: the published file, whole and checked, or one line that says why not."""

import shutil
from pathlib import Path

from minidiff.files import made_folder
from minidiff.registry import UserError


def fetch(url: str, path: str | Path, size: int, sha256: str) -> Path:
    """The file `path`, of `size` bytes and this SHA-256; downloaded from `url` if it is not there, and checked in any case.

    Raises UserError for a file that is not the published one, OSError for no network, no permission or no space.
    """
    import pooch
    from requests import RequestException

    path = Path(path)
    by_hand = f"try again, or put {path.name} into the folder {path.parent} by hand"
    try:
        with made_folder(path.parent):
            if not path.exists():
                if (free := shutil.disk_usage(path.parent).free) < size:
                    raise OSError(f"it needs {size / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free")
                pooch.get_logger().setLevel("WARNING")
                http = pooch.HTTPDownloader(progressbar=True, chunk_size=1 << 18, timeout=30)
                pooch.retrieve(url, f"sha256:{sha256}", path.name, path.parent, downloader=http)
                path.chmod(0o644)  # the temporary file was private
        found = path.stat().st_size  # first: a file that has it ends
        digest = pooch.file_hash(str(path)) if found == size else "not computed"
    except RequestException as error:
        why = type(error).__name__ if error.response is None else f"HTTP error {error.response.status_code}"
        raise OSError(f"cannot fetch {url} ({why}): {by_hand}") from None
    except OSError as error:
        why = error.strerror or str(error).split(" | ")[0]
        raise OSError(f"cannot keep {path.name} in the folder {path.parent}: {why}") from None
    except ValueError:  # the checksum of what came is wrong
        raise UserError(f"what came from {url} is not the published file, and was deleted: {by_hand}") from None
    if (found, digest) != (size, sha256):
        expected = f"expected {size:,} and {sha256}. Delete it, and it is downloaded again"
        raise UserError(f"{path} is not the published file: it has {found:,} bytes and the sha256 {digest}, {expected}")
    return path
