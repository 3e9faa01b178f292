"""Pools of many small trained networks, drawn from a seed: what policies that transfer learn on.

A specification says what a network is, `network.py` builds it, `storage.py` keeps a pool of them
with their weights, `making.py` trains one. Every network of a pool is a task by a name of its own.
Begin with `specification.py`.
"""
