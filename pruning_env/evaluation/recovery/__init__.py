"""What is done to a pruned network before it is judged.

Batch norm is re-estimated, layers are fitted to the dense network's in closed form, or all is
trained. Begin with `batch_norm.py`, which has the names of all kinds of recovery;
`reconstruction.py` and `finetuning.py` are the other two.
"""
