"""The clients: what is installed for each, and the program that is run. Plain data."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CLIENTS", "ENVIRONMENTS", "Client"]

ENVIRONMENTS = ("CNNPrune-v0", "CNNPruneTabular-v0")


@dataclass(frozen=True)
class Client:
    """A library, or a way to write an agent.

    Attributes:
        name: in rows, and of its virtual environment.
        what: is run, in a line.
        script: module of `benchmarks.clients.scripts`, which takes an id.
        requirements: for pip; none for what needs torch and Gymnasium alone.
        package: whose version is told; "" for none.
        without: distributions that are not installed, though others ask for them.
    """

    name: str
    what: str
    script: str
    requirements: tuple[str, ...] = ()
    package: str = ""
    without: tuple[str, ...] = ()


CLIENTS = (
    Client("cleanrl-style", "PPO in one file, over Gymnasium's own wrappers", "cleanrl_style"),
    Client(
        "torchrl",
        "`GymEnv`, its checks, a rollout, and `GymWrapper` over four episodes",
        "with_torchrl",
        ("torchrl",),
        "torchrl",
    ),
    Client("tianshou", "PPO, two environments", "with_tianshou", ("tianshou",), "tianshou"),
    Client("rllib", "PPO on the new stack, one iteration", "with_rllib", ("ray[rllib]",), "ray"),
    Client(
        "sb3-contrib",
        "TRPO, TQC and recurrent PPO",
        "with_sb3_contrib",
        ("sb3-contrib",),
        "sb3_contrib",
    ),
    Client(
        "rl-zoo3",
        "training, hyperparameter search",
        "with_rl_zoo3",
        ("rl_zoo3",),
        "rl_zoo3",
    ),
    Client(
        "push-to-hub",
        "RL Baselines3 Zoo's card, configuration and video, up to the upload",
        "with_push_to_hub",
        ("rl_zoo3", "huggingface_sb3==3.0", "moviepy"),
        "rl_zoo3",
        # What rl_zoo3 2.9.2 asks for, of which 3.2 lacks the `generate_metadata` that it imports.
        without=("sb3-team-hf-integration",),
    ),
    Client(
        "minari",
        "a data set, written, read, and its environment recovered",
        "with_minari",
        ("minari[create,hdf5]",),
        "minari",
    ),
    Client("optuna", "TPE over one action", "with_optuna", ("optuna",), "optuna"),
    Client("nevergrad", "NGOpt over one action", "with_nevergrad", ("nevergrad",), "nevergrad"),
    Client(
        "mo-gymnasium",
        "linear scalarisation of a reward vector, its statistics",
        "with_mo_gymnasium",
        ("mo-gymnasium",),
        "mo_gymnasium",
    ),
)
