"""CLIP: what its networks see, the contrastive loss, training that can be stopped, and retrieval."""

import dataclasses
import itertools
import json
import math

import pytest
import torch
from torch.nn.functional import one_hot

from minidiff.data.color_digits import COLORS, HELD_OUT, Captioned, Scene, caption, color_digit_batches
from minidiff.evaluation.clip import retrieval
from minidiff.files import read_tensors
from minidiff.formats.clip import load_clip
from minidiff.networks import CLIP, CLIPConfig, CLIPText, CLIPTextConfig, CLIPVision, CLIPVisionConfig
from minidiff.networks.clip import quick_gelu
from minidiff.tokenizer import Tokenizer
from minidiff.training import TrainConfig
from minidiff.training.recipes import RECIPES, clip as clip_recipes, contrastive
from minidiff.training.recipes.clip import also_true, batches
from minidiff.training.recipes.contrastive import contrastive_loss

END = 9
TEXT = CLIPTextConfig(vocab=10, length=8, width=8, layers=2, heads=2, end=END)
VISION = CLIPVisionConfig(size=8, patch=4, width=8, layers=2, heads=2)
SMALL = CLIPConfig(
    CLIPTextConfig(length=24, width=8, layers=1, heads=2),
    CLIPVisionConfig(size=32, patch=16, width=8, layers=1, heads=2),
    dim=8,
)


@pytest.fixture
def clip():
    torch.manual_seed(0)
    return CLIP(CLIPConfig(TEXT, VISION, dim=6)).eval()


# The networks ------------------------------------------------------------------------------


def test_a_token_sees_those_before_it_and_no_other(clip):
    before, after = torch.tensor([[0, 3, 4, 5, END]]), torch.tensor([[0, 3, 7, 5, END]])
    a, b = clip.text_model(before), clip.text_model(after)
    torch.testing.assert_close(a[:, :2], b[:, :2])
    assert ((a[:, 2:] - b[:, 2:]).abs().amax(-1) > 1e-4).all()


def test_a_text_is_pooled_at_its_first_end(clip):
    ids = torch.tensor([[0, 3, END, END, END], [0, 3, 4, 5, END]])
    hidden = clip.text_model(ids)
    torch.testing.assert_close(clip.text_model.pooled(ids, hidden), hidden[[0, 1], [2, 4]])


def test_what_follows_the_end_does_not_matter(clip):
    a, b = torch.tensor([[0, 3, END, END, END]]), torch.tensor([[0, 3, END, 1, 2]])
    torch.testing.assert_close(clip.embed_text(a), clip.embed_text(b))


def test_the_highest_number_is_pooled_where_no_end_is_named():
    net = CLIPText(dataclasses.replace(TEXT, end=None))
    ids = torch.tensor([[0, 8, 3, 8, 1]])
    hidden = net(ids)
    torch.testing.assert_close(net.pooled(ids, hidden), hidden[:, 1])


def test_where_a_token_stands_matters(clip):
    a, b = (clip.embed_text(torch.tensor([ids])) for ids in ([0, 3, 4, END], [0, 4, 3, END]))
    assert (a - b).abs().max() > 1e-4


def test_where_a_patch_lies_matters(clip):
    x = torch.randn(1, 3, 8, 8)
    assert (clip.embed_images(x) - clip.embed_images(x.roll(4, dims=3))).abs().max() > 1e-5


