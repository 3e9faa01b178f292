"""Any agent on any task with the same evaluations, counted by the environment, and what it says.

`cells` runs one agent with one seed, `run` all that are asked for; `rows` is what is written down,
`origin` what it was made from, `statistics` what may be said of it, `table` and `figure` how.
`replay` checks rows, `leaderboard` ranks those that pass, `compare` puts two files side by side.
"""
