"""scenes: things placed in places, 64x64, with captions: "an owl in the snow, fluent style".

A hundred things in four styles are pasted on ten plain colours and six places, alone or in pairs. What a prompt says can
be read and drawn, so that every generated picture has a truth to be compared with, also those of combinations that are
never in training: a tenth of all pairs of things, of a thing and a backdrop, and of a thing and a style.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import count, product

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from minidiff.data.backdrops import COLORS, PHRASES, PLACES, SIDE, backdrop
from minidiff.data.dataset import DATASETS, Dataset, random_numbers
from minidiff.files import asset
from minidiff.registry import UserError

STYLES = ("noto", "twemoji", "openmoji", "fluent")
BACKDROPS = (*COLORS, *PLACES)
RELATIONS = {  # and how else it is said; the last two leave open who is where
    "left of": "to the left of", "right of": "to the right of", "above": "over", "below": "under",
    "next to": "beside", "and": "with",
}  # fmt: skip
SIZES = {"large": 46, "small": 28}  # pixels of a thing's longer side; each of two is small
CELL = 64  # pixels of a thing on its sheet
GRID = 4  # things stand on a grid of so many pixels, a position of the VAE's latents: a thing is the same there wherever it is

# Levels of a combination. A split has the scenes whose highest level in pairs, backdrops and styles it names.
TRAINED, CHOOSING, UNSEEN = 0, 1, 2
FRACTIONS = {UNSEEN: 0.10, CHOOSING: 0.03}
SPLITS: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # levels (N, 3) -> is the scene in this split? (N,)
    "all": lambda levels: levels.max(1) >= TRAINED,
    "train": lambda levels: (levels == TRAINED).all(1),
    "validation": lambda levels: levels.max(1) == CHOOSING,
    "new_pairs": lambda levels: (levels == (UNSEEN, TRAINED, TRAINED)).all(1),
    "new_backdrops": lambda levels: (levels == (TRAINED, UNSEEN, TRAINED)).all(1),
    "new_styles": lambda levels: (levels == (TRAINED, TRAINED, UNSEEN)).all(1),
}

WORDINGS = (  # `caption` fills them in; what a scene leaves open is left out
    "{what}{at}{style}",  # an owl in the snow, fluent style
    "{first}{what}{style}",  # in the snow, an owl, fluent style
    "{title}{what}{at}",  # fluent style: an owl in the snow
    "{picture}{what}{at}",  # a fluent picture of an owl in the snow
    "{bare}{at}{name}",  # owl in the snow, fluent
)
WAYS = 2 * len(WORDINGS)  # of putting a scene into words: each wording also with the other word of the relation


@dataclass(frozen=True)
class Scene:
    """What a prompt says, or, with nothing left open, what a picture shows. Raises UserError for what cannot be drawn."""

    thing: str
    other: str | None = None  # None: the thing is alone
    relation: str | None = None  # of the thing to the other one
    size: str = "large"  # of a thing alone
    backdrop: str | None = None  # None: left open
    style: str | None = None  # None: left open

    def __post_init__(self):
        known = (things(), (None, *things()), (None, *RELATIONS), SIZES, (None, *BACKDROPS), (None, *STYLES))
        for value, choices in zip(vars(self).values(), known, strict=True):
            if value not in choices:
                raise UserError(f"no scene has {value!r}; there is {', '.join(each for each in choices if each)}")
        if self.other == self.thing:
            raise UserError(f"a scene has two different things, not two of {self.thing}")
        if (self.other is None) != (self.relation is None):
            raise UserError("a relation needs two things, and two things a relation")


@dataclass(frozen=True)
class Scenes:
    """Pictures, what is said of each, and what each shows."""

    images: Tensor  # (N, 3, 64, 64) float32 in [-1, 1]
    captions: list[str]
    said: list[Scene]
    shown: list[Scene]  # the same with nothing left open
    centres: Tensor  # (N, 2, 2) of the thing and the other one, as row and column in pixels; NaN where there is none

    def __len__(self) -> int:
        return len(self.captions)


@cache
def things() -> tuple[str, ...]:
    """Their names, in the order of the sheets. Raises UserError for a damaged file, FileNotFoundError if it is missing."""
    path = asset("scenes/things.json")
    try:
        return tuple(json.loads(path.read_text()))
    except ValueError as error:
        raise UserError(f"{path} is not a whole list of things ({error})") from None


# --- words -----------------------------------------------------------------------------------------------------------


def with_article(words: str) -> str:
    """ "an owl", "a unicorn": by the sound, not by the letter."""
    return f"{'an' if words[0] in 'aeiou' and not words.startswith(('uni', 'ufo')) else 'a'} {words}"


def at(name: str) -> str:
    """Where a scene with this backdrop is: "on a pink background", "in the snow"."""
    return f"on {with_article(name)} background" if name in COLORS else PHRASES[name]


def caption(scene: Scene, way: int = 0) -> str:
    """The scene in words, in one of WAYS: "a fox left of a mushroom at night, noto style". Raises UserError."""
    if not 0 <= way < WAYS:
        raise UserError(f"way must lie between 0 and {WAYS - 1}, got {way}")
    wording, second = way % len(WORDINGS), way >= len(WORDINGS)
    if scene.relation:
        names = [scene.thing, scene.other]
        relation = RELATIONS[scene.relation] if second else scene.relation
    else:
        says = "small " if scene.size == "small" else "large " if second else ""
        names, relation = [says + scene.thing], ""
    where, style = scene.backdrop and at(scene.backdrop), scene.style
    return WORDINGS[wording].format(
        what=f" {relation} ".join(with_article(name) for name in names), bare=f" {relation} ".join(names),
        at=where and f" {where}" or "", first=where and f"{where}, " or "",
        style=style and f", {style} style" or "", name=style and f", {style}" or "",
        title=style and f"{style} style: " or "",
        picture=f"{with_article(f'{style} picture' if style else 'picture')} of ",
    )  # fmt: skip


FILLING = {
    "a", "an", "the", "of", "on", "in", "at", "by", "to", "and", "with", "is", "style", "picture", "background", "drawn",
}  # fmt: skip
OTHER_WORDS = {
    "tiny": "small", "little": "small", "big": "large", "grey": "gray", "beach": "sea", "snowy": "snow", "meadow": "grass",
}  # fmt: skip
SIDES = {
    "left": "left of", "right": "right of", "above": "above", "over": "above", "below": "below", "under": "below",
    "next": "next to", "beside": "next to",
}  # fmt: skip


def read_scene(prompt: str) -> Scene:
    """The scene that a prompt names; `caption` in any way is read back. Raises UserError that says what is not understood."""
    words = [OTHER_WORDS.get(word, word) for word in re.findall(r"[^\W\d_]+", prompt.lower())]
    text = f" {' '.join(words)} "
    longest_first = "|".join(sorted(things(), key=len, reverse=True))  # "palm tree" before "tree"
    named = list(re.finditer(f"(?<= )(?:{longest_first})(?= )", text))
    rest = re.sub(f"(?<= )(?:{longest_first})(?= )", "", text).split()
    understood = {*FILLING, *SIDES, *SIZES, *STYLES, *BACKDROPS}
    if unknown := [word for word in dict.fromkeys(rest) if word not in understood]:
        raise UserError(f'"{", ".join(unknown)}" in "{prompt}": scenes know no such word')
    if not 1 <= len(named) <= 2 or len({match[0] for match in named}) < len(named):
        found = ", ".join(match[0] for match in named) or "none"
        raise UserError(f'"{prompt}" must name one or two different things; found: {found}')
    backdrop, style, size = (_one(prompt, rest, known) for known in (BACKDROPS, STYLES, tuple(SIZES)))
    if len(named) == 1:
        return Scene(named[0][0], size=size or "large", backdrop=backdrop, style=style)
    if size == "large":
        raise UserError(f'"{prompt}" names a large thing and another one: there is room for two small ones')
    between = text[named[0].end() : named[1].start()].split()
    relation = _one(prompt, [SIDES[word] for word in between if word in SIDES], tuple(SIDES.values())) or "and"
    return Scene(named[0][0], named[1][0], relation, backdrop=backdrop, style=style)


def _one(prompt: str, words: list[str], known: Sequence[str]) -> str | None:
    found = [word for word in dict.fromkeys(words) if word in known]
    if len(found) > 1:
        raise UserError(f'"{prompt}" names {" and ".join(found)}: name one')
    return found[0] if found else None


MIRRORED = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


def true_of(said: Scene, shown: Scene) -> bool:
    """Is what is said true of a picture that shows this? What is left open is; and a fox left of an owl is an owl right of it."""
    if {said.thing, said.other} != {shown.thing, shown.other} or said.size != shown.size:
        return False
    if said.backdrop not in (None, shown.backdrop) or said.style not in (None, shown.style):
        return False
    if said.relation == "next to":
        return shown.relation in ("left of", "right of")
    same = said.relation if said.thing == shown.thing else MIRRORED.get(said.relation or "", said.relation)
    return same in (None, "and", shown.relation)


# --- what is held out ------------------------------------------------------------------------------------------------


def level(*names: str) -> int:
    """TRAINED, CHOOSING or UNSEEN: of two things, of a thing and a backdrop, or of a thing and a style; by their hash."""
    known = [name for name in STYLES if name in names]
    if not known:
        return _level(_hash(" ".join(sorted(names))), 1)
    thing = next(name for name in names if name not in STYLES)  # it keeps at least three styles
    one = STYLES[int(4 * _hash(f"one style of {thing}"))]
    return _level(_hash(f"styles of {thing}"), len(STYLES)) if one in known else TRAINED


def _level(where: float, times: int) -> int:
    for level, fraction in FRACTIONS.items():
        if where < times * fraction:
            return level
        where -= times * fraction
    return TRAINED


def _hash(words: str) -> float:
    """In [0, 1)."""
    return int(hashlib.sha256(words.encode()).hexdigest()[:12], 16) / 16**12


@cache
def _levels() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`level` of every (thing, other), (thing, backdrop), (thing, style); the last row and column are nothing's: TRAINED."""
    tables = []
    for columns in (things(), BACKDROPS, STYLES):
        table = np.zeros((len(things()) + 1, len(columns) + 1), dtype=np.int8)
        for (i, one), (j, two) in product(enumerate(things()), enumerate(columns)):
            table[i, j] = level(one, two) if one != two else TRAINED
        tables.append(table)
    return tables[0], tables[1], tables[2]


