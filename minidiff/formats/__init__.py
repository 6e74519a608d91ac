"""Models on disk: ours, and those of diffusers and transformers."""
