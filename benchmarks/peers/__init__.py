"""Other libraries doing the same work, written as their users would; each is imported late.

Begin with `torch_pruning_env.py`, pruning by Torch-Pruning behind our interface.
"""
