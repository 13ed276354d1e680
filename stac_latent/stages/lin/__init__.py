"""The ``lin`` chain: wavelet tiles of about 256 pixels, rotated, quantised and coded towards a target."""
