"""The questions about drawn emoji, put to models that are known to be right, wrong, or to draw noise."""

import json
import re
from functools import cache
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

import minidiff.evaluation.emoji as evaluate_emoji_module
from minidiff import data
from minidiff.data.emoji import STYLES
from minidiff.evaluation.emoji import (
    NAMES,
    SOURCES,
    coarse,
    evaluate_emoji,
    named,
    naming,
    nearer_to_truth,
)
from minidiff.evaluation.judges import in_style
from minidiff.files import asset, read_tensors
from minidiff.formats.model_folder import load_classifier
from minidiff.training import OptimConfig
from minidiff.training.recipes import RECIPES

GROUPS = ("training captions", "new combinations", "new things")
emoji = cache(data.emoji)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The pictures are unpacked once, and CLIP and the judge know every emoji by heart."""
    monkeypatch.setattr(data, "emoji", emoji)
    monkeypatch.setattr(evaluate_emoji_module, "load_clip", lambda name, device: (Knowing(), Knowing.read))
    monkeypatch.setattr(evaluate_emoji_module, "load_classifier", lambda name, device: ByHeart())


@cache
def known():
    """Every emoji in every style: what it is, and a look at it."""
    pairs = [(item, style) for item in data.all_emoji() for style in STYLES]
    return pairs, coarse(data.emoji_images(pairs).float() / 127.5 - 1)


def recognised(pictures):
    """The number in `known` of the emoji that each picture is most like."""
    return torch.cdist(coarse(pictures), known()[1]).argmin(1)


class Knowing(torch.nn.Module):
    """A CLIP that has every emoji in its head. A caption is the number of its name, as is a picture."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))  # says which device it is on

    @staticmethod
    def read(captions):
        return torch.tensor([[numbers()[re.sub(r"^an? \w+ emoji of ", "", caption)]] for caption in captions])

    def embed_text(self, ids):
        return F.one_hot(ids[:, 0], len(numbers())).float()

    def embed_images(self, pictures):
        return self.embed_text(torch.tensor([[numbers()[known()[0][k][0].thing]] for k in recognised(pictures)]))


@cache
def numbers():
    return {thing: k for k, thing in enumerate(dict.fromkeys(item.thing for item in data.all_emoji()))}


class ByHeart(Knowing):
    """A judge of styles that recognises the picture."""

    def forward(self, pictures):
        styles = torch.tensor([STYLES.index(known()[0][k][1]) for k in recognised(pictures)])
        return F.one_hot(styles, len(STYLES)).float()


class Painter:
    """A model that needs no network: it reads the prompt and shows real pictures, of what `wrong` says instead."""

    config, device, vae = SimpleNamespace(name="painter", scale=2.5), torch.device("cpu"), None

    def __init__(self, wrong=lambda item, style: (item, style)):
        self.wrong, self.asked = wrong, []

    def latents(self, prompts, *, seed, **how):
        self.asked += [(prompt, seed + k) for k, prompt in enumerate(prompts)]
        self.how = how
        pairs = []
        for prompt in prompts:
            style, thing = re.fullmatch(r"an? (\w+) emoji of (.*)", prompt).groups()
            pairs.append(self.wrong(next(item for item in data.all_emoji() if item.thing == thing), style))
        return data.emoji_images(pairs).float() / 127.5 - 1

    def to_latents(self, pictures):
        return pictures

    def decode(self, latents):
        return (latents + 1) / 2


def next_style(item, style):
    return item, STYLES[(STYLES.index(style) + 1) % 3]


def another_emoji(item, style):
    every = data.all_emoji()
    return every[(every.index(item) + 700) % len(every)], style


def rows_of(report):
    return {(row.group, row.source): row for row in report.rows}


def shares(row):
    return row.name, row.style, row.truth


def test_a_model_that_draws_the_true_pictures():
    report = evaluate_emoji(Painter(), 30)
    rows = rows_of(report)
    assert list(rows) == [(group, source) for group in GROUPS for source in SOURCES]
    for row in report.rows:  # all three sources are the same pictures here
        assert min(shares(row)) > 0.95 and row.n == 30, row
    seen, pairs, things = (rows[group, "drawn"] for group in GROUPS)
    assert (seen.nearness, seen.asked, seen.other_style) == (pytest.approx(0, abs=1e-3), 1, 0)  # it knows them by heart
    assert pairs.nearness == pytest.approx(1) and pairs.asked == 0 and 0 < pairs.other_style < 0.5
    assert things.nearness == pytest.approx(1) and things.asked == things.other_style == 0


