"""The emoji: what is in the archives, what is said about it, and what is never in training."""

import io
import itertools
import json
import re
import zipfile
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from minidiff import data, files
from minidiff.data import emoji_split
from minidiff.data.emoji import TAGS

EVERYTHING = [(item, style) for item in data.all_emoji() for style in data.STYLES]
NAMED = {item.name: item for item in data.all_emoji()}


@pytest.fixture(scope="module")
def splits():
    return {split: data.emoji(split) for split in data.EMOJI_SPLITS}


def pairs(pictures):
    return list(zip((item.code for item in pictures.items), pictures.styles, strict=True))


# What nobody has seen --------------------------------------------------------------------


def test_every_pair_is_in_exactly_one_split(splits):
    dealt = list(itertools.chain(*map(pairs, splits.values())))
    assert len(dealt) == len(set(dealt)) == len(EVERYTHING) == 3 * 1556
    assert set(dealt) == {(item.code, style) for item, style in EVERYTHING}
    for split, pictures in splits.items():
        assert {emoji_split(i, s) for i, s in zip(pictures.items, pictures.styles, strict=True)} == {split}


def test_the_splits_have_the_sizes_that_are_stated(splits):
    assert {split: len(pictures) for split, pictures in splits.items()} == {
        "train": 4303, "validation": 144, "new_things": 144, "new_combinations": 77,
    }  # fmt: skip
    total = len(data.all_emoji())
    styles = {split: Counter(code for code, _ in pairs(pictures)) for split, pictures in splits.items()}
    assert set(styles["new_things"].values()) == {3} and set(styles["new_combinations"].values()) == {1}
    assert len(styles["new_things"]) / total == pytest.approx(0.03, abs=0.003)
    assert len(styles["new_combinations"]) / total == pytest.approx(0.05, abs=0.003)
    assert Counter(styles["validation"].values()) == {3: 33, 1: 45}
    for split in ("new_things", "new_combinations", "validation"):  # no style is favoured much
        counts = Counter(splits[split].styles)
        assert min(counts.values()) >= 0.75 * max(counts.values()) and len(counts) == 3


def test_the_other_two_styles_of_a_new_combination_are_in_training(splits):
    train = set(pairs(splits["train"]))
    for code, style in pairs(splits["new_combinations"]):
        assert [other for other in data.STYLES if (code, other) in train] == [s for s in data.STYLES if s != style]
    things = {code for code, _ in pairs(splits["new_things"])}
    assert not things & {code for code, _ in train}


def test_what_looks_nearly_alike_is_on_the_same_side(splits):
    """No held-out picture has a training picture of its style closer than 0.002 (squared, RGB from 0 to 1)."""
    rowing = [NAMED[f"{who} rowing boat"] for who in ("man", "woman", "person")]
    assert len({item.kin for item in rowing}) == 1 and len({item.code for item in rowing}) == 3
    placed = {}
    for item, style in EVERYTHING:
        assert placed.setdefault((item.kin, style), emoji_split(item, style)) == emoji_split(item, style)
    closest = []
    for style in data.STYLES:
        train, held = (
            torch.cat([p.floats([k for k, s in enumerate(p.styles) if s == style]).flatten(1) / 2 for p in some])
            for some in ([splits["train"]], [p for split, p in splits.items() if split != "train"])
        )
        apart = (held**2).mean(1)[:, None] + (train**2).mean(1) - 2 * held @ train.T / held.shape[1]
        closest.append(float(apart.min()))
    assert min(closest) > 0.002


def test_no_held_out_pair_comes_out_of_the_training_generator(splits):
    allowed, seen = set(pairs(splits["train"])), set()
    for seed in (0, 1, 2**32 - 1):
        for batch in itertools.islice(data.emoji_batches(1000, seed=seed), 8):
            assert {emoji_split(i, s) for i, s in zip(batch.items, batch.styles, strict=True)} == {"train"}
            seen |= set(pairs(batch))
    assert seen <= allowed and len(seen) > 0.98 * len(allowed)


def test_no_training_caption_names_a_held_out_pair():
    """Read from the words, where they give the whole name and the style."""
    for batch in itertools.islice(data.emoji_batches(500, seed=3), 6):
        for text in batch.captions:
            found = re.fullmatch(r"an? (noto|twemoji|openmoji) emoji of (?:an? |the )?([^(]+?)(?: \(.*\))?", text)
            if found:
                assert emoji_split(NAMED[found[2]], found[1]) == "train", text


