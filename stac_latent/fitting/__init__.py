"""Codecs fitted to the Items of a catalogue."""
