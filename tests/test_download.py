"""Downloads: fetched once, checked, nothing left half there, and one clear line for whatever can go wrong."""

import gc
import hashlib
import os
import tempfile
from pathlib import Path

import pytest
from served import serve

from minidiff.data import download
from minidiff.data.download import fetch
from minidiff.registry import UserError

CONTENT = bytes(range(256)) * 40
SIZE, SHA256 = len(CONTENT), hashlib.sha256(CONTENT).hexdigest()


# requests leaves the socket of an answer that broke off, or was refused, to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(autouse=True)
def direct(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")  # these servers are on this machine
    yield
    gc.collect()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "folder" / "data.tar.gz"


def refused(kind, url, path, size=SIZE):
    with pytest.raises(kind) as problem:
        fetch(url, path, size, SHA256)
    assert type(problem.value) is kind  # none of its many subclasses
    assert "\n" not in str(problem.value)
    return str(problem.value)


def test_a_file_is_fetched_once_and_alone_in_its_folder(path):
    with serve(CONTENT) as (url, asked):
        for _ in range(2):
            assert fetch(url, path, SIZE, SHA256) == path and path.read_bytes() == CONTENT
        assert len(asked) == 1
    assert list(path.parent.iterdir()) == [path] and path.stat().st_mode & 0o777 == 0o644
    assert fetch("http://127.0.0.1:9/gone", str(path), SIZE, SHA256) == path  # needs no network any more


@pytest.mark.parametrize("content", [CONTENT[:-1] + b"\0", CONTENT[:5000], CONTENT + b"more"])
def test_another_file_is_not_kept(path, content):
    with serve(content) as (url, _):
        problem = refused(UserError, url, path)
    assert f"what came from {url} is not the published file" in problem and f"into the folder {path.parent}" in problem
    assert not path.parent.parent.exists()


def test_a_download_that_breaks_off_leaves_nothing(path):
    with serve(CONTENT, breaks=4000) as (url, _):
        assert f"cannot fetch {url} (ChunkedEncodingError): try again" in refused(OSError, url, path)
    assert not path.parent.parent.exists()


@pytest.mark.parametrize("damage, problem", [(CONTENT[:-9], "has 10,231 bytes"), (CONTENT[::-1], "and the sha256 ")])
def test_a_file_put_there_by_hand_is_checked_and_not_changed(path, damage, problem):
    path.parent.mkdir(parents=True)
    path.write_bytes(damage)
    with serve(CONTENT) as (url, asked):
        said = refused(UserError, url, path)
        assert asked == []
    assert problem in said and "Delete it, and it is downloaded again" in said
    assert path.read_bytes() == damage


@pytest.mark.parametrize("status", [404, 503])
def test_a_server_that_refuses(path, status):
    with serve(CONTENT, status=status) as (url, _):
        assert f"cannot fetch {url} (HTTP error {status})" in refused(OSError, url, path)
    assert not path.parent.parent.exists()


@pytest.mark.parametrize("host", ["127.0.0.1:9", "no-such-host.invalid"])
def test_no_network_names_the_address_and_the_folder(path, host):
    problem = refused(OSError, f"http://{host}/data.tar.gz", path)
    assert f"cannot fetch http://{host}/data.tar.gz" in problem
    assert f"put data.tar.gz into the folder {path.parent} by hand" in problem
    assert not path.parent.parent.exists()


@pytest.fixture
def somebody():
    """Not the administrator, whom no folder refuses anything."""
    administrator = os.geteuid() == 0
    if administrator:
        os.seteuid(65534)
    yield
    if administrator:
        os.seteuid(0)


def test_a_folder_without_rights(somebody):
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        with serve(CONTENT) as (url, _):
            for path in (Path(folder) / "data.tar.gz", Path(folder) / "deeper" / "data.tar.gz"):
                problem = refused(OSError, url, path)
                assert f"cannot keep data.tar.gz in the folder {path.parent}: " in problem
                assert "Permission denied" in problem
        os.chmod(folder, 0o000)
        assert "Permission denied" in refused(OSError, url, Path(folder) / "data.tar.gz")
        os.chmod(folder, 0o755)
        assert list(Path(folder).iterdir()) == []


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    assert "File exists" in refused(OSError, "http://127.0.0.1:9/", tmp_path / "file" / "data.tar.gz")


def test_a_disk_that_is_full(path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.move", full)
    with serve(CONTENT) as (url, _):
        assert f"in the folder {path.parent}: No space left on device" in refused(OSError, url, path)
    assert not path.parent.parent.exists()


def test_a_disk_that_will_be_full(path, monkeypatch):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 2_000_000}))
    assert "it needs 5 MB, 2 MB are free" in refused(OSError, "http://127.0.0.1:9/", path, 5_000_000)
    assert not path.parent.parent.exists()
