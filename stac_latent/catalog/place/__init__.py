"""The verbs of a place: ``minicube``, the pixels round it, and ``points``, the values of many places through time."""
