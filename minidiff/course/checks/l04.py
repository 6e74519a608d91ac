"""Exercises of lesson 04, judging: what is measured picture by picture."""

import torch
from torch import Tensor, nn

from minidiff.course.checks.cases import Draw, noise
from minidiff.course.checks.exercise import Bug, exercise
from minidiff.course.checks.trial import Failure

# Accuracy, digit by digit -------------------------------------------------------------------


def accuracy_by_class(answers: Tensor, wanted: Tensor, classes: int) -> Tensor:
    return torch.stack([(answers[wanted == d] == d).double().mean() for d in range(classes)])


def _accuracy_given(d: Draw):
    """Every class is wanted; in some cases one is never answered."""
    classes, n = d.whole("classes", 2, 4), d.random.randint(1, 6)
    wanted = torch.cat([torch.arange(classes), d.labels(n, classes)])[
        torch.tensor(d.random.sample(range(classes + n), classes + n))
    ]
    answers = torch.where(d.labels(classes + n, 2) > 0, wanted, d.labels(classes + n, classes))
    never = d.choose("answers", {"": classes, "class 0 is never answered": 0, "no answer is right": -1})
    answers = (wanted + 1) % classes if never < 0 else torch.where(answers == never, 1, answers)
    return answers, wanted, classes


exercise(
    "l04_accuracy",
    accuracy_by_class,
    _accuracy_given,
    (
        Bug(
            lambda answers, wanted, classes: (answers == wanted).double().mean(),
            "one accuracy over all pictures; the exercise asks for one for each class.",
            "the pictures you take the mean over: only those asked for as this class.",
            "a model that fails at every eight and at nothing else looks nine tenths good.",
        ),
        Bug(
            lambda answers, wanted, classes: torch.stack(
                [(wanted[answers == d] == d).double().mean() for d in range(classes)]
            ),
            "precision, the fraction of pictures read as d that were meant to be d.",
            "the mask: it should go by what was wanted, not by what was read.",
            "a class that is hardly ever drawn looks perfect, if those few are right.",
            "https://github.com/NVlabs/splatnet/issues/17",
        ),
        Bug(
            lambda answers, wanted, classes: torch.stack(
                [((answers == d) & (wanted == d)).double().mean() for d in range(classes)]
            ),
            "hits divided by the number of all pictures, not by that of the class.",
            "the divisor, which is how many were asked for as d.",
            "no class gets above its own fraction of the data, and all look bad.",
        ),
        Bug(
            lambda answers, wanted, classes: torch.stack(
                [((answers == d) & (wanted == d)).double().sum() for d in range(classes)]
            ),
            "counts instead of fractions.",
            "the last operation: a mean instead of a sum.",
            "frequent classes look better than rare ones.",
        ),
        Bug(
            lambda answers, wanted, classes: torch.stack(
                [((answers == d) == (wanted == d)).double().mean() for d in range(classes)]
            ),
            "agreement on 'is it a d or not' over all pictures: most are no d, and rightly not read as one.",
            "the pictures you take the mean over.",
            "every class is far above its accuracy, even one that is always misread.",
            "https://github.com/elastic/elasticsearch/issues/53861",
        ),
        Bug(
            lambda answers, wanted, classes: 1 - accuracy_by_class(answers, wanted, classes),
            "the error rate.",
            "the comparison: count what agrees.",
            "the best class looks worst.",
        ),
        Bug(
            lambda answers, wanted, classes: torch.stack(
                [(answers == d).sum() / (wanted == d).sum() for d in range(classes)]
            ),
            "how often d was read, over how often it was asked for, without checking that it was the same picture.",
            "the numerator: a hit is a picture that was asked for as d and read as d.",
            "two classes that are always mistaken for each other look perfect.",
        ),
    ),
    returns="a tensor (classes)",
)


# Ask the judge properly ---------------------------------------------------------------------


class _TinyJudge(nn.Module):
    """Batch normalisation, three features, two classes; left in training mode. It takes so many images at a time."""

    def __init__(self, pixels: int, most: int):
        super().__init__()
        self.most = most
        self.normalise = nn.BatchNorm2d(1, dtype=torch.float64)
        self.squeeze = nn.Linear(pixels, 3, dtype=torch.float64)
        self.classify = nn.Linear(3, 2, dtype=torch.float64)
        with torch.no_grad():
            self.normalise.running_mean.fill_(-0.3)
            self.normalise.running_var.fill_(0.5)
            for seed, layer in enumerate((self.squeeze, self.classify)):
                layer.weight.copy_(noise(*layer.weight.shape, seed=10 + seed))
                layer.bias.copy_(noise(*layer.bias.shape, seed=20 + seed))

    def features(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            raise Failure(f"Your function shows the judge {len(x)} images at a time, and `size` is {self.most}.")
        return self.squeeze(self.normalise(x.double()).flatten(1)).relu()

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.features(x))


