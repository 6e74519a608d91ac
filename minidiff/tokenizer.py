"""Byte-pair encoding: text to token ids (Sennrich et al. 2016; on bytes, as in GPT-2; files and ids are CLIP's).

A text is lowercased and split into words. A word starts as bytes, so that nothing is unknown. Then neighbours are merged
by a list of merges learned from many texts, the most frequent first: a common word ends as one piece, a rare one as several.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import Self

import regex  # Python's re, with \p{L}, a letter of any script, and \p{N}, a number
import torch

from minidiff.registry import UserError

START, END = "<|startoftext|>", "<|endoftext|>"
STOP = "</w>"  # marks the last piece of a word: "in</w>" is a word, "in" may begin "inside"

# A word is an ending such as 's, or a run of letters, or one number, or a run of anything else but spaces.
WORD = regex.compile(r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+")

# One visible letter for each byte: printable bytes stand for themselves and come first; the others follow.
VISIBLE = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
HIDDEN = [byte for byte in range(256) if byte not in VISIBLE]
LETTER = {byte: chr(byte) for byte in VISIBLE} | {byte: chr(256 + k) for k, byte in enumerate(HIDDEN)}
BYTE = {letter: byte for byte, letter in LETTER.items()}


def split(text: str) -> list[str]:
    """The words of a text, in lower case. "It's 12." is it, 's, 1, 2 and a full stop."""
    text = unicodedata.normalize("NFC", text)  # é is one character, never e and an accent
    text = "".join(char.lower() for char in text)  # one by one: str.lower() turns the last Σ of a word into ς
    words = []
    for word in WORD.findall(text):  # of <|ENDOFTEXT|>, which is not special, transformers makes three words
        words += [word[:2], word[2:-2], word[-2:]] if word in (START, END) else [word]
    return words


def spell(word: str) -> list[str]:
    """A word's first pieces: a letter for each byte, the last one marked. "red" is r, e, d</w>."""
    letters = [LETTER[byte] for byte in word.encode("utf-8", errors="replace")]
    return letters[:-1] + [letters[-1] + STOP]


