"""Comparisons of agents: raw rows, a table and a figure for each question. Runs from a checkout."""
