"""The tokenizer, against what can be worked out by hand. Its ids against transformers' are in tests/parity."""

import json
import random

import pytest
import torch

from minidiff.formats.tokenizer_files import load_tokenizer, save_tokenizer
from minidiff.networks import CLIPTextConfig
from minidiff.tokenizer import BYTE, END, LETTER, START, STOP, Tokenizer, join, spell, split

CAPTIONS = ["a red seven on a blue background", "a red one on white", "small green 3, top left, on white"]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(CAPTIONS, merges=1000, length=12)


def made(merges, *more):
    """A tokenizer of just these merges, all bytes, and some more pieces."""
    pieces = [
        *LETTER.values(),
        *(letter + STOP for letter in LETTER.values()),
        *map("".join, merges),
        *more,
        START,
        END,
    ]
    return Tokenizer({piece: k for k, piece in enumerate(dict.fromkeys(pieces))}, merges)


def test_each_byte_has_a_letter_of_its_own_that_prints():
    assert sorted(LETTER) == list(range(256)) and len(set(LETTER.values())) == 256
    assert all(letter.isprintable() and not letter.isspace() for letter in LETTER.values())
    assert [LETTER[byte] for byte in b"!az~"] == list("!az~")
    assert (LETTER[0], LETTER[ord(" ")], LETTER[0xAD]) == ("Ā", "Ġ", "Ń")  # the first, the 33rd, the last hidden one
    assert list(LETTER)[:2] == [33, 34] and list(LETTER)[-68:][:2] == [0, 1]  # CLIP's ids follow this order


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (" \t\n\u3000", []),
        ("A red  Seven", ["a", "red", "seven"]),
        ("it's they'll don't 'tis", ["it", "'s", "they", "'ll", "don", "'t", "'t", "is"]),
        ("don’t", ["don", "’", "t"]),  # the curly apostrophe is any other sign
        ("room101, 3½", ["room", "1", "0", "1", ",", "3", "½"]),
        ("wow!?... #a-b", ["wow", "!?...", "#", "a", "-", "b"]),
        ("e\u0301t\u00e9", ["\u00e9t\u00e9"]),
        ("ΟΔΟΣ", ["οδοσ"]),  # not οδος
        ("красный 赤い", ["красный", "赤い"]),
        ("a\u200db", ["a", "\u200d", "b"]),
        ("a\x1cb\x85c", ["a", "\x1c", "b", "c"]),  # the first is a space to Python, but not to Unicode
        ("!<|ENDOFTEXT|>!", ["!<|", "endoftext", "|>!"]),
        ("<|ENDOFTEXT|>!", ["<|", "endoftext", "|>", "!"]),
    ],
)
def test_words(text, words):
    assert split(text) == words


def test_spelling():
    assert spell("red") == ["r", "e", "d</w>"]
    assert spell("a") == ["a</w>"]
    assert bytes(BYTE[letter] for letter in "".join(spell("赤")).removesuffix(STOP)) == "赤".encode()


def test_joining_goes_from_left_to_right():
    assert join(list("aaaaa"), ("a", "a")) == ["aa", "aa", "a"]
    assert join(list("abcab"), ("a", "b")) == ["ab", "c", "ab"]
    assert join(["a", "b</w>"], ("a", "b")) == ["a", "b</w>"]
    assert join([], ("a", "b")) == []


def test_the_merge_that_was_learned_first_goes_first():
    assert made([("b", "c"), ("a", "b")]).pieces("abcd") == ["a", "bc", "d</w>"]
    assert made([("a", "b"), ("b", "c")]).pieces("abcd") == ["ab", "c", "d</w>"]
    assert made([("a", "b"), ("c", "d</w>"), ("ab", "cd</w>")]).pieces("abcd abcde") == [
        "abcd</w>",
        "ab",
        "c",
        "d",
        "e</w>",
    ]
    assert made([("a", "a"), ("aa", "aa")]).pieces("aaaaaaa") == ["aaaa", "aa", "a</w>"]