def test_a_model_that_draws_the_other_style():
    """For held-out combinations that is a training picture of the same emoji, which was learned by heart."""
    rows = rows_of(evaluate_emoji(Painter(next_style), 30))
    for group in GROUPS:
        row = rows[group, "drawn"]
        assert row.name > 0.95 and row.style < 0.05 and row.truth == 0
        assert min(shares(rows[group, "real"])) > 0.95  # the wrong pictures touch no other row
    pairs = rows["new combinations", "drawn"]
    assert (pairs.nearness, pairs.asked, pairs.other_style) == (pytest.approx(0, abs=1e-3), 0, 1)


def test_a_model_that_draws_another_emoji():
    rows = rows_of(evaluate_emoji(Painter(another_emoji), 30))
    for group in GROUPS:
        row = rows[group, "drawn"]
        assert row.name == 0 and row.style > 0.95 and row.asked == row.other_style == 0


def test_a_model_that_draws_noise():
    pipe = Painter()
    pipe.latents = lambda prompts, **_: torch.rand(len(prompts), 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for row in evaluate_emoji(pipe, 30).rows:
        if row.source == "drawn":
            assert row.name < 0.1 and 0.1 < row.style < 0.6 and row.asked < 0.1 and row.truth < 0.7, row


def test_a_vae_that_forgets_is_seen_in_its_row():
    pipe = Painter()
    pipe.to_latents = torch.zeros_like
    rows = rows_of(evaluate_emoji(pipe, 20))
    for group in GROUPS:
        assert rows[group, SOURCES[2]].name < 0.2 and rows[group, "drawn"].name > 0.9


def test_what_is_asked_for():
    few, many, other = Painter(), Painter(), Painter()
    for pipe, n, seed in ((few, 20, 5), (many, 100, 5), (other, 20, 6)):
        evaluate_emoji(pipe, n, seed=seed, steps=7, sampler="euler", scale=4)
    assert few.how == {"steps": 7, "sampler": "euler", "scale": 4} and len(few.asked) == 60
    assert len(many.asked) == 100 + 77 + 100  # no more are held out than that
    assert set(few.asked) <= set(many.asked)  # a smaller n asks for some of the same, from the same noise
    assert len({seed for _, seed in many.asked}) == len(many.asked)  # no noise twice
    assert [prompt for prompt, _ in other.asked[:20]] != [prompt for prompt, _ in few.asked[:20]]
    captions = {
        split: [
            data.emoji_caption(style, item) for item, style in zip(emoji(split).items, emoji(split).styles, strict=True)
        ]
        for split in ("train", "new_combinations", "new_things")
    }
    asked = [prompt for prompt, _ in many.asked]
    assert set(asked[:100]) <= set(captions["train"]) and len(set(asked[:100])) == 100
    assert asked[100:177] == captions["new_combinations"] and asked[177:] == captions["new_things"][:100]


def test_the_validation_split_is_a_rehearsal():
    pipe = Painter()
    report = evaluate_emoji(pipe, 200, split="validation")
    assert min(min(shares(row)) for row in report.rows) > 0.95
    pairs, things = (rows_of(report)[group, "drawn"] for group in GROUPS[1:])
    assert pairs.n + things.n == len(emoji("validation")) and things.other_style == 0
    assert things.n % 3 == 0 and "validation split" in str(report)


# The questions themselves ----------------------------------------------------------------


def test_the_other_names_are_other_names():
    """99 of them, of other families, drawn by seed; a CLIP to which all is alike does not win."""
    read = []

    def tokenizer(captions):
        read.append(captions)
        return Knowing.read(captions)

    item = next(item for item in data.all_emoji() if sum(other.kin == item.kin for other in data.all_emoji()) > 3)
    picture = data.emoji_images([(item, "noto")]).float() / 127.5 - 1
    assert named(Knowing(), tokenizer, picture, [item], ["noto"], seed=1).tolist() == [True]
    named(Knowing(), tokenizer, picture, [item], ["noto"], seed=1)
    named(Knowing(), tokenizer, picture, [item], ["noto"], seed=2)
    assert read[0] == read[1] != read[2] and read[0][0] == read[2][0] == data.emoji_caption("noto", item)
    assert len(set(read[0])) == NAMES and all(caption.startswith("a noto emoji of ") for caption in read[0])
    kin = {data.emoji_caption("noto", other) for other in data.all_emoji() if other.kin == item.kin}
    assert kin & set(read[0]) == {read[0][0]}

    alike = Knowing()
    alike.embed_images = lambda pictures: torch.ones(len(pictures), len(numbers()))
    assert named(alike, Knowing.read, picture, [item], ["noto"], seed=1).tolist() == [False]


def test_nearer_to_the_truth_than_to_either_of_the_others():
    item = data.all_emoji()[0]
    asked = data.Emojis(data.emoji_images([(item, "twemoji")] * 3), [item] * 3, ["twemoji"] * 3)
    x = data.emoji_images([(item, style) for style in STYLES]).float() / 127.5 - 1
    assert nearer_to_truth(x, asked).tolist() == [False, True, False]
    mixed = torch.stack([torch.lerp(x[1], x[0], 0.4), torch.lerp(x[1], x[0], 0.6), torch.lerp(x[1], x[2], 0.6)])
    assert nearer_to_truth(mixed, asked).tolist() == [True, False, False]


def test_a_small_shift_or_blur_costs_little():
    asked = emoji("new_combinations")
    x = asked.floats()
    for changed in (x.roll((1, 1), (2, 3)), F.interpolate(F.avg_pool2d(x, 4), scale_factor=4)):
        assert nearer_to_truth(changed, asked).double().mean() > 0.95


def test_a_clip_is_asked_for_the_names_of_real_emoji():
    report = naming(Knowing(), Knowing.read, n=20, seed=3)
    assert [(row.first, row.images) for row in report.rows] == [(f"its own, {group}", 20) for group in GROUPS]
    assert min(row.fraction for row in report.rows) > 0.95
    blind = Knowing()
    blind.embed_images = lambda pictures: torch.zeros(len(pictures), len(numbers()))
    lines = str(naming(blind, Knowing.read, "validation", n=5)).splitlines()
    assert [line.split()[-2:] for line in lines[1:4]] == [["5", "0.0%"]] * 3
    assert f"among {NAMES} captions" in lines[4] and "seed 0, validation split" in lines[5]


# The judge of styles ---------------------------------------------------------------------


def test_the_judge_tells_styles_of_emoji_that_it_has_not_seen():
    judge, real = load_classifier("style_judge"), emoji("validation")
    x = real.floats()
    blurred = F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="bilinear")
    assert in_style(judge, x, real.styles).double().mean() > 0.98
    assert in_style(judge, blurred, real.styles).double().mean() > 0.97
    wrong = [STYLES[(STYLES.index(style) + 1) % 3] for style in real.styles]
    assert in_style(judge, x, wrong).double().mean() < 0.02


