"""Scenes: what is drawn, what is said of it, and what is held out."""

from collections import Counter
from itertools import combinations, product

import numpy as np
import pytest
import torch
from PIL import Image

from minidiff.data import scenes as module
from minidiff.data.backdrops import COLORS, PHRASES, PLACES, SIDE, VARIANTS, backdrop
from minidiff.data.scenes import (
    BACKDROPS,
    RELATIONS,
    SIZES,
    SPLITS,
    STYLES,
    TRAINED,
    UNSEEN,
    WAYS,
    Scene,
    caption,
    compose,
    draw,
    level,
    read_scene,
    scene_batches,
    scene_split,
    scenes,
    things,
    true_of,
    with_article,
)  # fmt: skip
from minidiff.files import asset
from minidiff.registry import UserError
from minidiff.training.recipes.clip_scenes import also_true, batches as clip_batches
from minidiff.training.recipes.vae import CROP, squares

CPU = torch.device("cpu")


def test_a_batch_depends_on_seed_and_step_alone():
    first, second = scene_batches(16, seed=3), scene_batches(16, seed=3)
    next(first), next(second)
    threads = torch.get_num_threads()
    one = next(first)
    try:
        torch.set_num_threads(2)
        two = next(second)
    finally:
        torch.set_num_threads(threads)
    again = scenes(16, seed=3, step=2)
    for other in (two, again):
        assert torch.equal(one.images, other.images)
        assert (one.captions, one.said, one.shown) == (other.captions, other.said, other.shown)
    assert one.captions != scenes(16, seed=3, step=3).captions
    assert one.captions != scenes(16, seed=4, step=2).captions


def test_pictures_are_floats_between_minus_one_and_one():
    batch = scenes(32)
    assert batch.images.shape == (32, 3, SIDE, SIDE) and batch.images.dtype == torch.float32
    assert -1 <= batch.images.min() < -0.8 and 0.9 < batch.images.max() <= 1
    assert len(batch) == len(batch.said) == len(batch.shown) == 32


def test_every_thing_in_every_style_fills_both_its_sizes():
    bank = module._things_on(CPU)
    assert len(bank) == len(things()) * len(STYLES) * len(SIZES) + 1
    assert not bank[-1].any()
    for row, ((name, style), size) in enumerate(product(product(things(), STYLES), SIZES.values())):
        seen = bank[row, ..., 3] > 24
        rows, columns = (seen.any(axis).nonzero() for axis in (1, 0))
        longer = max(int(each[-1] - each[0]) + 1 for each in (rows, columns))
        assert size - 3 <= longer <= size, (name, style, size, longer)
        assert seen.float().mean() > 0.1 * (size / 48) ** 2, (name, style)
        assert (bank[row, ..., :3] <= bank[row, ..., 3:]).all()  # colours are multiplied by alpha
        rim = torch.ones(bank.shape[1:3], dtype=torch.bool)
        rim[1:-1, 1:-1] = False
        assert not bank[row][rim].any()  # what lies outside a thing is read from the rim


def test_styles_and_things_differ():
    large = module._things_on(CPU)[:-1:2].float().flatten(1)  # thing, style
    apart = torch.cdist(large, large).fill_diagonal_(torch.inf) / large.shape[1] ** 0.5
    assert apart.min() > 5  # of 255


def test_composing_equals_pasting_with_pil():
    scene = Scene("fox", "mushroom", "left of", backdrop="night", style="fluent")
    bank = module._things_on(CPU)
    backs, starts = module.backdrops_on(CPU)
    back = starts[BACKDROPS.index("night")] + 3
    places = [(10, 3), (25, 31)]
    front = [(things().index(name) * 4 + STYLES.index("fluent")) * 2 + 1 for name in (scene.thing, scene.other)]
    picture = Image.fromarray(backs[back].numpy()).convert("RGBA")
    for row, (y, x) in zip(front, places, strict=True):
        whole = Image.fromarray(bank[row].numpy(), "RGBa").convert("RGBA")
        picture.alpha_composite(whole.crop((1, 1, 29, 29)), (x, y))
    made = compose(torch.tensor([back]), torch.tensor([front]), torch.tensor([places]))[0]
    made = ((made + 1) * 127.5).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(made, np.asarray(picture.convert("RGB")).astype(float), atol=3)  # PIL rounds alpha


@pytest.mark.parametrize("relation", list(RELATIONS)[:4])
def test_things_are_where_the_relation_says_and_do_not_touch(relation):
    n = 40
    corners = module._corners(np.ones(n, bool), [relation] * n, np.random.default_rng(0))
    first, second = corners[:, 0], corners[:, 1]
    assert corners.min() >= 0 and corners.max() <= SIDE - SIZES["small"]
    axis = 1 if relation in ("left of", "right of") else 0
    gap = (second - first)[:, axis] * (1 if relation in ("left of", "above") else -1)
    assert (gap >= SIZES["small"]).all()
    assert ((second - first)[:, 1 - axis] == 0).all()
    assert (corners % module.GRID == 0).all()
    assert len({tuple(map(tuple, one)) for one in corners.tolist()}) > n // 3


