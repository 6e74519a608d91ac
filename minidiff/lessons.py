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
