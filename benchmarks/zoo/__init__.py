"""The zoo: is every network we can find traced, pruned correctly, and quickly?

`catalogue` lists the networks, `rows` says what is measured, `worker` measures one network in a
process of its own, `peer` is Torch-Pruning's side of it, `run` drives the workers and `table`
writes down what they found; `surgery` times single candidates.
"""
