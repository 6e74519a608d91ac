"""Exercises of lesson 08, CLIP: byte-pair encoding of a word."""

from collections.abc import Callable
from itertools import pairwise

from minidiff.course.checks.cases import Draw
from minidiff.course.checks.exercise import Bug, exercise

MARKED, MERGED = 256, 512  # id of a letter at the end of a word: + 256; merge k makes the piece 512 + k: as in CLIP


def merge(letters: list[int], merges: list[tuple[int, int]]) -> list[int]:
    return _merge(_mark(letters), merges, _earliest)


def _mark(letters: list[int]) -> list[int]:
    return [*letters[:-1], letters[-1] + MARKED]


def _merge(pieces: list[int], merges: list, choose: Callable, rounds: int = 1000, base: int = MERGED) -> list[int]:
    """Merge the chosen pair wherever it stands, until no pair has a merge."""
    ranks = {tuple(pair): rank for rank, pair in enumerate(merges)}
    for _ in range(rounds):
        pairs = [pair for pair in pairwise(pieces) if pair in ranks]
        if not pairs:
            break
        pair = choose(pairs, ranks)
        pieces = _join(pieces, pair, base + ranks[pair])
    return pieces


def _earliest(pairs: list, ranks: dict):
    return min(pairs, key=ranks.get)


def _join(pieces: list[int], pair: tuple[int, int], new: int) -> list[int]:
    out, i = [], 0
    while i < len(pieces):
        here = tuple(pieces[i : i + 2]) == pair
        out.append(new if here else pieces[i])
        i += 1 + here
    return out


def _from_the_right(letters, merges):
    ranks = {tuple(pair): rank for rank, pair in enumerate(merges)}
    pieces = _mark(letters)
    while pairs := [pair for pair in pairwise(pieces) if pair in ranks]:
        pair = _earliest(pairs, ranks)
        pieces = _join(pieces[::-1], pair[::-1], MERGED + ranks[pair])[::-1]
    return pieces


def _longest_first(letters, merges):
    """From the left, the longest piece of the vocabulary that fits."""
    spelled = {i: (i,) for pair in merges for i in pair}
    for rank, (a, b) in enumerate(merges):
        spelled[MERGED + rank] = spelled[a] + spelled[b]
    rest, out = tuple(_mark(letters)), []
    while rest:
        fits = [i for i, piece in spelled.items() if rest[: len(piece)] == piece] or [rest[0]]
        out.append(max(fits, key=lambda i: len(spelled.get(i, (i,)))))
        rest = rest[len(spelled.get(out[-1], (0,))) :]
    return out


def _merge_given(d: Draw):
    """A word of few letters, and merges that were learned from such words, so that they apply, overlap and compete."""
    few, length = d.choose("letters", [1, 2, 3, 4]), d.choose("length", [1, 5, 6, 7, 8, 9])
    letters = [d.random.randrange(few) for _ in range(length)]
    merges: list[tuple[int, int]] = []
    for _ in range(d.random.randint(3, 7)):
        other = [d.random.randrange(few) for _ in range(length)]
        word = d.random.choice(
            [_mark(letters), *(merge(word, merges) for word in (letters, letters, other, other[:3] * 2))]
        )
        pairs = [pair for pair in pairwise(word) if pair not in merges]
        merges += [d.random.choice(pairs)] if pairs else []
    if d.choose("order", {"": False, "merges in another order than they were learned": True}):
        fixed = [k for k, pair in enumerate(merges) if max(pair) < MERGED]  # the others are named by their place
        for k, pair in zip(fixed, d.random.sample([merges[k] for k in fixed], len(fixed)), strict=True):
            merges[k] = pair
    return letters, merges


exercise(
    "l08_merge",
    merge,
    _merge_given,
    (
        Bug(
            lambda letters, merges: _merge(_mark(letters), merges, lambda pairs, ranks: pairs[0]),
            "merges applied in the order of the text: the first pair that has a merge.",
            "which pair you choose: among all pairs of the word, the one that stands first in `merges`.",
            "a common word may come in pieces that the network has hardly met, and is read as a strange one.",
            "https://github.com/ztxz16/fastllm/pull/715",
        ),
        Bug(
            lambda letters, merges: _merge(_mark(letters), merges, lambda pairs, ranks: max(pairs, key=ranks.get)),
            "the merge of the highest rank first: the rarest pair.",
            "the choice: the earlier a merge was learned, the earlier it is applied.",
            "a common word may come in pieces that the network has hardly met, and is read as a strange one.",
        ),
        Bug(
            lambda letters, merges: _merge(
                _mark(letters), merges, lambda pairs, ranks: max(pairs, key=lambda p: (pairs.count(p), -ranks[p]))
            ),
            "merging the pair that is most frequent in this word: that is how merges are learned, on a whole text.",
            "the choice: the frequencies were counted once and for all; their order is the order of `merges`.",
            "the same syllable is read differently in different words.",
        ),
        Bug(
            lambda letters, merges: _merge(list(letters), merges, _earliest),
            "an end-of-word mark that was lost.",
            "the last letter: it has an id of its own, + 256.",
            "the end of a word can no longer be distinguished from its inside: 'red' is read as in 'redder'.",
            "https://github.com/robertknight/rten/pull/425",
        ),
        Bug(
            lambda letters, merges: _merge([letter + MARKED for letter in letters], merges, _earliest),
            "an end-of-word mark on every letter.",
            "the mark: only the last letter has it.",
            "words in pieces that the network has never met.",
        ),
        Bug(
            lambda letters, merges: _mark(_merge(list(letters), merges, _earliest)),
            "an end-of-word mark that came after the merges.",
            "the order: the last letter is marked first, for marked letters have merges of their own.",
            "wrong ids at the end of every word.",
        ),
        Bug(
            lambda letters, merges: _merge(_mark(letters), merges, _earliest, rounds=1),
            "a single merge: it takes many, one after another.",
            "the loop: go on until no pair of the word has a merge.",
            "most words come in many pieces, none of which the network has learned to read.",
        ),
        Bug(
            lambda letters, merges: _merge(_mark(letters), merges, _earliest, base=MARKED),
            "ids from 256 on for the merged pieces: there the marked letters live.",
            "the id of what merge k makes: 512 + k.",
            "pieces that are read as letters.",
        ),
        Bug(
            _from_the_right,
            "pairs joined from the right: where a pair overlaps itself, the left one comes first.",
            "how you go through the word: from left to right.",
            "there is no visible effect in most words; 'zzz' and the like are split differently than in training.",
        ),
        Bug(
            _longest_first,
            "the longest piece that fits, from the left, as another tokenizer does (WordPiece).",
            "how a piece comes about: only by merges, in the order of `merges`.",
            "other pieces than in training, in some words.",
        ),
    ),
    returns="a list of whole numbers",
    points=3,
)
