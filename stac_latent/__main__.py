"""``python -m stac_latent`` is the command line."""

from stac_latent.cli import main

if __name__ == "__main__":
    main()