def scene_levels(numbers: np.ndarray) -> np.ndarray:
    """The highest level among a scene's pairs, backdrops and styles, (N, 3), for rows as `_numbers` gives them."""
    thing, other, back, style = numbers.T
    pairs, backs, styles = _levels()
    one, two = ((backs[which, back], styles[which, style]) for which in (thing, other))
    return np.stack([pairs[thing, other], np.maximum(one[0], two[0]), np.maximum(one[1], two[1])], axis=1)


def scene_split(scene: Scene) -> str | None:
    """The split of a scene with nothing left open; None where several kinds of it are held out."""
    levels = scene_levels(_numbers([scene]))
    return next((split for split, holds in SPLITS.items() if split != "all" and holds(levels)[0]), None)


def _numbers(scenes: Sequence[Scene]) -> np.ndarray:
    """(thing, other or -1, backdrop, style) of scenes with nothing left open, (N, 4)."""
    known = [{name: k for k, name in enumerate(names)} for names in (things(), things(), BACKDROPS, STYLES)]
    known[1][None] = -1
    said = ((scene.thing, scene.other, scene.backdrop, scene.style) for scene in scenes)
    return np.array([[place[word] for place, word in zip(known, words, strict=True)] for words in said])


# --- pictures --------------------------------------------------------------------------------------------------------