def test_the_order_is_that_of_a_hash(splits):
    """So that the first 24 of a split are nobody's choice."""
    things = list(dict.fromkeys(item.name for item in splits["new_things"].items))
    assert things[:4] == ["sagittarius", "scorpion", "slightly smiling face", "nine o'clock"]
    first = list(
        zip([item.name for item in splits["new_combinations"].items], splits["new_combinations"].styles, strict=True)
    )[:3]
    assert first == [("pen", "twemoji"), ("weary face", "openmoji"), ("water wave", "twemoji")]
    assert [emoji_split(NAMED["red apple"], style) for style in data.STYLES] == ["train"] * 3


# Pictures --------------------------------------------------------------------------------


def test_pictures_are_bytes_and_floats(splits):
    pictures = splits["new_things"]
    assert pictures.images.shape == (144, 3, 64, 64) and pictures.images.dtype == torch.uint8
    assert len(pictures) == len(pictures.items) == len(pictures.styles) == 144
    floats = pictures.floats()
    assert floats.dtype == torch.float32 and floats.min() == -1 and floats.max() == 1
    assert torch.equal(((floats + 1) * 127.5).round().byte(), pictures.images)
    assert torch.equal(pictures.floats([5, 2]), floats[[5, 2]])
    assert torch.equal(pictures.floats(torch.tensor([7])), floats[7:8])


def test_colours_are_in_their_order_and_nothing_is_turned():
    apple = data.emoji_images([(NAMED["red apple"], style) for style in data.STYLES]).float()
    red, green, blue = apple[:, :, 32:48, 24:40].mean((2, 3)).T
    assert (red > 180).all() and (green < 110).all() and (blue < 90).all()
    for flame in data.emoji_images([(NAMED["green circle"], style) for style in data.STYLES]).float():
        assert flame[1, 32, 32] > flame[[0, 2], 32, 32].max() + 20
    thumb = 255 - data.emoji_images([(NAMED[f"thumbs {way}"], "noto") for way in ("up", "down")]).float().mean(1)
    assert thumb[0, :16].sum() < thumb[0, -16:].sum() and thumb[1, :16].sum() > thumb[1, -16:].sum()


def test_the_ground_is_white_and_the_drawing_is_in_the_middle():
    images = data.emoji_images(EVERYTHING)
    corners = images[:, :, [0, 0, -1, -1], [0, -1, 0, -1]].float()  # (N, 3, 4)
    assert (corners == 255).all((1, 2)).float().mean() > 0.85  # some fill the square
    ink = (images < 245).any(1)
    assert ink.any((1, 2)).all()
    for k, style in enumerate(data.STYLES):
        for axis in (1, 2):
            lines = ink[k::3].any(3 - axis)
            first, last = lines.int().argmax(1), 63 - lines.flip(1).int().argmax(1)
            assert ((first + last) / 2 - 31.5).abs().median() <= 1, style
            assert (last - first + 1).float().median() >= 46, style  # and it fills most of the picture


def test_a_picture_by_its_code_is_the_one_of_its_split(splits):
    pictures = splits["new_combinations"]
    some = [(pictures.items[k], pictures.styles[k]) for k in (40, 3, 3)]
    assert torch.equal(data.emoji_images(some), pictures.images[[40, 3, 3]])
    assert data.emoji_images([]).shape == (0, 3, 64, 64)


# Names, captions -------------------------------------------------------------------------


def test_the_list():
    items = data.all_emoji()
    assert len(items) == len({item.code for item in items}) == len(NAMED) == 1556
    for item in items:
        assert re.fullmatch(r"[0-9a-f]{2,5}(-[0-9a-f]{4,5})*", item.code)
        assert re.fullmatch(r"[a-z0-9' -]+", item.name) and re.sub("^(an?|the) ", "", item.thing) == item.name
        assert item.tags and all(re.fullmatch(r"[a-z' ]+", tag) for tag in item.tags)
        assert not {"1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"} & set(item.code.split("-"))  # skin tones
    assert {item.kin for item in items} <= {item.code for item in items}
    assert Counter(item.group for item in items)["flags"] == 8  # no countries


