"""`cnnprune pool`: make a pool of small trained networks for `CNNPruneWorlds-v0`."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from pruning_agents.cli.arguments import BadInput, positive_int, seed
from pruning_env.tasks.pools.specification import FAMILIES

DESCRIPTION = (
    "Draw small networks from a seed, train each on scikit-learn's digits, and write them as a "
    "pool that CNNPruneWorlds-v0 takes. A command that was stopped goes on where it was."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the pool is made of."""
    parser.add_argument("--out", required=True, type=Path, help="a .json file; weights beside it")
    parser.add_argument(
        "--networks", type=positive_int, default=64, help="how many (default: %(default)s)"
    )
    parser.add_argument(
        "--families",
        nargs="+",
        choices=FAMILIES,
        default=list(FAMILIES),
        metavar="FAMILY",
        help=f"which take turns: {', '.join(FAMILIES)} (default: all)",
    )
    parser.add_argument("--seed", type=seed, default=0, help="of the draws (default: %(default)s)")
    parser.add_argument(
        "--epochs", type=positive_int, default=8, help="of training (default: %(default)s)"
    )


def run(options: argparse.Namespace, console: Console) -> int:
    """Make it and say how accurate its networks are; exit code 0."""
    from pruning_env.tasks.pools.making import PoolSettings, make_pool

    try:
        settings = PoolSettings(
            options.networks, tuple(options.families), options.seed, options.epochs
        )
        pool = make_pool(options.out, settings, options.command_line, progress=True)
    except (ValueError, FileNotFoundError) as error:
        raise BadInput(str(error)) from error
    accuracies = sorted(100 * row["test_accuracy"] for row in pool.rows)
    console.print(
        f"{len(pool)} networks of {sum(row['parameters'] for row in pool.rows) // len(pool):,} "
        f"parameters on average, at most {pool.groups} groups; test accuracy "
        f"{accuracies[0]:.1f} to {accuracies[-1]:.1f} %, median "
        f"{accuracies[len(accuracies) // 2]:.1f} % -> {options.out}",
        highlight=False,
        soft_wrap=True,
    )
    return 0
