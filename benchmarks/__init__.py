"""The questions, tables and figures of this project: `python -m benchmarks`, from a checkout.

A subcommand per question, a folder per subcommand: raw rows, and a table and a figure made from
them. `results/` keeps those that were run. Begin with `__main__.py`.
"""
