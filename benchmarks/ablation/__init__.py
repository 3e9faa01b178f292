"""What each part of RL-Pruner is worth: as published, as here by default, and one part at a time.

On the solved tier, where the best is known, and ranking anew on the network behind it, where
rankings can differ. Begin with `variants.py`, which says what the parts are; `run.py` runs them.
"""
