"""Training of the dense networks that the reproduced tables start from.

Begin with `recipes.py`; the loop is the package's, `pruning_env.evaluation.recovery.training`.
"""
