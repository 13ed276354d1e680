"""What a field of pixels is: valid pixels, the stored type, error bounds and targets of a rate."""