@pytest.mark.parametrize(
    "thing",
    ["a red apple", "a smiling cat with heart eyes", "an avocado", "an hourglass done", "a unicorn", "a ewe", "an x-ray",
     "an herb", "a one piece swimsuit", "a euro banknote", "scissors", "grapes", "bread", "the sun", "the milky way",
     "one o'clock", "aries", "santa claus", "thumbs up", "a man with red hair", "a bald woman", "a no entry sign",
     "a family of two adults and a child", "a woman walking facing right", "a pinata", "an upside down face"],
)  # fmt: skip
def test_articles(thing):
    assert thing in {item.thing for item in data.all_emoji()}


def test_captions():
    cat, apple = NAMED["smiling cat with heart eyes"], NAMED["red apple"]
    assert data.emoji_caption("noto", cat) == "a noto emoji of a smiling cat with heart eyes"
    assert data.emoji_caption("twemoji", apple) == "a twemoji emoji of a red apple"
    assert [data.emoji_caption("openmoji", apple, wording) for wording in range(len(data.EMOJI_WORDINGS))] == [
        "an openmoji emoji of a red apple",
        "a red apple, openmoji style",
        "openmoji emoji: red apple",
        "red apple in openmoji",
        "an openmoji emoji of a red apple (diet, food, fruit)",
        "openmoji emoji: diet, food, fruit",
        "an emoji of a red apple",
    ]
    assert data.emoji_caption("noto", apple, 5, ["health"]) == "noto emoji: health"
    assert data.emoji_caption("noto", NAMED["scissors"]) == "a noto emoji of scissors"


def test_a_caption_says_what_is_shown():
    used, tags = Counter(), set()
    for batch in itertools.islice(data.emoji_batches(500, seed=1), 4):
        for text, item, style in zip(batch.captions, batch.items, batch.styles, strict=True):
            named = [tag for tag in item.tags if re.search(rf"\b{tag}\b", text)]
            assert item.name in text or len(named) >= min(TAGS, len(item.tags))
            assert style in text or text == f"an emoji of {item.thing}"
            assert "a openmoji" not in text
            used.update(k for k in range(7) if k not in (4, 5) and data.emoji_caption(style, item, k) == text)
            if item.name == "face with tears of joy":
                tags |= set(named)
    assert min(used.values()) > 200 and len(used) == 5


# Batches ---------------------------------------------------------------------------------


def test_batch_k_depends_on_the_seed_and_k_alone():
    first, again, other = (list(itertools.islice(data.emoji_batches(6, seed=seed), 3)) for seed in (5, 5, 6))
    for a, b, c in zip(first, again, other, strict=True):
        assert torch.equal(a.images, b.images) and a.captions == b.captions and pairs(a) == pairs(b)
        assert pairs(a) != pairs(c)
    assert pairs(first[0]) != pairs(first[1]) and len(first[0].items) == 6
    assert first[0].images.shape == (6, 3, 64, 64) and first[0].images.dtype == torch.float32
    assert first[0].images.min() >= -1 and first[0].images.max() == 1
    shown = data.emoji_images(list(zip(first[0].items, first[0].styles, strict=True)))
    assert torch.equal(first[0].images, shown.float() / 127.5 - 1)
    validation = next(data.emoji_batches(20, "validation"))
    assert {emoji_split(i, s) for i, s in zip(validation.items, validation.styles, strict=True)} == {"validation"}


# Mistakes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, problem",
    [(lambda: data.emoji("test"), "unknown split 'test'; there is train, validation, new_things, new_combinations"),
     (lambda: emoji_split(NAMED["pen"], "apple"), "unknown style 'apple'; there is noto, twemoji, openmoji"),
     (lambda: data.emoji_caption("apple", NAMED["pen"]), "unknown style 'apple'"),
     (lambda: data.emoji_images([(NAMED["pen"], "apple")]), "unknown style 'apple'"),
     (lambda: data.emoji_caption("noto", NAMED["pen"], 7), "wording must lie between 0 and 6, got 7"),
     (lambda: next(data.emoji_batches(0)), "at least 1 picture, got 0"),
     (lambda: next(data.emoji_batches(4, "test")), "unknown split 'test'"),
     (lambda: next(data.emoji_batches(4, seed=-1)), "seed must be at least 0, got -1")],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(make, problem):
    with pytest.raises(ValueError, match=problem) as error:
        make()
    assert "\n" not in str(error.value)


