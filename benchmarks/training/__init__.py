"""Training of the dense networks that the reproduced tables start from.

Begin with `recipes.py`; `loop.py` trains.
"""
