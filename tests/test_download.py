"""Downloads: whole, resumed, checked; and one clear line for whatever can go wrong."""

import hashlib
import os
import tempfile
from pathlib import Path

import pytest
from served import serve

from minidiff.data import download
from minidiff.data.download import fetch

CONTENT = bytes(range(256)) * 40
SIZE, SHA256 = len(CONTENT), hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def direct(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")  # these servers are on this machine


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "folder" / "data.tar.gz"


@pytest.fixture
def part(path):
    path.parent.mkdir(parents=True)
    return path.with_name("data.tar.gz.part")


def refused(kind, url, path, size=SIZE, sha256=SHA256):
    with pytest.raises(kind) as problem:
        fetch(url, path, size, sha256)
    assert type(problem.value) is kind  # none of its many children
    assert "\n" not in str(problem.value)
    return str(problem.value)


def test_a_file_is_fetched_once_and_alone_in_its_folder(path):
    with serve(CONTENT) as (url, asked):
        for _ in range(2):
            assert fetch(url, path, SIZE, SHA256) == path and path.read_bytes() == CONTENT
        assert asked == [None]
    assert list(path.parent.iterdir()) == [path]
    assert fetch("http://127.0.0.1:9/gone", str(path), SIZE, SHA256) == path  # no network needed any more


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_broke_off_is_gone_on_with(path, ranges):
    with serve(CONTENT, breaks=4000) as (url, _):
        problem = refused(OSError, url, path)
    assert "broke off after 4,000 of 10,240 bytes, which are kept: try again" in problem
    assert not path.exists() and path.with_name("data.tar.gz.part").read_bytes() == CONTENT[:4000]
    with serve(CONTENT, ranges=ranges) as (url, asked):
        assert fetch(url, path, SIZE, SHA256).read_bytes() == CONTENT
        assert asked == ["bytes=4000-"]  # a server that cannot do that sends all, and all is taken
    assert list(path.parent.iterdir()) == [path]


def test_many_breaks(path):
    with serve(CONTENT, breaks=3000) as (url, asked):
        for _ in range(3):
            refused(OSError, url, path)
        assert fetch(url, path, SIZE, SHA256).read_bytes() == CONTENT
        assert asked == [None, "bytes=3000-", "bytes=6000-", "bytes=9000-"]


def test_a_download_that_was_stopped_before_the_check_is_not_fetched_again(path, part):
    part.write_bytes(CONTENT)
    assert fetch("http://127.0.0.1:9/gone", path, SIZE, SHA256).read_bytes() == CONTENT and not part.exists()


def test_a_part_that_is_too_long_is_begun_anew(path, part):
    part.write_bytes(CONTENT + b"more")
    with serve(CONTENT) as (url, asked):
        assert fetch(url, path, SIZE, SHA256).read_bytes() == CONTENT and asked == [None]


def test_a_wrong_checksum(path):
    wrong = CONTENT[:-1] + b"\0"
    with serve(wrong) as (url, _):
        problem = refused(ValueError, url, path)
    assert SHA256 in problem and hashlib.sha256(wrong).hexdigest() in problem and "thrown away" in problem
    assert list(path.parent.iterdir()) == []


def test_half_of_another_file_is_noticed(path, part):
    part.write_bytes(b"another file".ljust(4000))
    with serve(CONTENT) as (url, _):
        assert "expected " + SHA256 in refused(ValueError, url, path)
        assert list(path.parent.iterdir()) == []
        assert fetch(url, path, SIZE, SHA256) == path  # the next try begins anew


@pytest.mark.parametrize("there", [0, 6000], ids=["from nothing", "with more than it has"])
def test_a_file_of_another_size(path, part, there):
    part.write_bytes(CONTENT[:there])
    with serve(CONTENT[:5000]) as (url, _):
        problem = refused(ValueError, url, path)
    assert "has 5,000 bytes, expected 10,240" in problem
    assert not path.exists() and part.exists() == bool(there)


@pytest.mark.parametrize("damage, problem", [(CONTENT[:-9], "cut short"), (CONTENT[::-1], "its sha256 is")])
def test_a_file_put_there_by_hand_is_checked_and_not_touched(path, part, damage, problem):
    path.write_bytes(damage)
    with serve(CONTENT) as (url, asked):
        said = refused(ValueError, url, path)
        assert asked == []
    assert problem in said and "Delete it, and it is fetched anew" in said
    assert path.read_bytes() == damage


@pytest.mark.parametrize("status", [404, 503])
def test_a_server_that_refuses(path, status):
    with serve(CONTENT, status=status) as (url, _):
        problem = refused(OSError, url, path)
    assert f"cannot fetch {url} (HTTP Error {status}" in problem
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("host", ["127.0.0.1:9", "no-such-host.invalid"])
def test_no_network_names_the_address_and_the_folder(path, host):
    problem = refused(OSError, f"http://{host}/data.tar.gz", path)
    assert f"cannot fetch http://{host}/data.tar.gz" in problem
    assert f"put data.tar.gz into the folder {path.parent} by hand" in problem
    assert list(path.parent.iterdir()) == []


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
                assert f"cannot keep data.tar.gz in the folder {path.parent}: Permission denied" in problem
        os.chmod(folder, 0o000)
        assert "Permission denied" in refused(OSError, url, Path(folder) / "data.tar.gz")
        os.chmod(folder, 0o755)
        assert list(Path(folder).iterdir()) == []


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    assert "File exists" in refused(OSError, "http://127.0.0.1:9/", tmp_path / "file" / "data.tar.gz")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_disk_that_is_full(path, part):
    part.symlink_to("/dev/full")
    with serve(CONTENT) as (url, _):
        assert f"in the folder {path.parent}: No space left on device" in refused(OSError, url, path)
    assert not path.exists()


def test_a_disk_that_will_be_full(path, monkeypatch):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 2_000_000}))
    content = bytes(5_000_000)
    with serve(content) as (url, _):
        problem = refused(OSError, url, path, len(content), hashlib.sha256(content).hexdigest())
    assert "5 MB are to come, 2 MB are free" in problem and list(path.parent.iterdir()) == []
