"""What arguments of several commands may be, and the error for what they may not.

Imports nothing heavy, so that the command line answers at once; torch is asked for a device only
where one is given.
"""

from __future__ import annotations

import argparse


class BadInput(ValueError):
    """What the user asked for cannot be done; the message says why and what is allowed."""


def positive_int(text: str) -> int:
    """A whole number of at least 1."""
    value = int(text) if text.lstrip("+-").isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value


def whole_number(text: str) -> int:
    """A whole number of at least 0."""
    return 0 if text == "0" else positive_int(text)


def seed(text: str) -> int:
    """A whole number that all generators take as their seed."""
    if not text.isdigit() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 2^32 - 1")
    return int(text)


def device(text: str) -> str:
    """A device that torch can use here."""
    import torch

    try:
        torch.empty(0, device=text)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise argparse.ArgumentTypeError(f"{text!r} cannot be used: {reason}") from error
    return text