def test_training_on_a_text_worked_out_by_hand():
    # l o w</w> 5, l o w e r</w> 2, n e w e s t</w> 6, w i d e s t</w> 3: "es" and "st</w>" 9 times, then "lo" 7, then 6
    text = "low " * 5 + "lower " * 2 + "newest " * 6 + "widest " * 3
    merges = [
        ("e", "s"),
        ("es", "t</w>"),
        ("l", "o"),
        ("e", "w"),
        ("ew", "est</w>"),
        ("n", "ewest</w>"),
        ("lo", "w</w>"),
    ]
    trained = Tokenizer.train([text], merges=7)
    assert trained.merges == merges
    assert trained.pieces("newest lowest low") == ["newest</w>", "lo", "w", "est</w>", "low</w>"]
    shuffled = text.split()
    random.Random(0).shuffle(shuffled)
    assert Tokenizer.train((word for word in shuffled), merges=7).merges == merges


def test_the_vocabulary_is_laid_out_as_clips():
    trained = Tokenizer.train(CAPTIONS, merges=5)
    assert len(trained.merges) == 5 and len(trained.vocab) == 512 + 5 + 2
    assert (trained.vocab["!"], trained.vocab["!</w>"], trained.vocab["".join(trained.merges[0])]) == (0, 256, 512)
    assert (trained.vocab[START], trained.vocab[END]) == (517, 518)


def test_training_stops_when_every_word_is_one_piece(tokenizer):
    assert 0 < len(tokenizer.merges) < 100
    assert tokenizer.unknown(" ".join(CAPTIONS)) == []
    assert tokenizer.pieces("a red seven, left") == ["a</w>", "red</w>", "seven</w>", ",</w>", "left</w>"]
    nothing = Tokenizer.train([], merges=10)
    assert nothing.merges == [] and len(nothing.vocab) == 514 and nothing.pieces("ab") == ["a", "b</w>"]


def test_two_ways_to_the_same_piece_share_an_id():
    tokenizer = made([("a", "b"), ("b", "c"), ("ab", "c"), ("a", "bc")])
    assert len(tokenizer.vocab) == 512 + 3 + 2 and tokenizer.pieces("abcx") == ["abc", "x</w>"]
    trained = Tokenizer.train(["aaaaaaa aaaaa aaa baaab aab abab"], merges=1000)
    assert len(set(trained.vocab.values())) == len(trained.vocab) <= 514 + len(trained.merges)
    assert trained.unknown("aaaaaaa aaaaa aaa baaab aab abab") == []


def test_saved_and_loaded_it_is_the_same(tokenizer, tmp_path):
    save_tokenizer(tokenizer, tmp_path / "new" / "folder")
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == ["merges.txt", "vocab.json"]
    lines = (tmp_path / "new" / "folder" / "merges.txt").read_text(encoding="utf-8").split("\n")
    assert lines[0] == "#version: 0.2" and lines[-1] == "" and len(lines) == len(tokenizer.merges) + 2
    loaded = load_tokenizer(
        tmp_path / "new" / "folder", CLIPTextConfig(len(tokenizer.vocab), 12, end=tokenizer.vocab[END])
    )
    assert (loaded.vocab, loaded.merges, loaded.pad) == (tokenizer.vocab, tokenizer.merges, END)
    assert torch.equal(loaded([*CAPTIONS, "赤い"]), tokenizer([*CAPTIONS, "赤い"]))
    assert (load_tokenizer(tmp_path / "new" / "folder").length, loaded.length) == (77, 12)
    assert load_tokenizer(tmp_path / "new" / "folder", pad="!").pad == "!"


def test_a_merge_may_begin_with_the_sign_of_a_comment(tmp_path):
    save_tokenizer(made([("#", "a"), ("#", "#</w>")]), tmp_path)
    assert load_tokenizer(tmp_path).merges == [("#", "a"), ("#", "#</w>")]


