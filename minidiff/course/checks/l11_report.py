"""The exercise of lesson 11 about files: which of the tensors that a network needs are there, and fit?"""

import math

import torch
from torch import Tensor

from minidiff.course.checks.cases import Draw
from minidiff.course.checks.exercise import Bug, exercise

Shapes = dict[str, tuple[int, ...]]  # of the tensors, by name
PREFIX = "text_model."


def report(needed: Shapes, found: Shapes) -> Tensor:
    return _counts(needed, _short(found))


def _short(found: Shapes) -> Shapes:
    return {name.removeprefix(PREFIX): shape for name, shape in found.items()}


def _counts(needed: Shapes, found: Shapes, fits=lambda a, b: tuple(a) == tuple(b)) -> Tensor:
    both = needed.keys() & found.keys()
    other = sum(not fits(needed[name], found[name]) for name in both)
    return torch.tensor([len(needed.keys() - both), len(found.keys() - both), other])


def _with(look):
    """report whose three counts are changed afterwards, or counted otherwise: (needed, found without prefix) -> counts."""
    return lambda needed, found: look(needed, _short(found))


def _ordered(needed: Shapes, found: Shapes) -> Tensor:
    pairs = list(zip(needed.items(), found.items(), strict=False))
    other = sum(a[1] != b[1] for a, b in pairs)
    return torch.tensor([len(needed) - len(pairs), len(found) - len(pairs), other])


def _missing_too(needed: Shapes, found: Shapes) -> Tensor:
    missing, unexpected, other = _counts(needed, found)
    return torch.stack([missing + other, unexpected + other, other])


def _given(d: Draw):
    """A network's tensors and a file's: the same, turned over, of another rank, missing or not needed; in any order."""
    names = [
        "conv.weight",
        "a.text_model.bias",
        "layers.0.fc1.weight",
        "layers.0.fc1.bias",
        "norm.weight",
        "text_projection",
        "scale",
    ]
    others = {
        (4, 6): [(6, 4), (2, 12), (4, 7)],
        (8,): [(8, 1), (9,)],
        (3, 2, 2): [(2, 2, 3), (3, 4), (3, 2)],
        (): [(1,)],
    }
    needed, found = {}, {}
    for name in d.random.sample(names, len(names)):
        shape = d.random.choice(list(others))
        fate = d.random.choice(["same", "same", "other", "missing", "not needed"])
        needed |= {name: shape} if fate != "not needed" else {}
        found |= {name: shape if fate != "other" else d.random.choice(others[shape])} if fate != "missing" else {}
    prefix = d.choose("names", {"": "", "every name in the file begins with text_model.": PREFIX})
    return needed, {prefix + name: found[name] for name in d.random.sample(list(found), len(found))}


exercise(
    "l11_report",
    report,
    _given,
    (
        Bug(
            _counts,
            "names that were compared with their prefix. One of two dialects puts `text_model.` before every name.",
            "the names that were found: the prefix has to go before you compare.",
            "you never get to see one: everything is reported missing, though it is all there.",
            "https://github.com/d8ahazard/sd_dreambooth_extension/issues/6",
        ),
        Bug(
            lambda needed, found: _counts(needed, {name.replace(PREFIX, ""): shape for name, shape in found.items()}),
            "a prefix that was taken out wherever it stands; it is one at the beginning alone.",
            "`replace`, where `removeprefix` is asked for.",
            "you never get to see one: a tensor is stored under a name that is not its own.",
        ),
        Bug(
            lambda needed, found: _counts(needed, {name.split(".", 1)[-1]: shape for name, shape in found.items()}),
            "the first word of every name taken away, whatever it is.",
            "which word goes: `text_model.` and no other.",
            "you never get to see one: the report lists names that do not exist.",
        ),
        Bug(
            _with(lambda needed, found: _counts(needed, found)[[1, 0, 2]]),
            "missing and unexpected exchanged.",
            "which comes first: needed and not found is missing.",
            "there is no visible effect, but the message sends people to the wrong file.",
        ),
        Bug(
            _with(lambda needed, found: _counts(needed, found, lambda a, b: math.prod(a) == math.prod(b))),
            "tensors that were compared by how many numbers they hold. A matrix that lies on its side holds as many.",
            "what you compare: shapes.",
            "noise: every row of that layer mixes up others.",
        ),
        Bug(
            _with(lambda needed, found: _counts(needed, found, lambda a, b: len(a) == len(b))),
            "tensors that were compared by how many axes they have.",
            "what you compare: shapes, with all their numbers.",
            "you never get to see one: loading fails later, when the tensors are copied.",
        ),
        Bug(
            _with(lambda needed, found: _counts(needed, found, lambda a, b: a[:1] == b[:1])),
            "shapes of which the first number alone was compared.",
            "how much of the shapes you compare.",
            "you never get to see one: loading fails later, when the tensors are copied.",
        ),
        Bug(
            _with(lambda needed, found: _counts(needed, found, lambda a, b: sorted(a) == sorted(b))),
            "shapes that were compared in any order. A matrix that lies on its side is another one.",
            "whether the order of a shape's numbers counts: it does.",
            "noise, or an error when the tensors are copied.",
        ),
        Bug(
            _with(_ordered),
            "tensors that were paired by their order. A file keeps them in an order of its own.",
            "how you find the partner of a tensor: by its name.",
            "noise, where all shapes happen to fit.",
        ),
        Bug(
            _with(_missing_too),
            "a tensor of another shape that was also called missing and unexpected. It is there.",
            "sets of (name, shape): compare names first, then the shapes of those that are in both.",
            "there is no visible effect, but people search for a tensor that is there.",
        ),
        Bug(
            _with(lambda needed, found: torch.cat([_counts(needed, found)[:2], torch.zeros(1, dtype=torch.int64)])),
            "shapes that were never compared.",
            "the third number.",
            "you never get to see one: loading fails later, when the tensors are copied.",
        ),
        Bug(
            _with(lambda needed, found: _counts(needed, found) * torch.tensor([1, 0, 1])),
            "tensors that the network does not need, and that went unnoticed. They show that the file belongs to another network.",
            "the second number: found and not needed.",
            "good ones, but of half a network: the rest of the file is ignored.",
        ),
        Bug(
            _with(lambda needed, found: (_counts(needed, found) > 0).int()),
            "whether there are any, in place of how many.",
            "what is asked for: three counts.",
            "there is no visible effect, but the report says less than it should.",
        ),
        Bug(
            _with(
                lambda needed, found: torch.tensor(
                    [max(len(needed) - len(found), 0), max(len(found) - len(needed), 0), int(_counts(needed, found)[2])]
                )
            ),
            "the difference of two lengths. One that is missing and one that is too many cancel out.",
            "which names they are: count those of a difference of sets.",
            "there is no visible effect, but a wrong file of the right length is accepted.",
        ),
    ),
    returns="three numbers",
    points=2,
)
