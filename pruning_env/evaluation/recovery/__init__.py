"""What is done to a pruned network before it is judged.

Batch norm is re-estimated (`batch_norm.py`, which has the names of all recoveries), layers are
fitted to the dense network's in closed form (`reconstruction.py`), or all is trained
(`finetuning.py`).
"""