def test_ids_are_start_text_end_and_padding(tokenizer):
    start, end = tokenizer.vocab[START], tokenizer.vocab[END]
    red, one = tokenizer.vocab["red</w>"], tokenizer.vocab["one</w>"]
    ids = tokenizer(["red one", ""])
    assert ids.dtype == torch.long
    assert ids.tolist() == [[start, red, one] + [end] * 9, [start] + [end] * 11]
    assert torch.equal(tokenizer("red one"), ids[:1]) and tokenizer.encode("red one") == [red, one]
    assert tokenizer([]).shape == (0, 12)
    long = tokenizer("red " * 50)[0].tolist()
    assert long == [start] + [red] * 10 + [end]


def test_a_text_can_be_padded_with_another_piece(tokenizer):
    padded = Tokenizer(tokenizer.vocab, tokenizer.merges, length=6, pad="!")
    start, end, red = (tokenizer.vocab[piece] for piece in (START, END, "red</w>"))
    assert padded("red").tolist() == [[start, red, end, 0, 0, 0]]
    assert padded("red!").tolist() == [[start, red, 0, end, 0, 0]]  # the same id in the text, as in transformers
    assert padded.decode(padded("red")[0]) == "red"
    assert padded.unknown("red!!") == [] and tokenizer.unknown("red!!") == ["!!"]


def test_what_is_left_out(tokenizer):
    ten = " ".join(["red"] * 10)
    assert tokenizer.left_out("") == tokenizer.left_out(ten) == ""
    assert tokenizer.left_out(ten + " on a WHITE") == "on a white"
    assert tokenizer.left_out("x" * 14) == "xxxx"  # of a word that is cut in two, the end
    assert tokenizer.left_out(ten + "<|endoftext|>") == "<|endoftext|>"
    kept = tokenizer.decode(tokenizer(ten + ", left")[0])
    assert (kept, tokenizer.left_out(ten + ", left")) == (ten, ", left")
    assert tokenizer.left_out("赤" * 4) == "\ufffd\ufffd"  # two of the three bytes of the last one


def test_what_the_vocabulary_has_not_as_one_piece(tokenizer):
    assert tokenizer.unknown("A RED cow, a red Cow on 7 crimson things") == ["cow", "crimson", "things"]
    assert tokenizer.unknown("") == tokenizer.unknown("red <|startoftext|> 7") == []
    assert tokenizer.unknown("赤 red") == ["赤"]
    assert tokenizer.unknown("red<|endoftext|>one") == []
    assert tokenizer.unknown("backgrounds background") == ["backgrounds"]


def test_decoding(tokenizer):
    text = "a red cow, 赤い and 🙂"
    assert tokenizer.decode(tokenizer.encode(text)) == "a red cow , 赤い and 🙂"
    assert tokenizer.decode([]) == tokenizer.decode(tokenizer("")[0]) == ""
    assert tokenizer.decode(tokenizer.encode("🙂")[:2]) == "\ufffd"
    with pytest.raises(KeyError):
        tokenizer.decode([len(tokenizer.vocab)])


def test_special_pieces_in_a_text_are_one_id_each(tokenizer):
    assert tokenizer.pieces("red<|endoftext|>one <|startoftext|>") == ["red</w>", END, "one</w>", START]
    assert tokenizer.pieces("<|EndOfText|>")[:2] == ["<", "|</w>"]


@pytest.mark.parametrize(
    "text",
    ["x" * 10_000, "red " * 2_500, "赤" * 10_000, "👩‍👩‍👧" * 2_000, "\0\x1f\x7f\x85", "\ud800 red", "e" + "\u0301" * 5_000, "اَلْعَرَبِيَّةُ"],
    ids=["one word", "words", "one foreign word", "emoji", "control", "half a surrogate", "accents", "arabic"],
)  # fmt: skip
def test_nothing_is_too_odd(tokenizer, text):
    ids = tokenizer(text)
    assert ids.shape == (1, 12) and (ids[0, 0], ids[0, -1]) == (tokenizer.vocab[START], tokenizer.vocab[END])
    assert ids.min() >= 0 and ids.max() < len(tokenizer.vocab)
    assert (tokenizer.left_out(text) == "") == (len(tokenizer.encode(text)) <= 10)
    assert all(word in split(text) for word in tokenizer.unknown(text))