@cache
def _things_on(device: torch.device) -> Tensor:
    """The bank: every thing in every style and size, (styles * things * sizes + 1, 48, 48, 4) uint8; the last is empty.

    Colours are multiplied by alpha. Things are at the top left, with one empty pixel around the largest.
    """
    wide, bank = max(SIZES.values()), []
    for style in STYLES:
        path = asset(f"scenes/{style}.webp")
        try:
            sheet = torch.from_numpy(np.array(Image.open(path, formats=("WEBP",)).convert("RGBa"))).float()
            cells = sheet.unfold(0, CELL, CELL).unfold(1, CELL, CELL).flatten(0, 1)[: len(things())]  # (T, 4, 64, 64)
            if len(cells) < len(things()):
                raise OSError(f"it has room for {len(cells)} things")
        except (OSError, RuntimeError) as error:
            raise UserError(f"{path} is not a whole sheet of things ({error})") from None
        for size in SIZES.values():
            small = F.interpolate(cells, size=size, mode="bicubic", antialias=True).clamp(0, 255)
            small[:, :3] = torch.minimum(small[:, :3], small[:, 3:])  # no colour is stronger than its alpha
            bank.append(F.pad(small, (1, 1 + wide - size) * 2).round().byte())
    bank = torch.stack(bank, dim=1).flatten(0, 1)  # thing, style, size
    bank = torch.cat([bank, torch.zeros_like(bank[:1])])
    return bank.permute(0, 2, 3, 1).contiguous().to(device)


