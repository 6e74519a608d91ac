"""`minidiff list`: everything that a command accepts by name."""

from dataclasses import dataclass


@dataclass
class List:
    """List models, data sets, recipes, evaluations, samplers and whatever else a command accepts by name."""

    def run(self) -> None:
        from minidiff.data import DATASETS
        from minidiff.diffusion import GRIDS, GUIDANCES, PREDICTIONS, SAMPLERS, SCHEDULES
        from minidiff.evaluation import evaluations
        from minidiff.files import asset
        from minidiff.formats.clip import SHIPPED
        from minidiff.formats.model_folder import models
        from minidiff.training.recipes import recipes

        folders = models() | {name: asset(f"weights/{name}") for name in SHIPPED}
        bytes_of = {name: sum(path.stat().st_size for path in folders[name].rglob("*.safetensors")) for name in folders}
        described = {
            "model": {name: f"{size / 1e6:.1f} MB" for name, size in bytes_of.items()},
            "data set": {name: dataset.about() for name, dataset in DATASETS.items()},
            "recipe": {name: recipe.about for name, recipe in recipes().items()},
            "evaluation": {name: evaluation.about for name, evaluation in evaluations().items()},
        }
        named = dict(samplers=SAMPLERS, schedules=SCHEDULES, predictions=PREDICTIONS, grids=GRIDS, guidances=GUIDANCES)
        kinds = max(map(len, [*described, *named]))
        names = max(len(name) for known in described.values() for name in known)
        for kind, known in described.items():
            for name, about in known.items():
                print(f"{kind:{kinds}}  {name:{names}}  {about}")
        for kind, known in named.items():
            print(f"{kind:{kinds}}  {', '.join(known)}")
