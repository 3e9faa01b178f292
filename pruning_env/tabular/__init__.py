"""The solved tier: `CNNPruneTabular-v0`, a network of which every configuration is known.

`enumerate.py` makes the table that `table.py` reads; the environments answer from it.
"""
