"""For the tests of downloads: a small CIFAR-10 archive in the real format, and a server on this machine."""

import hashlib
import io
import tarfile
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from minidiff.data.cifar import TRAIN_FILES, Archive

RECORDS = 20
FILES = (*TRAIN_FILES, "test_batch.bin")


def batch(number: int, records: int = RECORDS) -> bytes:
    """One file of the archive: picture k has label (k + number) % 10 and planes of k, k + 1 and k + 2."""
    rows = [np.repeat([k, k + 1, k + 2], 1024) for k in range(records)]
    labels = [[(k + number) % 10] for k in range(records)]
    return np.hstack([labels, rows]).astype(np.uint8).tobytes()


def archive(files: dict[str, bytes] | None = None) -> bytes:
    """The archive; `files` take the place of its own, None leaves one out."""
    files = {name: batch(i) for i, name in enumerate(FILES)} | (files or {})
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in {"batches.meta.txt": b"airplane\n", **dict(reversed(files.items()))}.items():
            if content is not None:
                info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def described(content: bytes, url: str = "http://127.0.0.1:9/cifar-10-binary.tar.gz") -> Archive:
    """What `minidiff.data.cifar.ARCHIVE` would have to say of it."""
    return Archive(url, len(content), hashlib.sha256(content).hexdigest(), RECORDS, validation=10)


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler]):
    """A server on this machine; yields its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def serve(content: bytes, *, breaks: int | None = None, status: int | None = None):
    """Serve it; yields (url, the paths asked for so far).

    breaks: bytes after which the connection ends. status: an error to answer with.
    """
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            if status:
                return self.send_error(status)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[:breaks])

        def log_message(self, *_):
            pass

    with listening(Handler) as address:
        yield f"{address}/cifar-10-binary.tar.gz", asked
