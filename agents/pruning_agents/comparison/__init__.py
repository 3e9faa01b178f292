"""Rows of agents: made, replayed, and compared with intervals.

A row says who found what with how many evaluations; nothing in it is believed but the channel
counts, from which the network is made again. Begin with `rows.py`; `cells.py` makes a row,
`replay.py` checks it, `compare.py` says what may be said of two.
"""
