"""What is pruned and what it is judged on: a network, its images, its weights.

A `Task` ties the three together under a name; a pruned network is saved and read here, too. Knows
nothing of accuracy, environments or agents. Begin with `registry.py`; `data.py` has the splits,
`storage.py` pruned networks on disk, `models/` the built-in networks.
"""