def test_a_thing_alone_is_inside_and_its_size_is_seen():
    scene = [Scene("heart", size=size, backdrop="white", style="noto") for size in SIZES for _ in range(20)]
    drawn, _ = draw(scene, np.random.default_rng(0))
    seen = (drawn < 0.9).any(1)  # (N, H, W)
    assert not seen[:, 0].any() and not seen[:, -1].any() and not seen[:, :, 0].any() and not seen[:, :, -1].any()
    area = seen.flatten(1).sum(1).float()
    assert area[:20].min() > 2 * area[20:].max()


def test_plain_colours_are_plain_and_places_differ():
    assert PHRASES.keys() == PLACES.keys()
    for name in COLORS:
        assert (backdrop(name) == backdrop(name)[:, :, :1, :1]).all()
    places = {name: backdrop(name) for name in PLACES}
    assert all(each.shape == (VARIANTS, 3, SIDE, SIDE) for each in places.values())
    assert all(each.min() >= 0 and each.max() <= 255 for each in places.values())
    for one, two in combinations(places, 2):
        assert (places[one] - places[two]).abs().mean() > 15, (one, two)
    for each in places.values():
        assert len(each.flatten(1).unique(dim=0)) == VARIANTS


def every_kind() -> list[Scene]:
    alone = [Scene("owl", None, None, size, back, style)
             for size, back, style in product(SIZES, (None, *BACKDROPS), (None, *STYLES))]  # fmt: skip
    pairs = [Scene("ice cream", "palm tree", relation, "large", back, style)
             for relation, back, style in product(RELATIONS, (None, *BACKDROPS), (None, *STYLES))]  # fmt: skip
    return alone + pairs


def test_what_a_caption_says_is_read_back():
    for scene, way in product(every_kind(), range(WAYS)):
        assert read_scene(caption(scene, way)) == scene, caption(scene, way)
    for name in things():
        assert read_scene(caption(Scene(name))) == Scene(name)


def test_captions_are_english():
    scene = Scene("owl", backdrop="snow", style="fluent")
    assert [caption(scene, way) for way in range(WAYS)] == [
        "an owl in the snow, fluent style", "in the snow, an owl, fluent style", "fluent style: an owl in the snow",
        "a fluent picture of an owl in the snow", "owl in the snow, fluent", "a large owl in the snow, fluent style",
        "in the snow, a large owl, fluent style", "fluent style: a large owl in the snow",
        "a fluent picture of a large owl in the snow", "large owl in the snow, fluent",
    ]  # fmt: skip
    assert caption(Scene("unicorn", "ufo", "above", backdrop="orange"), 8) == (
        "a picture of a unicorn over a ufo on an orange background"
    )
    assert caption(Scene("owl", style="openmoji"), 3) == "an openmoji picture of an owl"
    assert [with_article(name) for name in things() if with_article(name).startswith("an ")] == [
        f"an {name}" for name in things() if name[0] in "aeio" or name == "umbrella"
    ]


@pytest.mark.parametrize(
    ("prompt", "scene"),
    [
        ("A tiny robot on a grey background", Scene("robot", size="small", backdrop="gray")),
        ("the fox on the left of a mushroom at the beach", Scene("fox", "mushroom", "left of", backdrop="sea")),
        ("teddy bear under a palm tree", Scene("teddy bear", "palm tree", "below")),
        ("a bear and a tree", Scene("bear", "tree", "and")),
    ],
)
def test_other_words_are_read_too(prompt, scene):
    assert read_scene(prompt) == scene


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("a zebra in the snow", "zebra"),
        ("", "one or two different things"),
        ("a fox, an owl and a dog", "fox, owl, dog"),
        ("a fox and a fox", "one or two different things"),
        ("a fox in the snow at night", "night and snow|snow and night"),
        ("a noto fox, fluent style", "noto and fluent"),
        ("a small big fox", "small and large"),
        ("a large fox and an owl", "room for two small ones"),
    ],
)
def test_what_cannot_be_read_is_named(prompt, says):
    with pytest.raises(UserError, match=says):
        read_scene(prompt)


