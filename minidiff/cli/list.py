"""`minidiff list`: all that a command accepts by name."""

from dataclasses import dataclass


@dataclass
class List:
    """The models, samplers, schedules and data that are there."""

    def run(self) -> None:
        from minidiff.data.cifar import ARCHIVE, cifar10_path
        from minidiff.data.mnist import SPLITS
        from minidiff.diffusion import GRIDS, PREDICTIONS, SAMPLERS, SCHEDULES
        from minidiff.files import asset
        from minidiff.formats.clip import SHIPPED
        from minidiff.formats.model_folder import models

        for name, folder in (models() | {name: asset(f"weights/{name}") for name in SHIPPED}).items():
            size = sum(path.stat().st_size for path in folder.rglob("*.safetensors")) / 1e6
            print(f"model        {name} ({size:.1f} MB)")
        there = f"here: {cifar10_path()}" if cifar10_path().exists() else f"{ARCHIVE.size / 1e6:.0f} MB to be fetched"
        for name, splits, note in (("mnist", SPLITS, "comes with minidiff"), ("cifar10", ARCHIVE.splits, there)):
            sizes = ", ".join(f"{last - first:,} {split}" for split, (_, first, last) in splits.items())
            print(f"data         {name} ({sizes}; {note})")
        print("data         color_digits (drawn from mnist, with captions, when asked for)")
        print("data         emoji (1,556 in three styles, with names; comes with minidiff)")
        for kind, known in (
            ("samplers", SAMPLERS),
            ("schedules", SCHEDULES),
            ("predictions", PREDICTIONS),
            ("grids", GRIDS),
        ):
            print(f"{kind:13}{', '.join(known)}")
