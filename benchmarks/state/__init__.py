"""Does state help: fixed sequences of actions against policies that see where they are."""
