"""Values at many pixels of one Item: of its latents, and of its raw files."""
