"""Our tokenizer gives the ids of transformers' CLIPTokenizer, with OpenAI's vocabulary of 49,408 pieces.

Left out are characters that this Python, or the library under transformers, is too old to know: each has the tables of
its own edition of Unicode. A character that one of them does not know can be split, lower-cased or ordered otherwise.
"""

import gzip
import json
import random
import unicodedata
from importlib.util import find_spec
from pathlib import Path

import pytest
from tokenizers import Regex, normalizers
from transformers import CLIPTokenizer

from minidiff.formats.tokenizer_files import load_tokenizer, save_tokenizer
from minidiff.tokenizer import END, LETTER, START, STOP, Tokenizer

PHRASES = r"""a red seven on a blue background
Small GREEN 3, top left, on white
it's we'll they've I'm you'd don't he're IT'S WE'LL DON'T rock'n'roll o'clock
don’t it’s ’s ‘x’ “quoted” – — …
's 't 're 've 'm 'll 'd 'x '' ''s !'s 1's s's 'S 'ſ
1234 3.14 1,000 1e-5 0x7f 20:45 a1b2 $5 50% ² ½ ① Ⅷ ٣ ३ 三 〇 𝟘
wow!!! ... -- ?!? (a) [b] {c} <d> #tag @name a_b a/b a\b ~`^
http://example.org/a?b=c&d=%20 &amp; &lt; ™ ® ©
<|startoftext|>
<|endoftext|>
a<|endoftext|>b <|startoftext|><|endoftext|>
<|STARTOFTEXT|>! <|startoftext|>!
!<|EndOfText|>!! !<|endoftext|>!!
<|startoftext| |endoftext|> <|endoftext|>s 's<|endoftext|>'s
</w> a</w>b Ġ Ċ ģ
ein Mädchen läuft über die Straße ẞ
ça va très bien à Noël
El niño comió ñoquis
красный квадрат на синем фоне
Ένα κόκκινο επτά ΣΤΗ ΘΑΛΑΣΣΑ ΟΔΟΣ Σ ΐ
赤い数字の七 ガギ が ㎏
红色的数字七在蓝色背景上
빨간 숫자 칠 각 ㄱ
رقم سبعة أحمر على خلفية زرقاء ﷽
שֶׁבַע אָדֹם
लाल अंक सात
เลขเจ็ดสีแดง
İSTANBUL ISPARTA ılık
ǅ Ǆ ŉ ǰ ẖ ﬀ ﬁ ﬃ 𝐀 Ａ１！ Ω K Å
👩‍👩‍👧‍👦 👍🏽 🏳️‍🌈 🇩🇪🇫🇷 1️⃣ ☺️ ☺
a photo of a 🐈, trending on artstation, 8k""".splitlines()
SPACES = " \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
INVISIBLE = "\0\x01\x1b\x7f\x80\x9f\xad\u200b\u200c\u200d\u2060\ufe0e\ufe0f\ufeff\ufffd"
ACCENTS = [*map(chr, range(0x300, 0x370)), *"\u05b0\u05b8\u05bc\u064b\u064e\u0651\u093c\u094d\u0e38\u0e48\u3099\u309a"]


NFC = normalizers.NFC()


def known():
    """The characters that both know, without surrogates and private use; of the large Asian scripts every 16th."""
    every = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) not in ("Cn", "Co", "Cs")]
    every = normalizers.Replace(Regex(r"\p{Cn}"), "").normalize_str("".join(every))
    large = ("CJK UNIFIED", "CJK COMPATIBILITY I", "HANGUL SYLLABLE", "TANGUT", "EGYPTIAN", "CUNEIFORM")
    return [char for char in every if ord(char) % 16 == 0 or not unicodedata.name(char, "").startswith(large)]


def same_order(char):
    """Do both put it in the same place among accents? The library's NFC knows those of Unicode 9 and before."""
    texts = (unicodedata.normalize("NFD", char), f"a\u0345{char}", f"a{char}\u0334")
    return all(NFC.normalize_str(text) == unicodedata.normalize("NFC", text) for text in texts)


