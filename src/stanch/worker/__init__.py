"""A process that opens hostile bytes, so that nobody else must: it can read its input, write its answer, and no more.

`ask.py` starts one for each request; `__main__.py` is what runs in it: it imports what it needs, confines itself
(`confinement.py`), reads the bytes and renders them. It needs the standard library, and for programs pyelftools.
"""
