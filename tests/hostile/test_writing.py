"""What is written is there as a whole or not at all, under its own name, and nothing of anybody's is touched."""

import errno
import io
import os
import resource
import sys

import pytest
from hostile.harness import command, listing

from minidiff import files
from minidiff.cli.main import main
from minidiff.registry import LINE, UserError, one_line, say

DRAW = ["sample", "7", "--steps", "1", "--device", "cpu", "--out"]


def test_names_that_cannot_be_written(trial):
    os.mkdir("folder.png")
    os.mkdir("locked")
    names = ["folder.png", "x.txt", "x", ".png", "", ".", "/", "none/x.png", "x" * 300 + ".png", "ü" * 200 + ".png", "/dev/null", "/proc/x.png", "x.png/y.png",
             "\x1b[2J.txt", "\u202e.txt", "new\nline.txt", "x.PNG.exe", "x.pt", "x.svg", "-"]  # fmt: skip
    for name in names:
        trial.refused(*DRAW, name)


def test_odd_names_that_can_be_written(trial, monkeypatch):
    for name in (
        "ä ö ü.png",
        "\x1b[2J.png",
        "日本.webp",
        "a'b\"c;d.png",
        "x" * 251 + ".png",
        "UPPER.PNG",
        "\udcff.png",
    ):
        terminal = io.TextIOWrapper(raw := io.BytesIO(), "ascii")
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", terminal)
            main([*DRAW, name])
        assert b": 1 image\n" in raw.getvalue() and b"\x1b" not in raw.getvalue()
        assert list(listing(trial.folder)) == [name]
        os.unlink(name)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EIO, errno.EDQUOT])
def test_a_disk_that_is_full(trial, monkeypatch, number):
    (trial.folder / "x.png").write_bytes(b"precious")

    def full(*_):
        raise OSError(number, os.strerror(number))

    for function in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(files.os, function, full)
            trial.refused(*DRAW, "x.png", says=f"cannot write x.png: {os.strerror(number)}")
    assert (trial.folder / "x.png").read_bytes() == b"precious"


def test_a_limit_on_the_size_of_files(trial):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        trial.refused(*DRAW, "x.png", says="cannot write x.png: File too large")
        trial.refuses(lambda: files.write("y.json", "x" * 101), says="cannot write y.json: File too large")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_ctrl_c_while_it_is_written(trial, monkeypatch):
    def pressed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", pressed)
    with pytest.raises(KeyboardInterrupt):
        files.write("x.txt", "new")
    assert listing(trial.folder) == {}


def test_links_are_not_followed(trial, monkeypatch):
    """The part file's name is nobody's; should somebody guess it, the link is not written through."""
    (trial.folder / "precious").write_bytes(b"precious")
    for name in (".x.png.part", "x.png.part", ".x.png.tmp"):
        os.symlink("precious", name)
    assert command(*DRAW, "x.png").code == 0
    monkeypatch.setattr(files.secrets, "token_hex", lambda n: "guessed")
    os.symlink("precious", ".minidiff-guessed.part")
    trial.refused(*DRAW, "y.png")
    assert (trial.folder / "precious").read_bytes() == b"precious" and os.path.islink(".minidiff-guessed.part")
    os.symlink("precious", "link.png")
    monkeypatch.undo()
    files.write(trial.folder / "link.png", "new")  # the link is replaced, what it points to is not
    assert (trial.folder / "precious").read_bytes() == b"precious"


def test_a_terminal_that_is_gone_does_not_undo_the_work(trial, monkeypatch):
    class Gone(io.StringIO):
        def flush(self):
            if self.getvalue():
                raise BrokenPipeError(errno.EPIPE, "Broken pipe")

        def fileno(self):
            return spare

    spare = os.dup(1)
    monkeypatch.setattr(sys, "stdout", Gone())
    main([*DRAW, str(trial.folder / "x.png")])  # no SystemExit
    os.close(spare)
    assert list(listing(trial.folder)) == ["x.png"]


@pytest.mark.parametrize(
    "text",
    ["\x1b[31m", "a\nb", "\x07", "\u202eabc", "\x9b2J", "\udcff", "\u2028", "\x00", "a\rb", "\u200b", "x" * 10**6],
)
def test_messages_have_an_end_and_no_control(text, capsys):
    for message in (str(UserError(text)), one_line(text)):
        assert message.isprintable() and len(message) <= LINE + 5
    say(text)
    out = capsys.readouterr().out
    assert out.endswith("\n") and out[:-1].isprintable()
