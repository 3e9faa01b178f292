"""What is done to a pruned network before it is judged: batch norm re-estimated, or fine-tuning.

Begin with `batch_norm.py`, which has the names of all kinds of recovery.
"""