@cache
def backdrops_on(device: torch.device) -> tuple[Tensor, list[int]]:
    """Every picture of every backdrop, (M, 64, 64, 3) uint8, and where each backdrop's begin, with the end."""
    variants = [backdrop(name).round().byte() for name in BACKDROPS]
    starts = np.cumsum([0, *map(len, variants)]).tolist()
    return torch.cat(variants).permute(0, 2, 3, 1).contiguous().to(device), starts


def compose(backs: Tensor, front: Tensor, corners: Tensor, device: torch.device | str = "cpu") -> Tensor:
    """Pictures (N, 3, 64, 64) float32 in [-1, 1]: things pasted one after the other (Porter and Duff 1984, "over").

    backs: rows of the backdrops' pictures, (N,). front: rows of the bank, (N, K). corners: where the top left of each
    thing comes, (N, K, 2) as row and column.
    """
    device = torch.device(device)
    bank, pictures = _things_on(device), backdrops_on(device)[0][backs.to(device)].float()
    pixels, wide = bank.view(torch.int32).squeeze(-1), bank.shape[1]  # a pixel is one number: four times as fast
    line = torch.arange(SIDE, device=device)
    for which, corner in zip(front.to(device).unbind(1), corners.to(device).unbind(1), strict=True):
        y, x = ((line - first[:, None] + 1).clamp(0, wide - 1) for first in corner.unbind(1))  # outside: the empty rim
        pasted = pixels[which[:, None, None], y[:, :, None], x[:, None, :]]  # (N, 64, 64)
        pasted = pasted.view(torch.uint8).unflatten(2, (SIDE, 4)).float()
        pictures = pasted[..., :3] + pictures * (1 - pasted[..., 3:] / 255)
    return (pictures / 127.5 - 1).permute(0, 3, 1, 2)


