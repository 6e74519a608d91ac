"""Small helpers that every notebook uses."""

import io
import os


def budget(full, smoke):
    """`full` for readers, `smoke` when MINIDIFF_BUDGET=smoke: the tests run the lessons cheaply, on the same code path."""
    return smoke if os.environ.get("MINIDIFF_BUDGET") == "smoke" else full


def show(picture, alt: str = "", caption: str = "", width: int | None = None, still: int = -1) -> None:
    """A figure in the notebook with a caption below it, as a PNG: animated ones play on GitHub too.

    picture: a PIL image, a list of them for an animation, or a figure of matplotlib. alt: what there is to see, for
    those who cannot see it. caption: one line on what to look at. width: in pixels, where it is not the image's own.
    still: the frame of an animation that is seen where it does not play.
    """
    from IPython.display import Image, Markdown, display

    from minidiff.image_files import encode

    if hasattr(picture, "savefig"):
        import matplotlib.pyplot as plt

        buffer = io.BytesIO()
        picture.savefig(buffer, format="png", bbox_inches="tight")
        plt.close(picture)  # or the notebook would show it a second time
        png = buffer.getvalue()
    else:
        png = encode(picture, still=still)
    display(Image(png, width=width, alt=alt or None))
    if caption:
        display(Markdown(f"*{caption}*"))


def grid(rows, names=None, titles=None, side: float | None = None, alt: str = "", caption: str = "") -> None:
    """`show` rows of images (C, H, W) in [0, 1]; a name before each row, a title above each column.

    side: inches that an image is wide; None: each pixel 3 times as large up to 32 pixels, 2 times up to 64, else as it is.
    """
    import matplotlib.pyplot as plt

    height, width = rows[0][0].shape[-2:]
    gap, dpi, shape = 6, plt.rcParams["figure.dpi"], (len(rows), len(rows[0]))
    zoom = side * dpi / width if side else 3 if width <= 32 else 2 if width <= 64 else 1
    size = [(zoom * side * n + gap * (n - 1)) / dpi for side, n in zip((width, height), reversed(shape), strict=True)]
    figure, axes = plt.subplots(*shape, squeeze=False, figsize=size, layout="none")
    space = {"wspace": gap / (zoom * width), "hspace": gap / (zoom * height)}
    figure.subplots_adjust(left=0, right=1, bottom=0, top=1, **space)
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            pixels = picture.clamp(0, 1).permute(1, 2, 0).squeeze(2).cpu()
            axes[r, c].imshow(pixels, interpolation="nearest", vmin=0, vmax=1)
            axes[r, c].set(xticks=[], yticks=[])
            axes[r, c].spines[:].set(visible=True, color="0.85", linewidth=0.5)
            if r == 0 and titles:
                axes[r, c].set_title(titles[c], fontsize=9)
        if names:
            axes[r, 0].set_ylabel(names[r], rotation=0, ha="right", va="center", fontsize=10)
    show(figure, alt, caption)


def style() -> None:
    """Give all figures of a notebook the look of the course."""
    import matplotlib.pyplot as plt
    from cycler import cycler

    from minidiff.course.figures.page import COLOURS, STYLE

    plt.rcParams.update(STYLE | {"axes.prop_cycle": cycler(color=COLOURS)})
