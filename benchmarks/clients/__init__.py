"""Whether the libraries that RL researchers bring run on both environments.

`catalogue.py` lists them, `scripts/` has a short program for each, as its users write it,
`install.py` gives each a virtual environment of its own, `table.py` writes down what came of it.
Begin with `run.py`.
"""
