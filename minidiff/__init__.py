"""minidiff: Stable Diffusion, built up from the first speck of noise."""

__version__ = "0.1.0"
__all__ = ["REPOSITORY", "TextToImage", "__version__"]

REPOSITORY = (
    ""  # the public address, such as "https://github.com/OWNER/minidiff"; badges are left out while it is empty
)


def __getattr__(name: str):
    # Imported on first use: torch costs seconds, and `minidiff --help` should not.
    if name == "TextToImage":
        from minidiff.pipeline.text_to_image import TextToImage

        return TextToImage
    raise AttributeError(f"module 'minidiff' has no attribute {name!r}")