@pytest.mark.parametrize(
    ("prompt", "true"),
    [
        ("a fox left of an owl in the snow, noto style", True),
        ("an owl right of a fox", True),
        ("an owl and a fox in the snow", True),
        ("an owl next to a fox, noto", True),
        ("a fox right of an owl", False),
        ("an owl left of a fox", False),
        ("a fox above an owl", False),
        ("a fox left of a wolf", False),
        ("a fox", False),
        ("a fox left of an owl at night", False),
        ("a fox left of an owl, fluent style", False),
    ],
)
def test_what_is_true_of_a_picture(prompt, true):
    shown = Scene("fox", "owl", "left of", backdrop="snow", style="noto")
    assert true_of(read_scene(prompt), shown) is true


def test_a_thing_above_is_not_next_to_the_other():
    said = read_scene("an owl next to a fox")
    assert not true_of(said, Scene("fox", "owl", "above", backdrop="snow", style="noto"))
    assert not true_of(Scene("fox", size="small"), Scene("fox", backdrop="snow", style="noto"))


def test_what_is_said_is_true_and_of_a_twin_it_is_not_unless_it_leaves_that_open():
    batch = next(clip_batches(64, seed=0))
    true = also_true(batch)
    assert len(batch) == 64 and not true.diagonal().any()
    for k, (said, shown) in enumerate(zip(batch.said, batch.shown, strict=True)):
        assert true_of(said, shown)
        assert bool(true[k, (k + 32) % 64]) == (said.relation in ("and", "next to"))
        assert scene_split(shown) == "train"


def test_the_vae_sees_squares_of_its_scenes():
    first, again = squares(4, seed=1), squares(4, seed=1)
    next(first), next(again)
    square, whole = next(first), scenes(4, seed=1, step=2).images
    assert torch.equal(square, next(again)) and square.shape == (4, 3, CROP, CROP)
    for cut, image in zip(square, whole, strict=True):
        places = image.unfold(1, CROP, 1).unfold(2, CROP, 1)  # (3, H, W, CROP, CROP)
        assert (places == cut[:, None, None]).all(dim=(0, 3, 4)).any()


def test_scenes_that_cannot_be_are_refused():
    for wrong in ({"thing": "zebra"}, {"thing": "fox", "other": "fox", "relation": "and"}, {"thing": "fox", "other": "owl"},
                  {"thing": "fox", "relation": "and"}, {"thing": "fox", "size": "huge"},
                  {"thing": "fox", "backdrop": "moonlight"}, {"thing": "fox", "style": "cubist"}):  # fmt: skip
        with pytest.raises(UserError):
            Scene(**wrong)
    with pytest.raises(UserError, match="way"):
        caption(Scene("fox"), WAYS)
    with pytest.raises(UserError, match="split"):
        scenes(1, "test")


def test_a_tenth_of_all_combinations_is_held_out_for_ever():
    pairs = Counter(level(*two) for two in combinations(things(), 2))
    places = Counter(level(*two) for two in product(things(), BACKDROPS))
    styles = Counter(level(*two) for two in product(things(), STYLES))
    for counted in (pairs, places, styles):
        n = counted.total()
        assert 0.07 * n < counted[UNSEEN] < 0.13 * n
        assert 0.015 * n < counted[module.CHOOSING] < 0.05 * n
    for name in things():  # known in the other styles
        assert sum(level(name, style) == TRAINED for style in STYLES) >= 3
    # changing these would make every shipped model and figure wrong
    assert [dict(sorted(each.items())) for each in (pairs, places, styles)] == [
        {0: 4307, 1: 144, 2: 499}, {0: 1364, 1: 63, 2: 173}, {0: 351, 1: 9, 2: 40},
    ]  # fmt: skip
    assert [level("fox", other) for other in ("owl", "mushroom", "night", "noto")] == [0, 2, 0, 0]
    assert level("fox", "owl") == level("owl", "fox")


@pytest.mark.parametrize("split", SPLITS)
def test_the_scenes_of_a_split_are_in_it(split):
    batch = scenes(60, split)
    assert split == "all" or {scene_split(scene) for scene in batch.shown} == {split}
    for said, shown in zip(batch.said, batch.shown, strict=True):
        assert said.thing == shown.thing and said.other == shown.other
        assert said.backdrop in (None, shown.backdrop) and said.style in (None, shown.style)
        assert said.relation in (shown.relation, "and", "next to")
        assert said.relation != "next to" or shown.relation in ("left of", "right of")


def test_a_damaged_sheet_is_one_line(monkeypatch, tmp_path):
    whole = asset("scenes/noto.webp").read_bytes()
    (tmp_path / "noto.webp").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "things.json").write_text('{"fox": ')
    monkeypatch.setattr(module, "asset", lambda name: tmp_path / name.removeprefix("scenes/"))
    with pytest.raises(UserError, match="noto.webp"):
        module._things_on.__wrapped__(CPU)
    with pytest.raises(UserError, match="things.json"):
        things.__wrapped__()
