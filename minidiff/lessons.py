"""Small helpers that every notebook uses."""

import os


def budget(full, smoke):
    """`full` for readers, `smoke` when the environment says MINIDIFF_BUDGET=smoke: the tests run the lessons cheaply.

    The only switch there is: a notebook has no second code path.
    """
    return smoke if os.environ.get("MINIDIFF_BUDGET") == "smoke" else full


def show(picture, width: int | None = None):
    """A PIL image, or a list of them as an animation, in the notebook (as PNG: it plays on GitHub too)."""
    from IPython.display import Image, display

    from minidiff.viz import encode

    display(Image(encode(picture), width=width))


def style() -> None:
    """Give all figures of a notebook the look of the course."""
    import matplotlib.pyplot as plt
    from cycler import cycler

    from minidiff.viz import BLUE, GRAY, GREEN, ORANGE, PURPLE, RED, SKY, STYLE

    plt.rcParams.update(STYLE | {"axes.prop_cycle": cycler(color=[BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GRAY])})
