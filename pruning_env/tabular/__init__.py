"""The solved tier: `CNNPruneTabular-v0`, a small network of which every configuration is known.

Actions, rewards and episodes are those of `CNNPrune-v0`; accuracies are looked up in a table
instead of measured, so that a step is quick, and the optimum and a result's regret are known. Knows
nothing of agents. Begin with `env.py`; `table.py` reads the table that `enumerate.py` made, and
`solution.py` has the optimum, the Pareto front and the regret.
"""
