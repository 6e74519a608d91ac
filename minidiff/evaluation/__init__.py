"""How good is a model? One file for each way to find out, registered in EVALUATIONS, and the measures they share."""

from pathlib import Path

from minidiff import data
from minidiff.device import pick_device
from minidiff.evaluation.labelled import labelled_evaluation
from minidiff.evaluation.report import EVALUATIONS, Evaluation, Model
from minidiff.formats.clip import SHIPPED, load_clip
from minidiff.networks import CLIP
from minidiff.pipeline.text_to_image import TextToImage
from minidiff.registry import choose, discover

__all__ = ["EVALUATIONS", "Evaluation", "evaluations", "fitting", "load"]

discover(__name__)


def evaluations() -> dict[str, Evaluation]:
    """Every evaluation, by name: EVALUATIONS, and that of each labelled data set that has none of its own."""
    others = {name: labelled_evaluation(name) for name in data.labelled() if name not in EVALUATIONS}
    return dict(sorted((EVALUATIONS | others).items()))  # in one order, whatever was imported first


def load(name: str, device: str | None = None) -> Model:
    """A CLIP with its tokenizer, or a TextToImage alone: a shipped model, or one in a folder. Raises UserError."""
    if name in SHIPPED or (Path(name) / "clip.json").exists():
        return load_clip(name, pick_device(device))
    return (TextToImage.load(name, device),)


def fitting(model: Model, name: str | None = None) -> Evaluation:
    """The evaluation called `name`; None: the model's own. Raises UserError where it cannot measure the model.

    A TextToImage has its own by its name, else by the data set of its labels. A CLIP has no name: by its image size.
    """
    first, known = model[0], evaluations()
    if isinstance(first, CLIP):
        names, size = list(known), (3, *2 * [first.config.vision.size])
    else:
        config, size = first.config, first.config.picture
        names = [config.name] if config.text else [config.name, config.labels]
    fit = {k: e for k, e in known.items() if isinstance(first, e.of) and data.DATASETS[e.dataset].picture == size}
    name = name or next((own for own in names if own in fit), names[0])
    kind = f"evaluation for {'x'.join(map(str, size))} images"
    return choose(name, fit, kind, ": choose one with --evaluation" if fit else "")
