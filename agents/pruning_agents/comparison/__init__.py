"""Results of agents as rows: made, replayed, and compared with confidence intervals.

A row says who found what with how many evaluations; nothing in it is believed but the channel
counts, from which the network is made again. Knows no agent by name, and draws nothing. Begin with
`rows.py`; `cells.py` makes a row, `replay.py` checks it, `compare.py` says what may be said of two
files of them.
"""
