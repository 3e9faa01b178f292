"""What every search shares: a budget of evaluations, the best result, checkpoints, rows, names.

Knows no agent; agents stand on it. Begin with `registry.py`, which finds an agent by its name, and
`budgeted_search.py`, with which one of your own is written.
"""
