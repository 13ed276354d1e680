"""From stored latents to xarray: the driver, readers of windows, and the verb ``load``."""
