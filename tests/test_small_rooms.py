"""Files, pictures of pictures, the doctor, the device: the rooms around the mathematics."""

import hashlib
import importlib.util
import io
import re
from fnmatch import fnmatch

import pytest
import torch
from PIL import Image

from minidiff import files, image_files
from minidiff.cli import doctor
from minidiff.device import pick_device


def test_a_file_is_whole_or_not_there(tmp_path, monkeypatch):
    path = tmp_path / "x.txt"
    files.write(path, "old")

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(OSError, match="cannot write .*x.txt: no space"):
        files.write(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_missing_assets_say_what_to_do():
    with pytest.raises(FileNotFoundError, match="assets/nothing is missing: clone or install"):
        files.asset("nothing")


def test_the_shipped_files_are_whole_and_all_are_listed():
    assert files.damaged_assets() == []
    root = files.asset("SHA256SUMS").parent
    listed = {line.split(maxsplit=1)[1] for line in (root / "SHA256SUMS").read_text().splitlines()}
    files_there = {path.relative_to(root).as_posix() for path in root.rglob("*.*") if path.is_file()}
    assert listed == {
        name for name in files_there if not name.startswith("images/") and not name.endswith((".py", ".md"))
    }
    named = re.findall(r"`([^`]+)`", (root / "README.md").read_text())
    assert [name for name in listed if not any(fnmatch(name, pattern) for pattern in named)] == []
    assert sum((root / name).stat().st_size for name in listed if name.startswith("weights/mnist")) <= 3_000_000


def test_damage_is_found(tmp_path, monkeypatch):
    (tmp_path / "SHA256SUMS").write_text("0" * 64 + "  a.bin\n" + "0" * 64 + "  b.bin\n")
    (tmp_path / "a.bin").write_bytes(b"changed")
    monkeypatch.setattr(files, "ROOTS", (tmp_path,))
    changed, gone = files.damaged_assets()
    digest = hashlib.sha256(b"changed").hexdigest()
    assert changed == f"assets/a.bin is damaged: its SHA-256 is {digest}, of the published file {'0' * 64}"
    assert gone == "assets/b.bin is missing"
    with pytest.raises(
        ValueError, match=f"a.bin is damaged: .*{digest}.* Get it back: git checkout assets, or install"
    ):
        files.asset("a.bin")
    (tmp_path / "SHA256SUMS").write_text(f"{digest}  a.bin\n")
    assert files.damaged_assets() == [] and files.asset("a.bin") == tmp_path / "a.bin"
    (tmp_path / "SHA256SUMS").unlink()
    assert files.damaged_assets() == ["assets/SHA256SUMS is missing"]


def test_a_sheet_shows_every_pixel():
    pictures = torch.zeros(3, 1, 2, 2)
    pictures[1] = 1.0
    image = image_files.sheet(pictures, columns=2, zoom=4, border=2)
    assert image.size == (2 * (8 + 4) + 4, 2 * (8 + 4) + 4)
    assert (image.mode, image_files.sheet(torch.rand(1, 3, 2, 2), 1).mode) == ("L", "RGB")
    assert image.getpixel((4 + 8 + 4 + 3, 7)) == 255  # the second picture
    assert image.getpixel((7, 7)) == image.getpixel((7, 19)) == 0  # first and third


@pytest.mark.parametrize("suffix", image_files.STILL + image_files.MOVING)
def test_every_kind_of_file_can_be_read_again(suffix):
    frames = [image_files.sheet(torch.full((1, 1, 4, 4), v), 1) for v in (0.0, 0.5, 1.0)]
    data = image_files.encode(frames if suffix in image_files.MOVING else frames[0], suffix)
    image = Image.open(io.BytesIO(data))
    assert image.size == frames[0].size
    if suffix in image_files.MOVING:
        still = suffix == ".apng"  # and the last frame in front, for viewers that do not play it
        assert image.n_frames == 3 + still
        assert abs(image.convert("L").getpixel((9, 9)) - (255 if still else 0)) < 3


def test_devices():
    assert pick_device("cpu").type == "cpu"
    assert pick_device().type in ("cpu", "cuda", "mps")
    for wrong in ("tpu", "nonsense", "meta"):
        with pytest.raises(ValueError, match=f"no device '{wrong}' here; there is .*cpu"):
            pick_device(wrong)


def test_the_doctor_says_what_to_type(monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ipywidgets" else find(name))
    monkeypatch.setattr(files, "damaged_assets", lambda: ["assets/mnist/t10k-images-idx3-ubyte.gz is missing"])
    assert doctor.examine() == 1
    said = capsys.readouterr().out
    assert 'BAD  widgets: ipywidgets is missing\n     type: pip install -e ".[notebooks]"' in said
    assert "BAD  assets/mnist/t10k-images-idx3-ubyte.gz is missing\n     type: git checkout assets" in said
    assert "2 things to mend" in said


def test_the_doctor_finds_a_missing_kernel(monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ipykernel" else find(name))
    monkeypatch.setattr(doctor, "CHECKS", [doctor.notebooks])
    assert doctor.examine() == 1
    assert 'ipykernel is missing\n     type: pip install -e ".[notebooks]"' in capsys.readouterr().out


def test_the_doctor_finds_a_kernel_of_another_environment(monkeypatch, tmp_path):
    well, _, _ = doctor.kernel()
    assert well
    spec = tmp_path / "kernels/python3/kernel.json"  # as an installation that is gone has left it behind
    spec.parent.mkdir(parents=True)
    spec.write_text('{"argv": ["/old/bin/python", "-m", "ipykernel_launcher"], "display_name": "Python 3"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    well, found, advice = doctor.kernel()
    assert not well and "runs /old/bin/python, which is not this environment" in found
    assert advice == "python -m ipykernel install --sys-prefix"


def test_the_doctor_survives_what_breaks(monkeypatch, capsys):
    def broken():
        raise RuntimeError("operator torchvision::nms does not exist\nmore")

    monkeypatch.setattr(doctor, "CHECKS", [broken, doctor.python])
    assert doctor.examine() == 1
    said = capsys.readouterr().out
    assert "BAD  broken: operator torchvision::nms does not exist\n" in said and "ok   Python" in said
