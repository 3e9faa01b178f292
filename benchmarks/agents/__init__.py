"""Any agent on any task with the same evaluations, counted by the environment, and what it says.

`cells` runs one agent with one seed, `run` all that are asked for; `rows` is what is written down,
`statistics` what may be said of it, `table` and `figure` how.
"""
