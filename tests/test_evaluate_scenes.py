"""What is read in scenes is what they show; and the reports that are made of it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from minidiff import TextToImage
from minidiff.data.backdrops import PLACES, backdrop
from minidiff.data.scenes import BACKDROPS, SIZES, STYLES, Scene, draw, scenes, things
from minidiff.evaluation import evaluations
from minidiff.evaluation.scenes import (
    GROUPS,
    SOURCES,
    Read,
    backdrops,
    coarse,
    evaluate_scenes,
    matched,
    matching,
    read,
    shows,
)
from minidiff.files import asset
from minidiff.formats.clip import load_clip
from minidiff.formats.model_folder import load_classifier
from minidiff.formats.vae import load_vae
from minidiff.registry import UserError
from minidiff.training.recipes.classifiers import blurred, placed_things
from minidiff.training.recipes.scenes import SCENES

SCENE = Scene("fox", "mushroom", "left of", backdrop="night", style="noto")


def found(things_there, places, style="noto", back="night") -> Read:
    """What would be read in an image with these things at these squares."""
    number = {name: k for k, name in enumerate(things())}
    seen, where = torch.zeros(1, len(things())), torch.zeros(1, len(things()), 2)
    for name, place in zip(things_there, places, strict=True):
        seen[0, number[name]], where[0, number[name]] = 0.9, torch.tensor(place)
    return Read(seen, where, torch.tensor([STYLES.index(style)]), torch.tensor([BACKDROPS.index(back)]))


def right(read: Read, scene=SCENE) -> list[bool]:
    return [bool(hit) for hit in shows(read, [scene]).values()]


def test_each_part_of_a_prompt_is_looked_at():
    both = ("fox", "mushroom"), ((4.0, 1.0), (4.5, 6.0))
    assert right(found(*both)) == [True] * 5
    assert (
        right(found(("fox", "owl"), both[1])) == [False, True, True, True, False]
        or not right(found(("fox", "owl"), both[1]))[0]
    )
    assert right(found(*both, style="fluent")) == [True, True, True, False, False]
    assert right(found(*both, back="snow")) == [True, True, False, True, False]
    for relation, places in {
        "left of": ((4, 1), (4, 6)), "right of": ((4, 6), (4, 1)), "above": ((1, 4), (6, 4)), "below": ((6, 4), (1, 4)),
    }.items():  # fmt: skip
        for asked in ("left of", "right of", "above", "below"):
            answer = right(
                found(both[0], [tuple(map(float, place)) for place in places]), replace(SCENE, relation=asked)
            )
            assert answer == [True, relation == asked, True, True, relation == asked]
    alone = Scene("fox", backdrop="night", style="noto")
    assert right(found(("fox",), ((4.0, 4.0),)), alone) == [True] * 5
    assert right(found(("owl",), ((4.0, 4.0),)), alone)[0] is False


def test_the_backdrop_is_read_whatever_stands_in_front_and_also_when_it_is_blurred():
    drawn = scenes(150, "all", seed=3)
    expected = [BACKDROPS.index(scene.backdrop) for scene in drawn.shown]
    soft = F.interpolate(F.avg_pool2d(drawn.images, 2), scale_factor=2, mode="bilinear")
    noisy = soft + 0.1 * torch.randn(soft.shape, generator=torch.Generator().manual_seed(0))
    assert backdrops(drawn.images).tolist() == backdrops(noisy).tolist() == expected
    for name in PLACES:
        assert (backdrops(backdrop(name) / 127.5 - 1) == BACKDROPS.index(name)).all()


def test_the_shipped_judge_reads_real_renderings_of_every_kind():
    judge = load_classifier("scene_judge")
    for split in ("validation", "new_pairs", "new_backdrops", "new_styles"):
        drawn = scenes(100, split, seed=5)
        hits = {name: float(hit.double().mean()) for name, hit in shows(read(judge, drawn.images), drawn.shown).items()}
        assert hits["all"] > 0.85 and hits["backdrop"] == 1, (split, hits)
        others = drawn.shown[1:] + drawn.shown[:1]
        assert shows(read(judge, drawn.images), others)["things"].double().mean() < 0.1


def test_things_are_labelled_where_they_stand():
    images, labels = next(placed_things(64, 0))
    assert images.shape == (64, 3, 64, 64) and labels.shape == (64, 8, 8)
    known = scenes(64, "all", seed=0, step=1)
    for grid, scene, centres in zip(labels, known.shown, known.centres, strict=True):
        places = grid.nonzero().tolist()
        assert len(places) == 1 + (scene.other is not None)
        for name, (y, x) in zip((scene.thing, scene.other), centres.tolist(), strict=True):
            if name:
                label = int(grid[int(y / 8), int(x / 8)]) - 1
                assert (things()[label // 4], STYLES[label % 4]) == (name, scene.style)


def test_the_centre_of_a_thing_is_where_its_pixels_are():
    for size in SIZES:
        asked = [Scene("soccer ball", size=size, backdrop="white", style="noto")] * 8
        images, centres = draw(asked, np.random.default_rng(0))
        there = (images < 0.8).any(1).float()
        line = torch.arange(64) + 0.5
        middle = torch.stack([(there.sum(axis) * line).sum(1) / there.sum((1, 2)) for axis in (2, 1)], dim=1)
        torch.testing.assert_close(middle, centres[:, 0], rtol=0, atol=2.5)
        assert centres[:, 1].isnan().all()


def test_half_are_blurred():
    images = scenes(40).images
    (soft,) = blurred(images, torch.Generator().manual_seed(0))
    changed = (soft != images).flatten(1).any(1)
    assert 10 <= changed.sum() <= 30 and soft.shape == images.shape


def test_clip_finds_the_captions_of_real_renderings():
    clip, tokenizer = load_clip("clip_scenes")
    drawn = scenes(60, "validation", seed=2)
    assert matched(clip, tokenizer, drawn.images, drawn.shown, 0).double().mean() > 0.5  # by chance 0.01
    assert matched(clip, tokenizer, drawn.images.flip(0), drawn.shown, 0).double().mean() < 0.2
    report = matching(clip, tokenizer, n=20, split="validation")
    assert [row.first for row in report.rows] == [f"its own, {group}" for group in GROUPS["validation"]]


def test_a_report_has_a_row_for_each_group_and_source():
    clip, tokenizer = load_clip("clip_scenes")
    unet = replace(SCENES.unet, channels=(16, 24), attention=(False, True), heads=2)
    config = replace(SCENES, unet=unet, text=clip.config.text)
    pipe = TextToImage(config, config.build(), "cpu", tokenizer, load_vae(asset("weights/scenes/vae"), "cpu"))
    report = json.loads(evaluate_scenes(pipe, 4, steps=2, split="validation").json())
    kinds = [(row["group"], row["source"]) for row in report["rows"]]
    assert kinds == [(group, source) for group in GROUPS["validation"] for source in SOURCES]
    for row in report["rows"]:
        fractions = ("things", "relation", "backdrop", "style", "all", "clip")
        assert row["n"] == 4 and all(0 <= row[name] <= 1 for name in fractions)
        if row["source"] == "real":
            assert row["nearness"] == pytest.approx(1) and row["diversity"] == pytest.approx(1)
            assert row["things"] == row["backdrop"] == 1
    assert evaluations()["scenes"].dataset == "scenes"
    with pytest.raises(UserError, match="n must be at least 2, got 1"):
        evaluate_scenes(pipe, 1)


def test_a_shift_of_a_pixel_is_a_small_distance():
    images = scenes(20).images
    apart = torch.cdist(coarse(images), coarse(images)).fill_diagonal_(torch.inf).amin(1)
    assert ((coarse(images.roll(1, -1)) - coarse(images)).norm(dim=1) < apart).double().mean() > 0.9
