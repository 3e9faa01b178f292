"""A short program for each client, as its users would write it; it takes an environment's id.

They run in the virtual environment of their client, in its folder, and raise if something is wrong.
"""
