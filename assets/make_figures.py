"""Draw the images of the front pages, from the shipped weights: `make figures`."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

from minidiff import TextToImage, data, image_files
from minidiff.course import figures
from minidiff.course.examples import FACE, some_emoji
from minidiff.data.color_digits import HELD_OUT, OTHERS, Scene, caption
from minidiff.diffusion import DEFAULT_SAMPLER, FLOW, cfg, flow
from minidiff.files import write

HERE = Path(__file__).resolve().parent / "images"
DIGITS = [str(digit) for digit in range(10)]
BLUE, ORANGE, INK = "#0072B2", "#D55E00", "#222222"  # told apart by colour-blind readers too


def animation(pipe: TextToImage) -> None:
    """Ten digits coming out of noise; 16 shades of gray keep the file small."""
    frames = [(15 * pipe.decode(step.x)).round() / 15 for step in pipe.stream(DIGITS, seed=0)]
    write(HERE / "denoising.gif", image_files.encode([image_files.sheet(x, 10, zoom=3) for x in frames], ".gif"))


def method(pipe: TextToImage) -> None:
    """The one figure: noise added along the top, taken away along the bottom, the network between."""
    times = [0.0, 0.25, 0.5, 0.75, 1.0]
    digits = data.mnist("validation")
    seven = digits.images[(digits.labels == 7).nonzero()[1]]
    eps = torch.randn(seven.shape, generator=torch.Generator().manual_seed(0))
    schedule = flow()
    top = [(schedule.add_noise(seven, eps, t)[0, 0] + 1) / 2 for t in times]

    steps = list(pipe.stream(["7"], steps=20, seed=3))
    start = torch.randn(1, 4, 14, 14, generator=torch.Generator().manual_seed(3))
    path = {1.0: start} | {round(float(step.t), 3): step.x for step in steps}
    bottom = [pipe.decode(path[t])[0, 0] for t in times]

    x, t = path[0.75], 0.75
    text, null = pipe.encode(["7"]), pipe.encode_negative(None, 1)
    guesses = [cfg(pipe.net.unet, schedule, FLOW, text, null, w)(x, t) for w in (1.0, 0.0, 4.0)]
    with_text, without, guided = (pipe.decode(guess)[0, 0] for guess in guesses)

    figure = plt.figure(figsize=(11, 6.6), facecolor="white")
    canvas = figure.add_axes((0, 0, 1, 1))
    canvas.set(xlim=(0, 110), ylim=(0, 66))
    canvas.axis("off")

    def picture(image, x, y, size, label, below=True):
        inset = canvas.inset_axes((x - size / 2, y - size / 2, size, size), transform=canvas.transData)
        inset.imshow(image, cmap="gray", vmin=0, vmax=1)
        inset.set(xticks=[], yticks=[])
        canvas.text(
            x,
            y - size / 2 - 0.8 if below else y + size / 2 + 0.8,
            label,
            ha="center",
            va="top" if below else "bottom",
            fontsize=11,
            color=INK,
        )

    def arrow(start, end, colour):
        canvas.annotate(
            "", end, start, arrowprops={"arrowstyle": "-|>", "lw": 2, "color": colour, "shrinkA": 0, "shrinkB": 0}
        )

    places = [14, 34.5, 55, 75.5, 96]
    for x_place, t_here, above, under in zip(places, times, top, bottom, strict=True):
        picture(above, x_place, 54, 11, f"$t = {t_here:g}$")
        picture(under, x_place, 9, 11, f"$t = {t_here:g}$", below=False)
    for left, right in zip(places, places[1:], strict=False):
        arrow((left + 6.2, 54), (right - 6.2, 54), BLUE)
        arrow((right - 6.2, 9), (left + 6.2, 9), ORANGE)
    canvas.text(
        55,
        62.5,
        "noising:  a little more noise at every step",
        ha="center",
        fontsize=13,
        color=BLUE,
    )
    canvas.text(
        55,
        0.8,
        r"denoising:  from pure noise, move a little towards $\hat{x}_0$ and predict again",
        ha="center",
        fontsize=13,
        color=ORANGE,
    )

    # between: what happens at one of the steps back
    y = 31
    picture(bottom[3], 14, y, 9, "the noisy image $x_t$,\nonce with the prompt\nand once without")
    box = matplotlib.patches.FancyBboxPatch(
        (30, y - 5.5), 15, 11, boxstyle="round,pad=0.6", fc="#F2F2F2", ec=INK, lw=1.5
    )
    canvas.add_patch(box)
    canvas.text(37.5, y, "UNet\n$x_t$, time, prompt", ha="center", va="center", fontsize=12, color=INK)
    arrow((19, y + 2.5), (29, y + 2.5), INK)
    arrow((19, y - 2.5), (29, y - 2.5), INK)
    canvas.text(24, y + 3.2, '"seven"', ha="center", va="bottom", fontsize=10, color=INK)
    canvas.text(24, y - 3.2, "no prompt", ha="center", va="top", fontsize=10, color=INK)
    picture(with_text, 58, y + 6, 8, "conditional", below=False)
    picture(without, 58, y - 6, 8, "unconditional")
    arrow((46, y + 2.5), (53, y + 5), INK)
    arrow((46, y - 2.5), (53, y - 5), INK)
    canvas.text(78, y + 4.6, "guidance: amplify\nthe difference", ha="center", va="bottom", fontsize=11, color=INK)
    canvas.text(78, y + 2.2, r"uncond. $+\ w\ ($cond. $-$ uncond.$)$", ha="center", va="center", fontsize=11, color=INK)
    arrow((64, y), (91, y), INK)
    picture(guided, 97, y, 9, r"the estimate $\hat{x}_0$")
    figure.savefig(HERE / "method.png", dpi=110)


def sampler(pipe: TextToImage) -> None:
    write(
        HERE / "sampler.png",
        image_files.encode(figures.sampler(pipe, "7", sampler=DEFAULT_SAMPLER, steps=8, seed=0, scale=1.5)),
    )


def unseen(pipe: TextToImage) -> None:
    """The ten (digit, colour) pairs that no training has seen, drawn with the first three seeds."""
    prompts = [caption(Scene(digit, color, OTHERS[color][digit % 7])) for digit, color in HELD_OUT.items()]
    rows = [pipe.decode(torch.cat([pipe.latents([prompt], seed=seed) for prompt in prompts])) for seed in range(3)]
    write(HERE / "unseen.png", image_files.encode(image_files.sheet(torch.cat(rows), columns=10, zoom=2)))


def emoji(pipe: TextToImage) -> None:
    """The first 24 held-out combinations of an emoji and a style, drawn with seed 0 each, beside the truth."""
    held_out = data.emoji("new_combinations")
    pairs = list(zip(held_out.items, held_out.styles, strict=True))[:24]
    latents = [pipe.latents(data.emoji_caption(style, item), seed=0) for item, style in pairs]
    image = figures.emoji_grid(pairs, pipe.decode(torch.cat(latents)), held_out.images[:24] / 255)
    write(HERE / "emoji.png", image_files.encode(image))


def vae(pipe: TextToImage) -> None:
    """What is left of emoji that the VAE has never seen, in no style."""
    new = data.emoji("new_things")
    rows = range(0, 40, 4)  # of each three pictures of a thing the first, second, third, first, ...
    pictures = new.floats(rows)
    image = figures.reconstructions((pictures + 1) / 2, pipe.decode(pipe.to_latents(pictures)))
    write(HERE / "vae.png", image_files.encode(image))


def edit(pipe: TextToImage) -> None:
    """The lower half of a face, drawn anew: of an emoji that was in no training in this style."""
    face = some_emoji(64)[FACE]
    wish = "a twemoji emoji of a face with tongue"
    write(
        HERE / "edit.png", image_files.encode(figures.edit(pipe, face, wish, strength=1.0, part="lower half", seed=1))
    )


def main() -> None:
    HERE.mkdir(exist_ok=True)
    pipe = TextToImage.load("emoji", device="cpu")
    emoji(pipe)
    vae(pipe)
    edit(pipe)
    unseen(TextToImage.load("color_digits", device="cpu"))
    pipe = TextToImage.load("mnist", device="cpu")
    animation(pipe)
    method(pipe)
    sampler(pipe)


if __name__ == "__main__":
    main()
