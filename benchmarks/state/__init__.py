"""Whether seeing the state helps: fixed sequences of actions against policies that observe.

Begin with `policies.py`.
"""
