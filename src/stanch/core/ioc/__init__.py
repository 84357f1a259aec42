"""Indicators of compromise: read from the field's formats into one expression tree, and judged over items.

Pure. A term that cannot be known here is *unknown*: never an error, and never a match.
"""
