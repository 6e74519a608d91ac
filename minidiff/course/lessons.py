"""Small helpers that every notebook uses."""

import os


def budget(full, smoke):
    """`full` for readers, `smoke` when MINIDIFF_BUDGET=smoke: the tests run the lessons cheaply, on the same code path."""
    return smoke if os.environ.get("MINIDIFF_BUDGET") == "smoke" else full


def show(picture, width: int | None = None):
    """A PIL image, or a list of them as an animation, in the notebook (as PNG: it plays on GitHub too)."""
    from IPython.display import Image, display

    from minidiff.image_files import encode

    display(Image(encode(picture), width=width))


def grid(rows, names=None, titles=None, side: float = 0.62) -> None:
    """Show rows of images (3, H, W) in [0, 1], `side` inches wide; a name before each row, a title above each column."""
    import matplotlib.pyplot as plt

    gap, shape = 0.05, (len(rows), len(rows[0]))
    size = [side * n + gap * (n - 1) for n in reversed(shape)]
    figure, axes = plt.subplots(*shape, squeeze=False, figsize=size, layout="none")
    figure.subplots_adjust(left=0, right=1, bottom=0, top=1, wspace=gap / side, hspace=gap / side)
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            axes[r, c].imshow(picture.clamp(0, 1).permute(1, 2, 0), interpolation="nearest")
            axes[r, c].set(xticks=[], yticks=[])
            axes[r, c].spines[:].set(visible=True, color="0.85", linewidth=0.5)
            if r == 0 and titles:
                axes[r, c].set_title(titles[c], fontsize=8)
        if names:
            axes[r, 0].set_ylabel(names[r], rotation=0, ha="right", va="center", fontsize=9)
    plt.show()


def style() -> None:
    """Give all figures of a notebook the look of the course."""
    import matplotlib.pyplot as plt
    from cycler import cycler

    from minidiff.course.figures.page import COLOURS, STYLE

    plt.rcParams.update(STYLE | {"axes.prop_cycle": cycler(color=COLOURS)})
