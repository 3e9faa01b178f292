"""How much each reward is worth: what it says of a network, against that network once trained.

Begin with `specification.py`, which says what is asked; `run.py` answers it, one network after the
other, `table.py` and `figure.py` say what came out.
"""
