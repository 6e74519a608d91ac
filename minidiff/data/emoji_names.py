"""From words back to emoji: which one a prompt names, and whether it was in training."""

from functools import cache

from minidiff.data.emoji import EMOJI_WORDINGS, STYLES, Emoji, all_emoji, emoji_caption, emoji_split


def emoji_prompt(style: str, words: str) -> str:
    """The caption of an emoji in that style: of the one that the words name, else of whatever they say.

    ("noto", "red apple") -> "a noto emoji of a red apple". Raises ValueError for another style.
    """
    unheard_of = Emoji(code="", name=words, thing=words, tags=(), group="", kin="")
    item, _ = _named().get(_plain(words), (unheard_of, None))
    return emoji_caption(style, item)


def emoji_seen(prompt: str) -> str:
    """One line: were these words, a name or a caption without tags, those of an emoji in training, in which style?"""
    if _plain(prompt) not in _named():
        return "no emoji has just this name"
    item, style = _named()[_plain(prompt)]
    seen = [each for each in STYLES if emoji_split(item, each) == "train"]
    if style in seen:
        return "in the emoji's training set, in this style"
    if not seen:
        return "never in the emoji's training set, in no style"
    where = " and ".join(seen) if len(seen) < len(STYLES) else "every style"
    only = f", not in {style}: only" if style else ""
    return f"in the emoji's training set{only} in {where}"


@cache
def _named() -> dict[str, tuple[Emoji, str | None]]:
    """What each name stands for, with its article and without, and each caption; the style, where it is said."""
    named = {}
    for item in all_emoji():
        named |= {_plain(words): (item, None) for words in (item.name, item.thing)}
        for wording, text in enumerate(EMOJI_WORDINGS):
            if "{tags}" not in text:  # they may be any three
                for style in STYLES:
                    said = style if "{style}" in text else None
                    named[_plain(emoji_caption(style, item, wording))] = item, said
    return named


def _plain(words: str) -> str:
    return " ".join(words.lower().split())