def test_the_judge_is_small():
    path = asset("weights/style_judge/model.safetensors")
    assert path.stat().st_size <= 300_000
    assert {t.dtype for t in read_tensors(path).values() if t.is_floating_point()} == {torch.float16}


def test_its_training_is_repeatable_and_learns(tmp_path):
    losses = []
    for name in ("a", "b"):
        config = OptimConfig(steps=30, lr=3e-3, warmup=5)
        run = RECIPES["style_judge"].run(tmp_path / name, torch.device("cpu"), config, 8)
        losses.append([loss for *_, loss in run])
    assert losses[0] == losses[1] and sum(losses[0][-5:]) < sum(losses[0][:5])
    assert load_classifier("style_judge", folder=tmp_path / "a")(torch.zeros(2, 3, 64, 64)).shape == (2, 3)


# The report ------------------------------------------------------------------------------


def test_the_table_and_the_json():
    report = evaluate_emoji(Painter(next_style), 20, seed=3, steps=9, sampler="euler")
    text = str(report)
    assert max(map(len, text.splitlines())) <= 120
    lines = [line for line in text.splitlines() if " drawn " in line]
    for line, group in zip(lines, GROUPS, strict=True):
        row = rows_of(report)[group, "drawn"]
        numbers = [float(number) for number in re.findall(r"([\d.]+)%", line)]
        assert numbers == pytest.approx([100 * x for x in (*shares(row), row.asked, row.other_style)], abs=0.06)
    for words in (
        "painter",
        "seed 3",
        "scale 2.5",
        "9 steps of euler",
        "test split",
        "torch",
        "Memorised: 0% of 20",
    ):
        assert words in text
    read = json.loads(report.json())
    assert read["rows"][3]["truth"] == report.rows[3].truth == 0 and read["rows"][0]["group"] == "training captions"
    assert [set(row) for row in read["rows"]] == [set(vars(report.rows[0]))] * 9


def test_progress_is_told():
    told = []
    evaluate_emoji(Painter(), 2, progress=lambda groups, unit: told.append((len(groups), unit)) or groups)
    assert told == [(3, "group")]


@pytest.mark.parametrize("how, problem", [({"n": 0}, "n must lie between 1 and .*, got 0"), ({"n": 9999}, "n must lie between"),
                                          ({"split": "dev"}, "unknown split 'dev'; there is test, validation")])  # fmt: skip
def test_what_is_wrong_is_said_before_anything_is_drawn(how, problem):
    pipe = Painter()
    with pytest.raises(ValueError, match=problem):
        evaluate_emoji(pipe, **how)
    assert not pipe.asked
