"""Other libraries doing the same work, written as their users would; each is imported late."""
