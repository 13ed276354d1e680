"""The ``fast`` chain: ``lin`` with a learned correction."""
