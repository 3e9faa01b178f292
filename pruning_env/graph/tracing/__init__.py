"""How channels hang together, found by running a model's graph on channel labels.

`interpreter` captures a model with `torch.export` and interprets it with the operator `rules` on
`labels`; `grouping` turns the result into groups of channels. `graph.channel_graph` is the public
face of all this.
"""
