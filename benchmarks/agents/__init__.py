"""Any agent on any task with the same evaluations: the runs, the figures, an episode step by step.

What a row is and what may be said of rows is in `pruning_agents.comparison`. Begin with `run.py`;
`executors.py` and `ray_tasks.py` say where runs happen, `results.py` writes table and figures.
"""
