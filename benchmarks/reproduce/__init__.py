"""The published tables, under honest rules: search on search-val, recovery, one look at test.

Begin with `published.py`, the numbers of the papers, and `cell.py`, one of ours.
"""