def webp(side=64):
    pixels = np.random.default_rng(0).integers(256, size=(side, side, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "WEBP", lossless=True)
    return out.getvalue()


def packed(files_inside):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files_inside.items():
            archive.writestr(name, content)
    return out.getvalue()


LISTED = {"code": "1f34e", "name": "red apple", "thing": "a red apple", "group": "food-drink", "kin": "1f34e",
          "tags": ["fruit"]}  # fmt: skip


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A folder of assets with one emoji in the real format."""
    (tmp_path / "emoji").mkdir()
    (tmp_path / "emoji/emoji.json").write_text(json.dumps([LISTED]))
    for style in data.STYLES:
        (tmp_path / f"emoji/{style}.zip").write_bytes(packed({"1f34e.webp": webp()}))
    monkeypatch.setattr(files, "ROOTS", (tmp_path,))
    data.all_emoji.cache_clear()
    yield tmp_path / "emoji"
    monkeypatch.undo()
    data.all_emoji.cache_clear()


def test_a_small_archive_is_read(small):
    (apple,) = data.all_emoji()
    assert (apple.code, apple.name, apple.tags) == ("1f34e", "red apple", ("fruit",))
    pictures = data.emoji_images([(apple, style) for style in data.STYLES])
    pixels = np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)
    assert torch.equal(pictures, torch.from_numpy(pixels).permute(2, 0, 1).expand(3, 3, 64, 64))


@pytest.mark.parametrize(
    "content, problem",
    [(packed({"1f34e.webp": webp()})[:-30], "not a zip file"),
     (packed({"1f34e.webp": webp()})[:40], "not a zip file"),
     (b"", "not a zip file"),
     (b"<html>please log in</html>", "not a zip file"),
     (packed({"1f34f.webp": webp()}), "1f34e.webp"),
     (packed({"1f34e.webp": b"GIF89a"}), "cannot identify"),
     (packed({"1f34e.webp": b""}), "cannot identify"),
     (packed({"1f34e.webp": webp()[:999]}), ""),
     (packed({"1f34e.webp": webp(32)}), "a picture of 32x32 pixels"),
     (packed({"1f34e.webp": webp()}).replace(webp()[990:999], bytes(9)), "CRC"),
     (packed({"1f34e.webp": webp()}).replace(b"PK\1\2\x14\3\x14", b"PK\1\2\x14\3\xff"), "zip file version 25.5")],
    ids=["cut", "cut early", "empty", "no archive", "a file less", "no WebP", "nothing", "half a WebP", "small", "damaged", "version"],
)  # fmt: skip
def test_an_archive_that_is_not_whole(small, content, problem):
    (small / "noto.zip").write_bytes(content)
    (apple,) = data.all_emoji()
    with pytest.raises(ValueError, match=f"noto.zip is not a whole archive of emoji .*{problem}") as error:
        data.emoji_images([(apple, "noto")])
    assert "\n" not in str(error.value)
    data.emoji_images([(apple, "twemoji")])  # the others are as they were


@pytest.mark.parametrize(
    "content",
    [json.dumps([LISTED])[:-20], "", "{}x", json.dumps([{**LISTED, "more": 1}]), json.dumps(["red apple"]), "[]", "{}",
     "3", json.dumps([{k: v for k, v in LISTED.items() if k != "tags"}])],
)  # fmt: skip
def test_a_list_that_is_not_whole(small, content):
    (small / "emoji.json").write_text(content)
    with pytest.raises(ValueError, match="emoji.json is not a whole list of emoji") as error:
        data.all_emoji()
    assert "\n" not in str(error.value)


def test_a_missing_file_says_what_to_do(small):
    (small / "noto.zip").unlink()
    (apple,) = data.all_emoji()
    with pytest.raises(FileNotFoundError, match="assets/emoji/noto.zip is missing: clone or install"):
        data.emoji_images([(apple, "noto")])
    (small / "emoji.json").unlink()
    data.all_emoji.cache_clear()
    with pytest.raises(FileNotFoundError, match="assets/emoji/emoji.json is missing"):
        data.all_emoji()