def strings():
    characters = known()
    yield from ["", *PHRASES, *SPACES, *INVISIBLE]
    yield from (f"{a}{b}" for a in PHRASES for b in PHRASES[::3])
    yield from (f"a{space}{space}b's{space}" for space in SPACES + INVISIBLE)
    yield from ["x" * 10_000, "a red seven, " * 800, "赤い" * 5_000, "👩‍👩‍👧" * 2_000, "!" * 50, "!" * 1_000]
    yield from (("red " * n, "x7 " * n)[n % 2] for n in range(34, 82))  # around the length at which a text is cut

    for k in range(0, len(characters), 32):  # every character next to letters, and to signs and numbers
        yield " ".join(f"a{char}b" for char in characters[k : k + 32])
        yield " ".join(f"!{char}1" for char in characters[k : k + 32])
    ordered = [char for char in characters if same_order(char)]
    assert len(characters) - len(ordered) < 150
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        changed = [char for char in ordered if unicodedata.normalize(form, char) != char]
        for k in range(0, len(changed), 64):
            yield " ".join(unicodedata.normalize(form, char) for char in changed[k : k + 64])

    chance = random.Random(0)
    words = " ".join(PHRASES).split()
    pools = [words, words, words, SPACES, INVISIBLE, "0123456789", "'’.,!?-", ACCENTS, ordered]
    for _ in range(4_000):
        yield "".join(chance.choice(chance.choice(pools)) for _ in range(chance.randint(1, 40)))
    for _ in range(1_000):  # letters only, upper and lower case: long words, many merges
        yield "".join(chance.choice("eEtTaAoOiInNsShHrRdDlL cCuU") for _ in range(chance.randint(1, 120)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """CLIP's vocab.json and merges.txt, made from OpenAI's list of merges."""
    path = Path(find_spec("open_clip").origin).with_name("bpe_simple_vocab_16e6.txt.gz")
    merges = gzip.decompress(path.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    pieces = [*LETTER.values(), *(letter + STOP for letter in LETTER.values())]
    pieces += [*(merge.replace(" ", "") for merge in merges), START, END]
    folder = tmp_path_factory.mktemp("clip")
    (folder / "vocab.json").write_text(json.dumps({piece: k for k, piece in enumerate(pieces)}), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]), encoding="utf-8")
    return folder


def theirs(folder, **options):
    vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    merges = [tuple(line.split()) for line in (folder / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]]
    return CLIPTokenizer(vocab=vocab, merges=merges, **options)


@pytest.fixture(scope="module")
def texts():
    return list(dict.fromkeys(strings()))


def different(ours, reference, texts):
    """The texts with other ids: all of the ids, or those of a text that is cut and padded."""
    whole = reference(texts, add_special_tokens=False)["input_ids"]
    cut = reference(texts, padding="max_length", max_length=ours.length, truncation=True)["input_ids"]
    pairs = zip(texts, whole, cut, ours(texts).tolist(), strict=True)
    return [text for text, all_of_it, row, our_row in pairs if ours.encode(text) != all_of_it or our_row != row]


def test_known_ids(folder):
    ours = load_tokenizer(folder)
    assert (len(ours.vocab), len(ours.merges)) == (49408, 48894)
    assert ours("a photo of a cat")[0, :8].tolist() == [49406, 320, 1125, 539, 320, 2368, 49407, 49407]


def test_the_same_ids_on_thousands_of_strings(folder, texts):
    assert len(texts) > 7_000
    assert different(load_tokenizer(folder), theirs(folder), texts) == []


def test_the_same_ids_where_the_padding_is_another_piece(folder, texts):
    ours, reference = load_tokenizer(folder, pad="!"), theirs(folder, pad_token="!")
    assert reference.pad_token_id == 0
    assert different(ours, reference, texts[:1_000] + texts[-5_000::10]) == []


def test_the_same_text_from_ids(folder, texts):
    ours, reference = load_tokenizer(folder), theirs(folder)
    rows = ours(texts[::5]).tolist()
    expected = [reference.decode(row, skip_special_tokens=True) for row in rows]
    assert [ours.decode(row) for row in rows] == expected
    chance = random.Random(0)
    for _ in range(300):  # most of them are no text at all
        ids = [chance.randrange(49406) for _ in range(8)]
        assert ours.decode(ids) == reference.decode(ids)


def test_the_same_ids_with_a_vocabulary_that_we_trained(texts, tmp_path):
    ours = Tokenizer.train(PHRASES + texts[-60:], merges=300, length=24)
    save_tokenizer(ours, tmp_path)
    assert different(ours, theirs(tmp_path), texts[::10]) == []


def test_the_same_ids_with_a_vocabulary_that_lacks_letters(tmp_path):
    merges = [("e", "d</w>"), ("r", "ed</w>"), ("e", "e"), ("s", "e")]
    pieces = [*"rdesv!", *(letter + STOP for letter in "rden"), *map("".join, merges), START, END]
    ours = Tokenizer({piece: k for k, piece in enumerate(pieces)}, merges, length=9)
    save_tokenizer(ours, tmp_path)
    assert different(ours, theirs(tmp_path), ["red", "a red seven", "seen, sea", "赤", "rerereded", ""]) == []