def features_of(judge: nn.Module, pictures: Tensor, size: int, *, train=False, shown=lambda x: x * 2 - 1, ask=None):
    """The right way, with places in which to plant a mistake."""
    judge.train(train)
    with torch.no_grad():
        return torch.cat([(ask or judge.features)(shown(part)) for part in pictures.split(size)])


def _asked(**mistake):
    return lambda judge, pictures, size: features_of(judge, pictures, size, **mistake)


def _features_given(d: Draw):
    n, h, w = d.sizes("N H W")
    size = d.whole("size", 1, n)
    judge = _TinyJudge(h * w, size)
    judge.train(d.choose("mode", {"a judge in training mode": True, "a judge in evaluation mode": False}))
    return judge, d.uniform(0, 1, n, 1, h, w), size


exercise(
    "l04_features",
    lambda judge, pictures, size: features_of(judge, pictures, size),
    _features_given,
    (
        Bug(
            _asked(train=True),
            "a judge left in training mode: it normalises every picture by the batch it happens to be in.",
            "the line before the first forward pass: `judge.eval()`.",
            "there is little effect with large mixed batches, but features and distance change when you sort or cut the set differently.",
            "https://github.com/sangwoomo/FreezeD/issues/3",
        ),
        Bug(
            _asked(shown=lambda x: x),
            "pictures from 0 to 1 for a judge that was trained on -1 to 1.",
            "what goes into `features`: twice the picture, less one.",
            "gray paper; accuracy falls to guessing, and the distance is hundreds of times the floor.",
            "https://github.com/sbarratt/inception-score-pytorch/issues/7",
        ),
        Bug(
            _asked(shown=lambda x: x * 2),
            "pictures stretched but not moved: they run from 0 to 2.",
            "what goes into `features`: 0.5 should become 0.",
            "as with the range from 0 to 1, and brighter.",
        ),
        Bug(
            _asked(shown=lambda x: x - 0.5),
            "pictures from -0.5 to 0.5: centred, but half as large as they should be.",
            "what goes into `features`: 1 should stay 1.",
            "gray paper and gray ink; accuracy falls, and the distance grows far above the floor.",
            "https://github.com/IBM/BAGAN/issues/9",
        ),
        Bug(
            _asked(shown=lambda x: 1 - x * 2),
            "negatives: black and white are swapped.",
            "the sign of what goes into `features`.",
            "ink on paper where the judge knows paper on ink; accuracy is close to guessing.",
        ),
        Bug(
            lambda judge, pictures, size: judge.eval()(pictures * 2 - 1),
            "the judge's logits, one a class, instead of its features.",
            "what you call: `judge.features(x)`, not `judge(x)`.",
            "a distance between ten logits: whatever does not change the class goes unnoticed.",
            "https://github.com/pytorch/ignite/issues/3221",
        ),
        Bug(
            lambda judge, pictures, size: torch.cat(
                [judge.eval().features(p * 2 - 1) for p in pictures.split(size) if len(p) == size]
            ),
            "a last part that was thrown away because it is not full, as with drop_last=True.",
            "the number of rows: one for each picture.",
            "there is no visible effect, until you compare two sets that have lost different numbers of pictures.",
            "https://github.com/bioinf-jku/TTUR/pull/20",
        ),
        Bug(
            lambda judge, pictures, size: torch.stack(
                [judge.eval().features(p * 2 - 1).mean(0) for p in pictures.split(size)]
            ),
            "one row a batch: the mean of its features.",
            "any mean that you take: the variance between pictures is half of what is compared later.",
            "a covariance that is far too small, and a distance that depends on the size of the batch.",
        ),
        Bug(
            lambda judge, pictures, size: judge.eval().features(pictures[:size] * 2 - 1),
            "only the first part of the pictures.",
            "the loop: every part, and all of them joined.",
            "a distance that is too large, since it was taken of too few pictures.",
        ),
    ),
    returns="a tensor (N, D)",
)
