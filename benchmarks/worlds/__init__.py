"""Whether a policy can prune networks that it never saw, without one evaluation of them.

Begin with `specification.py`, which says what is compared; `run.py` trains the policies and judges
them beside rules of thumb and searches, `table.py` says what came out.
"""
