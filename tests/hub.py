"""A hub of models on this machine, that serves files as huggingface.co does."""

import hashlib
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler

import pytest
from served import listening


@contextmanager
def hub(files, damaged=(), repo="someone/clip"):
    """A repository "someone/clip" or another of someone's, as huggingface.co serves one; yields (address, what was asked for).

    Large files are known by their sha256. damaged: files whose bytes are not those that were published.
    """
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def head(self):
            asked.append(f"{self.command} {self.path}")
            file = self.path.removeprefix(f"/{repo}/resolve/").partition("/")[2]  # of main, or of a commit
            if file not in files:
                self.send_response(404)
                known = self.path.startswith(f"/{repo}/")
                self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            content = files[file]
            large = file.endswith(".safetensors")
            etag = (hashlib.sha256(content) if large else hashlib.sha1(content)).hexdigest()
            self.send_response(200)
            self.send_header("ETag", f'"{etag}"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            return content[:-1] + b"?" if file in damaged else content

        def do_HEAD(self):
            self.head()

        def do_GET(self):
            if content := self.head():
                self.wfile.write(content)

        def log_message(self, *_):
            pass

    with listening(Handler) as address:
        yield address, asked


@pytest.fixture
def at(monkeypatch, tmp_path):
    """Let the hub be at this address, and its cache in an empty folder."""
    package = pytest.importorskip("huggingface_hub")
    original = package.hf_hub_download
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # it tries again and again, with longer and longer pauses
    monkeypatch.setenv("no_proxy", "*")  # the servers are on this machine

    def set(address):
        monkeypatch.setattr(
            package,
            "hf_hub_download",
            partial(original, endpoint=address, cache_dir=tmp_path / "cache", etag_timeout=2),
        )

    return set
