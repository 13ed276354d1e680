"""Readers written from the pages in ``extensions/latent/spec``; they import nothing of the package."""
