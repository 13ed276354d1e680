"""The ``lin`` chain: wavelet tiles of 256 pixels, rotated, quantised and coded towards a target."""