def test_a_letter_that_the_vocabulary_lacks_becomes_an_end_of_text():
    tiny = Tokenizer({"a": 0, "b</w>": 1, "ab</w>": 2, START: 3, END: 4}, [("a", "b</w>")], length=5)
    assert tiny("ab").tolist() == [[3, 2, 4, 4, 4]]
    assert tiny.encode("axb") == [0, 4, 1]


GOOD = {"a": 0, "b": 1, "ab": 2, START: 3, END: 4}


@pytest.mark.parametrize(
    ("vocab", "merges", "options", "complaint"),
    [
        (GOOD, [], {"length": 1}, "a text of length 1 has no room"),
        (GOOD, [], {"pad": "!"}, '"!" is not in the vocabulary'),
        ({"a": 0, START: 1}, [], {}, '"<|endoftext|>" is not in the vocabulary'),
        ({"a": 0, END: 1}, [], {}, '"<|startoftext|>" is not in the vocabulary'),
        ({}, [], {}, '"<|startoftext|>" is not in the vocabulary'),
        (GOOD | {"b": 0}, [], {}, "not 0 to 4, each once"),
        (GOOD | {"b": 7}, [], {}, "not 0 to 4, each once"),
        (GOOD | {"b": "1"}, [], {}, "not 0 to 4, each once"),
        (GOOD, [("b", "a")], {}, 'the merge of "b" and "a" needs "ba"'),
        (GOOD, [("a", "b"), ("ab", "c")], {}, 'the merge of "ab" and "c" needs "c"'),
    ],
)
def test_what_does_not_fit_together_is_refused(vocab, merges, options, complaint):
    with pytest.raises(ValueError) as error:
        Tokenizer(vocab, merges, **options)
    assert complaint in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("vocab.json", None, "vocab.json is missing"),
        ("merges.txt", None, "merges.txt is missing"),
        ("vocab.json", b'{"a": 0, ', "vocab.json does not describe a tokenizer"),
        ("vocab.json", b"[1, 2]", "vocab.json does not describe a tokenizer (it holds no fields)"),
        ("vocab.json", b"7", "vocab.json does not describe a tokenizer (it holds no fields)"),
        ("vocab.json", b"\xff\xfe", "vocab.json cannot be read"),
        ("merges.txt", b"a\xff b", "merges.txt cannot be read"),
        ("merges.txt", b"#version: 0.2\na b\nab\n", 'merges.txt: it has the line "ab"'),
        ("merges.txt", b"a b c\n", 'merges.txt: it has the line "a b c"'),
        ("merges.txt", b"b a\n", 'files: the merge of "b" and "a" needs "ba"'),
        ("vocab.json", b'{"a": 0}', 'files: "<|startoftext|>" is not in the vocabulary'),
        (
            "vocab.json",
            b'{"a": [], "<|startoftext|>": 1, "<|endoftext|>": 2}',
            "vocab.json: a is []: Input should be a valid integer",
        ),
    ],
)
def test_files_that_are_missing_or_broken_are_named(tmp_path, name, content, complaint):
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps(GOOD))
    (folder / "merges.txt").write_text("#version: 0.2\na b\n")
    assert load_tokenizer(folder).merges == [("a", "b")]
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(ValueError) as error:
        load_tokenizer(folder)
    assert complaint in str(error.value) and "\n" not in str(error.value)


def test_words_that_it_learned_from_are_known_even_where_they_are_in_pieces(tmp_path):
    few = Tokenizer.train(CAPTIONS, merges=3)
    assert few.words == {word for text in CAPTIONS for word in split(text)}
    save_tokenizer(few, tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.words == few.words and len(few.pieces(CAPTIONS[0])) > len(split(CAPTIONS[0]))
    for tokenizer in (few, again):
        assert tokenizer.unread(CAPTIONS[0]) == ""
        assert tokenizer.unread(f"{CAPTIONS[0]} zeppelin") == "in no caption of its training, read in pieces: zeppelin"


def test_where_all_words_are_one_piece_no_list_is_kept(tmp_path):
    save_tokenizer(Tokenizer.train(CAPTIONS, merges=10_000), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["merges.txt", "vocab.json"]
