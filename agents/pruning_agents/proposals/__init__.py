"""Prunings that need no search: for agents to begin with, and to be beaten.

Rules of thumb say in which order channels should go; what comes of it is an action like any other.
They know an environment by its dynamics and evaluate nothing on search-val; nor do they know
agents. Begin with `rules.py`; `order.py` makes an action of an order, `curves.py` measures what
pruning one group alone does.
"""
