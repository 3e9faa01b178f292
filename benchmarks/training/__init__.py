"""Base training: the dense networks that the reproduced tables start from."""
