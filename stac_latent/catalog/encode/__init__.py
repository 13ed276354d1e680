"""The verb ``encode``: Items of a catalogue gain latents."""