def join(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    """The pieces with the pair merged wherever it occurs, from left to right."""
    joined = []
    for piece in pieces:
        joined.append(joined.pop() + piece if joined and (joined[-1], piece) == pair else piece)
    return joined


def read(pieces: Iterable[str]) -> str:
    """The text of pieces. Bytes that are not UTF-8, as in half a character, become the replacement character."""
    text = bytes(BYTE[letter] for letter in "".join(pieces)).decode("utf-8", errors="replace")
    return text.replace(STOP, " ").strip()


class Tokenizer:
    """Text to ids and back.

    vocab: the id of each piece, 0 to len(vocab) - 1. merges: pairs, in the order learned. length: ids per text. pad: the
    piece that pads short texts, None for the end of text (Stable Diffusion 2.x: "!"). words: those of the training
    texts, if not all became one piece. Raises UserError if they do not fit together.
    """

    def __init__(
        self, vocab: dict[str, int], merges: list[tuple[str, str]], length: int = 77, pad: str | None = None,
        words: Iterable[str] = (),
    ):  # fmt: skip
        self.vocab, self.merges, self.length, self.words = vocab, merges, length, frozenset(words)
        self.pad = END if pad is None else pad
        self.special = (START, END, self.pad)
        if length < 2:
            raise UserError(f"a text of length {length} has no room for its start and end tokens")
        if not all(type(id) is int for id in vocab.values()) or set(vocab.values()) != set(range(len(vocab))):
            raise UserError(f"the ids of the vocabulary are not 0 to {len(vocab) - 1}, each once")
        for piece in self.special:
            if piece not in vocab:
                raise UserError(f'"{piece}" is not in the vocabulary')
        for left, right in merges:
            for piece in (left, right, left + right):
                if piece not in vocab:
                    raise UserError(f'the merge of "{left}" and "{right}" needs "{piece}": not in the vocabulary')
        self._piece = {id: piece for piece, id in vocab.items()}
        self._rank = {pair: k for k, pair in enumerate(merges)}
        self._special = regex.compile("(" + "|".join(map(regex.escape, self.special)) + ")")
        self._cache = {}  # word: its pieces

    @classmethod
    def train(cls, texts: Iterable[str], merges: int, length: int = 77) -> Self:
        """Learn up to `merges` merges, until every word is one piece: each is the most frequent pair; ties go alphabetically."""
        count = Counter(word for text in texts for word in split(text))
        spelled = {word: spell(word) for word in count}
        learned = []
        while len(learned) < merges:
            pairs = Counter()
            for word, pieces in spelled.items():
                for pair in pairwise(pieces):
                    pairs[pair] += count[word]
            if not pairs:
                break
            learned.append(min(pairs, key=lambda pair: (-pairs[pair], pair)))
            spelled = {word: join(pieces, learned[-1]) for word, pieces in spelled.items()}
        pieces = [*LETTER.values(), *(letter + STOP for letter in LETTER.values()), *map("".join, learned), START, END]
        words = spelled if any(len(pieces) > 1 for pieces in spelled.values()) else ()
        return cls({piece: id for id, piece in enumerate(dict.fromkeys(pieces))}, learned, length, words=words)

    def __call__(self, texts: str | list[str]) -> torch.Tensor:
        """Ids (B, length): start, text, end, padding. A text that is too long is truncated before the end token."""
        rows = []
        for text in [texts] if isinstance(texts, str) else texts:
            row = [self.vocab[START], *self.encode(text)[: self.length - 2], self.vocab[END]]
            rows.append(row + [self.vocab[self.pad]] * (self.length - len(row)))
        return torch.tensor(rows, dtype=torch.long).reshape(-1, self.length)

    def encode(self, text: str) -> list[int]:
        """The ids of the whole text, without start and end. A piece that is not in the vocabulary becomes the end token."""
        return [self.vocab.get(piece, self.vocab[END]) for piece in self.pieces(text)]

    def pieces(self, text: str) -> list[str]:
        """The pieces of a text. A special piece written out in it, such as "<|endoftext|>", is one piece."""
        pieces = []
        for part in self._special.split(text):
            pieces += [part] if part in self.special else [p for word in split(part) for p in self._merged(word)]
        return pieces

    def _merged(self, word: str) -> list[str]:
        if word not in self._cache:
            pieces = spell(word)
            while pairs := self._rank.keys() & pairwise(pieces):
                pieces = join(pieces, min(pairs, key=self._rank.get))  # the one that was learned first
            self._cache[word] = pieces
        return self._cache[word]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, without special pieces. Raises KeyError for an id that is not in the vocabulary."""
        pieces = [self._piece[int(id)] for id in ids]
        return read(piece for piece in pieces if piece not in self.special)

    def left_out(self, text: str) -> str:
        """The end of a text that `length` truncates; "" if all of it fits."""
        return read(self.pieces(text)[self.length - 2 :])

    def unknown(self, text: str) -> list[str]:
        """The words of a text that were not in the training texts; without that list, those that are not one piece."""
        words = dict.fromkeys(split(self._special.sub(" ", text)))
        return [word for word in words if (word not in self.words if self.words else len(self._merged(word)) > 1)]

    def unread(self, text: str) -> str:
        """One line about what in a text is truncated or new to the tokenizer, "" if nothing is."""
        why = "in no caption of its training" if self.words else "not in the vocabulary"
        found = {
            f"left out, for there is room for {self.length - 2} tokens": self.left_out(text),
            f"{why}, read in pieces": ", ".join(self.unknown(text)),
        }
        return "; ".join(f"{problem}: {shorten(what, 80)}" for problem, what in found.items() if what)


def shorten(text: str, longest: int) -> str:
    """In one line of at most `longest` characters."""
    text = " ".join(text.split())
    return text if len(text) <= longest else text[: longest - 1] + "…"
