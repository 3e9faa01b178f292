"""Which channels of a network hang together, and cutting them.

A traced network is a `ChannelGraph`: groups of channels that can only go together, closed forms of
parameters and MACs, and `prune` and `mask`, whose results compute the same. Knows nothing of data,
accuracy or reinforcement learning, and is useful alone. Begin with `channel_graph.py`; `tracing/`
finds the groups, `surgery.py` cuts.
"""