def test_shapes_and_lengths(clip):
    ids, x = torch.randint(0, END, (5, 8)), torch.rand(3, 3, 8, 8) * 2 - 1
    ids[:, -1] = END
    assert clip.text_model(ids).shape == (5, 8, 8)
    assert clip.vision_model(x).shape == (3, 1 + 4, 8)
    texts, pictures = clip.embed_text(ids), clip.embed_images(x)
    assert texts.shape == (5, 6) and pictures.shape == (3, 6)
    torch.testing.assert_close(texts.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(pictures.norm(dim=1), torch.ones(3))
    assert clip(ids, x).shape == (3, 5)


def test_logits_are_cosines_over_the_temperature(clip):
    ids, x = torch.tensor([[0, 3, END], [0, 4, END]]), torch.randn(3, 3, 8, 8)
    assert clip.logit_scale.item() == pytest.approx(math.log(1 / 0.07))
    torch.testing.assert_close(clip(ids, x), clip.embed_images(x) @ clip.embed_text(ids).T / 0.07)


def test_pictures_are_brought_to_mean_0_and_spread_1(clip):
    seen = {}
    clip.vision_model.register_forward_pre_hook(lambda module, inputs: seen.update(x=inputs[0]))
    mean, std = (torch.tensor(v)[:, None, None] for v in (VISION.mean, VISION.std))
    clip.embed_images((2 * mean - 1).expand(1, 3, 8, 8))
    torch.testing.assert_close(seen["x"], torch.zeros(1, 3, 8, 8), atol=1e-6, rtol=0)
    clip.embed_images((2 * (mean + std) - 1).expand(1, 3, 8, 8))
    torch.testing.assert_close(seen["x"], torch.ones(1, 3, 8, 8))


def test_a_gradient_reaches_the_picture(clip):
    x = torch.randn(1, 3, 8, 8, requires_grad=True)
    clip(torch.tensor([[0, 3, END]]), x).sum().backward()
    assert x.grad.abs().amax((1, 2, 3)) > 0


def test_half_precision():
    net = CLIP(CLIPConfig(TEXT, VISION, dim=6)).bfloat16()
    assert net(torch.tensor([[0, 3, END]]), torch.zeros(1, 3, 8, 8)).dtype == torch.bfloat16


def test_quick_gelu_by_hand():
    assert float(quick_gelu(torch.tensor(1.0))) == pytest.approx(1 / (1 + math.exp(-1.702)))


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: CLIPTextConfig(width=10, heads=4), "width 10 cannot be split into 4 heads"),
        (lambda: CLIPVisionConfig(width=10, heads=4), "width 10 cannot be split into 4 heads"),
        (lambda: CLIPTextConfig(activation="relu"), "unknown activation 'relu'"),
        (lambda: CLIPVisionConfig(size=30, patch=4), "30 pixels cannot be cut into patches of 4"),
        (lambda: CLIPText(TEXT)(torch.zeros(1, 9, dtype=torch.long)), "9 tokens is too long: there are 8"),
        (lambda: CLIPVision(VISION)(torch.zeros(1, 3, 8, 9)), "takes images of 8x8, got 8x9"),
    ],
)
def test_what_cannot_be_is_refused(make, complaint):
    with pytest.raises(ValueError, match=complaint):
        make()


# The loss and its batches ------------------------------------------------------------------


def test_the_loss_by_hand():
    logits = torch.tensor([[2.0, 1.0], [0.0, 3.0]])
    rows = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-3))) / 2  # pictures choose captions
    columns = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-2))) / 2  # captions choose pictures
    assert float(contrastive_loss(logits)) == pytest.approx((rows + columns) / 2)
    assert float(contrastive_loss(logits.T)) == pytest.approx((rows + columns) / 2)


def test_the_loss_of_guessing_and_of_knowing():
    assert float(contrastive_loss(torch.zeros(7, 7))) == pytest.approx(math.log(7))
    assert float(contrastive_loss(100 * torch.eye(7))) < 1e-6


def scenes_of(*entries):
    scenes = [Scene(*entry[:-1]) for entry in entries]
    return Captioned(None, [caption(s, entry[-1]) for s, entry in zip(scenes, entries, strict=True)], scenes)


