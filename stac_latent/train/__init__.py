"""Training of the ``fast`` chain: a correction learned on top of a fitted ``lin`` chain (extra ``torch``).

Nothing here is imported to encode, decode, search, load or publish: what training writes is read with numpy.
"""
