"""How much each channel matters: scores from weights, gradients and data, and their registry.

Begin with `scores.py`; `gate_gradients.py` is the backward pass that first-order scores read.
"""