def draw(
    scenes: Sequence[Scene], rng: np.random.Generator, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Pictures of scenes with nothing left open, (N, 3, 64, 64) in [-1, 1], and the centres of their things, (N, 2, 2).

    rng places the things and picks the hills.
    """
    thing, other, back, style = _numbers(scenes).T
    alone, sizes = other < 0, len(SIZES)
    small = np.array([scene.size == "small" for scene in scenes]) | ~alone
    starts = np.array(backdrops_on(torch.device("cpu"))[1])
    variants = starts[back] + (rng.random(len(back)) * (starts[back + 1] - starts[back])).astype(int)
    front = np.stack([thing, other], axis=1) * len(STYLES) * sizes + (style * sizes + small)[:, None]
    front[alone, 1] = len(things()) * len(STYLES) * sizes  # the empty one
    corners = _corners(small, [scene.relation for scene in scenes], rng)
    centres = corners + np.where(small, SIZES["small"], SIZES["large"])[:, None, None] / 2
    centres[alone, 1] = np.nan
    rows = (torch.from_numpy(each) for each in (variants, front, corners))
    return compose(*rows, device), torch.from_numpy(centres).float()


def _corners(small: np.ndarray, relations: Sequence[str | None], rng: np.random.Generator) -> np.ndarray:
    """The top left of the thing and the other one, (N, 2, 2), as row and column: inside the picture, never overlapping."""
    u = rng.random((len(small), 3))

    def between(low: np.ndarray | int, high: np.ndarray | int, u: np.ndarray) -> np.ndarray:
        """Of the multiples of GRID from low to high, the one that u in [0, 1) picks."""
        return low + GRID * np.floor(u * ((high - low) // GRID + 1))

    free = SIDE - np.where(small, SIZES["small"], SIZES["large"])  # how far a thing can move
    single = between(GRID, (free - GRID)[:, None], u[:, :2])
    # Two things share what is left along the line of their relation, and are level across it.
    last = SIDE - SIZES["small"]
    begin, end = between(0, GRID, u[:, 0]), between(last - GRID, last, u[:, 1])
    across = between(2 * GRID, last - 2 * GRID, u[:, 2])
    pair = np.stack([across, begin, across, end], axis=1).reshape(-1, 2, 2)  # left of
    upright, second = (np.isin(relations, names) for names in (("above", "below"), ("right of", "below")))
    pair[upright] = pair[upright][:, :, ::-1]
    pair[second] = pair[second][:, ::-1]
    alone = np.array([relation is None for relation in relations])
    return np.where(alone[:, None, None], single[:, None], pair).astype(np.int64)


ALONE, SMALL = 0.4, 0.3  # of the scenes that are drawn
NO_BACKDROP, NO_STYLE, NO_SIDE = 0.1, 0.3, 0.25  # how often a caption leaves it open


def scenes(n: int, split: str = "train", seed: int = 0, step: int = 0, device: torch.device | str = "cpu") -> Scenes:
    """n random scenes of one split, in random words. The same for the same seed and step. Raises UserError."""
    rng = random_numbers(seed, split, SPLITS, step, n)
    names, numbers, todo = things(), np.zeros((n, 4), dtype=int), np.arange(n)
    while len(todo):  # those that are not in the split are drawn again
        most = (len(names), len(names), len(BACKDROPS), len(STYLES))
        drawn = np.stack([rng.integers(high, size=len(todo)) for high in most], axis=1)
        drawn[rng.random(len(todo)) < ALONE, 1] = -1
        numbers[todo] = drawn
        todo = todo[~(SPLITS[split](scene_levels(drawn)) & (drawn[:, 0] != drawn[:, 1]))]
    said, shown = [], []
    draws = zip(numbers.tolist(), rng.integers(4, size=n).tolist(), rng.random((n, 4)).tolist(), strict=True)
    for (thing, other, back, style), side, (u, v, w, x) in draws:
        relation = None if other < 0 else list(RELATIONS)[side]
        two = names[other] if relation else None
        size = "small" if u < SMALL and not relation else "large"
        shown.append(Scene(names[thing], two, relation, size, BACKDROPS[back], STYLES[style]))
        if relation and v < NO_SIDE:
            relation = "next to" if side < 2 and v < NO_SIDE / 2 else "and"
        backdrop, look = None if w < NO_BACKDROP else BACKDROPS[back], None if x < NO_STYLE else STYLES[style]
        said.append(Scene(names[thing], two, relation, size, backdrop, look))
    captions = [caption(scene, way) for scene, way in zip(said, rng.integers(WAYS, size=n).tolist(), strict=True)]
    images, centres = draw(shown, rng, device)
    return Scenes(images, captions, said, shown, centres)


def scene_batches(
    batch: int, split: str = "train", seed: int = 0, device: torch.device | str = "cpu"
) -> Iterator[Scenes]:
    """Endless batches for training. Batch k depends on seed and k alone."""
    return map(partial(scenes, batch, split, seed, device=device), count(1))


DATASETS["scenes"] = Dataset(
    lambda split, folder=None: scenes(2000, split),
    lambda: (
        f"{len(things())} things in {len(STYLES)} styles and {len(BACKDROPS)} backdrops with captions, composed on demand"
    ),
    (3, SIDE, SIDE),
)
