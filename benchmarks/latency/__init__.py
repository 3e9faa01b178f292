"""How well latency tables predict, and which widths the runtimes like.

Begin with `run.py`.
"""