def test_captions_that_are_true_of_other_pictures():
    batch = scenes_of(
        (7, "red", "blue", 0),
        (7, "red", "blue", 2),  # the same in other words
        (7, "red", "white", 0),
        (7, "red", "green", 7),  # "a red seven": true of all of these
        (6, "red", "blue", 7),
        (7, "red", "blue", "top left", "small", 0),
    )
    assert batch.captions[3] == "a red seven"
    assert also_true(batch).int().tolist() == [
        [0, 1, 0, 1, 0, 0],
        [1, 0, 0, 1, 0, 0],
        [0, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
        [0, 0, 0, 1, 0, 0],
    ]


def test_batches_are_of_few_colours_and_many_digits():
    for batch in itertools.islice(batches(128, seed=3), 10):
        assert len(batch) == 128 and batch.images.shape == (128, 3, 32, 32)
        assert len({(s.color, s.background) for s in batch.scenes}) <= 26  # of 56; random batches have about 50
        assert len({s.digit for s in batch.scenes}) == 10


def test_batches_deal_out_all_that_was_drawn_and_mix_nothing_up():
    [drawn] = itertools.islice(color_digit_batches(64 * clip_recipes.LOT, seed=3), 1)
    whole = {
        picture.numpy().tobytes(): (c, s)
        for picture, c, s in zip(drawn.images, drawn.captions, drawn.scenes, strict=True)
    }
    dealt = 0
    for batch in itertools.islice(batches(64, seed=3), clip_recipes.LOT):
        for picture, words, scene in zip(batch.images, batch.captions, batch.scenes, strict=True):
            assert whole[picture.numpy().tobytes()] == (words, scene)
            dealt += 1
    assert dealt == len(drawn) == len(whole)


def test_batches_have_no_pair_that_is_held_out():
    for batch in itertools.islice(batches(256, seed=0), 24):
        for scene, words in zip(batch.scenes, batch.captions, strict=True):
            assert HELD_OUT[scene.digit] != scene.color
            assert words in {caption(scene, k) for k in range(8)}


# Training ----------------------------------------------------------------------------------


def settings(steps):
    return TrainConfig(steps=steps, lr=1e-2, warmup=2, save_every=100)


def run(folder, steps, stop=None):
    recipe = dataclasses.replace(RECIPES["clip"], model=SMALL)
    training = recipe.run(folder, torch.device("cpu"), settings(steps), 32)
    done = list(itertools.islice(training, stop))
    training.close()
    return done


def test_a_run_that_was_stopped_equals_one_that_was_not(tmp_path):
    whole = run(tmp_path / "whole", 6)
    first = run(tmp_path / "parts", 6, stop=3)
    rest = run(tmp_path / "parts", 6)
    assert [step for step, _, _ in whole] == [1, 2, 3, 4, 5, 6]
    assert first + rest == whole
    assert (tmp_path / "whole/model.safetensors").read_bytes() == (tmp_path / "parts/model.safetensors").read_bytes()


def test_what_training_writes_can_be_loaded(tmp_path):
    run(tmp_path, 2)
    clip, tokenizer = load_clip(tmp_path)
    kept = read_tensors(tmp_path / "resume-00000002.safetensors")
    assert all(torch.equal(value, kept[f"ema.{name}"].half().float()) for name, value in clip.state_dict().items())
    assert clip.config.text.end == tokenizer("")[0, 1]
    assert tokenizer.length == clip.config.text.length
    assert not any(p.requires_grad for p in clip.parameters())
    assert clip(tokenizer(["a red seven"]), torch.zeros(1, 3, 32, 32)).shape == (1, 1)


def test_each_word_of_a_caption_is_one_piece(tmp_path):
    run(tmp_path, 1)
    _, tokenizer = load_clip(tmp_path)
    for scene in (
        Scene(d, c, b, p, s)
        for d in range(10)
        for c, b, p, s in (("red", "blue", "top left", "small"), ("orange", "white", "bottom right", "large"))
    ):
        for wording in range(8):
            words = caption(scene, wording)
            assert not tokenizer.unknown(words) and not tokenizer.left_out(words)


def test_loss_goes_down(tmp_path):
    losses = [loss for _, _, loss in run(tmp_path, 40)]
    assert sum(losses[-5:]) < sum(losses[:5]) - 0.5, losses


def test_the_temperature_does_not_fall_below_its_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(contrastive, "MAX_SCALE", 5)
    run(tmp_path, 5)
    assert 4 < load_clip(tmp_path)[0].logit_scale.exp() < 5.1  # it begins at 1 / 0.07


# Retrieval ---------------------------------------------------------------------------------


class Reader:
    """A CLIP that knows the answers: captions and pictures as points of the same space.

    forget: what it does not look at. A picture's colours are read at the edge and at the spot farthest from it.
    """

    def __init__(self, forget=()):
        self.forget, self.scenes = forget, None

    def parameters(self):
        return iter([torch.zeros(1)])

    def point(self, scene):
        names = list(COLORS)
        keys = {"digit": scene.digit, "color": names.index(scene.color), "background": names.index(scene.background)}
        return torch.cat([one_hot(torch.tensor(0 if k in self.forget else v), 10).double() for k, v in keys.items()])

    def embed_text(self, ids):
        return torch.stack([self.point(scene) for scene in self.scenes])

    def embed_images(self, pictures):
        assert pictures.shape == (100, 3, 32, 32)
        return torch.stack([self.point(scene) for scene in self.scenes])


SEEN, UNSEEN = "its own, seen pair", "its own, never-seen pair"


def fractions(report):
    return {row.first: row.fraction for row in report.rows}


@pytest.fixture
def watched(monkeypatch):
    """A reader that is told what is drawn, and a tokenizer that must be given the captions of just that."""
    from minidiff.evaluation import clip as evaluate_clip

    draw = evaluate_clip.draw

    def told(reader):
        said = []

        def tokenizer(texts):
            said.append(texts)
            reader.scenes = [Scene(*_parse(text)) for text in texts]
            return torch.zeros(len(texts), 1)

        def drawn(scenes, digits):
            assert [caption(scene) for scene in scenes] == said[-1]
            assert len(set(said[-1])) == 100
            return draw(scenes, digits)

        monkeypatch.setattr(evaluate_clip, "draw", drawn)
        return tokenizer

    def _parse(text):
        words = text.split()
        digit = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"].index(words[2])
        return digit, words[1], words[5]

    return told


def test_retrieval_of_one_who_knows(watched):
    reader = Reader()
    report = retrieval(reader, watched(reader), "validation", rounds=10)
    assert fractions(report) == {SEEN: 1, UNSEEN: 1, "another digit": 0, "another color": 0, "another background": 0}
    seen, unseen, *others = (row.images for row in report.rows)
    assert seen + unseen == 1000 and 80 < unseen < 180 and others == [1000] * 3


@pytest.mark.parametrize(("what", "others"), [("digit", 10), ("color", None), ("background", None)])
def test_retrieval_of_one_who_does_not_look_at_it(watched, what, others):
    reader = Reader(forget=[what])
    report = retrieval(reader, watched(reader), "validation", rounds=4)
    found = fractions(report)
    assert found.pop(SEEN) < 0.9 and found.pop(UNSEEN) < 0.9
    assert found.pop(f"another {what}") > (0.85 if what == "digit" else 0.1)
    assert set(found.values()) == {0}


def test_pictures_choose_among_captions_and_not_captions_among_pictures(watched):
    reader = Reader()
    right = reader.embed_images
    reader.embed_images = lambda pictures: right(pictures) * torch.arange(1, 101)[:, None]  # some louder than others
    assert fractions(retrieval(reader, watched(reader), "validation", rounds=2))[SEEN] == 1


def test_retrieval_draws_the_handwriting_that_the_caption_names(watched, monkeypatch):
    from minidiff.evaluation import clip as evaluate_clip

    digits, draw, reader = evaluate_clip.mnist("validation"), evaluate_clip.draw, Reader()
    tokenizer = watched(reader)
    known = {picture.numpy().tobytes(): int(label) for picture, label in zip(digits.images, digits.labels, strict=True)}

    def checked(scenes, images):
        assert [known[image.numpy().tobytes()] for image in images] == [scene.digit for scene in scenes]
        return draw(scenes, images)

    monkeypatch.setattr(evaluate_clip, "draw", checked)
    retrieval(reader, tokenizer, "validation", rounds=2)


def test_retrieval_of_one_who_is_shuffled(watched):
    reader = Reader()
    tokenizer = watched(reader)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    right = reader.embed_text
    reader.embed_text = lambda ids: right(ids)[order]
    report = retrieval(reader, tokenizer, "validation", rounds=4)
    assert fractions(report)[SEEN] < 0.05 and fractions(report)["another digit"] > 0.8


def test_retrieval_is_the_same_twice_and_another_with_another_seed(clip):
    torch.manual_seed(0)
    tokenizer = Tokenizer.train(["a red seven on a blue background"], merges=100, length=24)
    text = dataclasses.replace(SMALL.text, vocab=len(tokenizer.vocab), end=tokenizer.vocab["<|endoftext|>"])
    clip = CLIP(dataclasses.replace(SMALL, text=text))
    reports = [retrieval(clip, tokenizer, "validation", rounds=2, seed=seed) for seed in (0, 0, 1)]
    assert reports[0] == reports[1] != reports[2]
    assert json.loads(reports[0].json())["rows"][0]["images"] == reports[0].rows[0].images
    assert "a red seven on a blue background" in str(reports[0])
