"""The Markov decision process of pruning: states, actions, rewards, budgets, constraints.

`PruningDynamics.transition(state, action)` is the only place that says what a step does, and a
state is a small frozen dataclass. Knows nothing of Gymnasium environments, episodes' seeds or
rendering. Begin with `dynamics.py`.
"""
