"""Metrics of decoded fields; with a threshold and an action, guard rails."""
