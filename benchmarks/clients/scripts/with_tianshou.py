"""tianshou: PPO by its high-level interface, training and evaluation."""

from __future__ import annotations

from tianshou.highlevel.config import OnPolicyTrainingConfig
from tianshou.highlevel.env import EnvFactoryRegistered, VectorEnvType
from tianshou.highlevel.experiment import ExperimentConfig, PPOExperimentBuilder

from benchmarks.clients.scripts.short import ENV_ID, QUICK

experiment = PPOExperimentBuilder(
    EnvFactoryRegistered(task=ENV_ID, venv_type=VectorEnvType.DUMMY, **QUICK),
    ExperimentConfig(persistence_enabled=False, watch=False, device="cpu"),
    OnPolicyTrainingConfig(
        max_epochs=1,
        epoch_num_steps=64,
        num_training_envs=2,
        num_test_envs=1,
        test_step_num_episodes=1,
        collection_step_num_env_steps=64,
    ),
).build()
result = experiment.run(run_name="short", raise_error_on_dirname_collision=False)
assert result.trainer_result is not None
