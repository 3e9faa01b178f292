"""Whether every network that we can find is traced, pruned correctly, and quickly.

`catalogue.py` lists the networks, `worker.py` measures one in a process of its own, `peer.py` is
Torch-Pruning's side of it, `table.py` writes down what was found; `surgery.py` times single
candidates. Begin with `run.py`.
"""
