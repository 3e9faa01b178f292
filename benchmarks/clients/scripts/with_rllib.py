"""RLlib's new stack: one iteration of PPO, the environment made in another process."""

from __future__ import annotations

from ray.rllib.algorithms.ppo import PPOConfig

from benchmarks.clients.scripts.short import ENV_ID, QUICK

algorithm = (
    PPOConfig()
    .environment(f"pruning_env:{ENV_ID}", env_config=QUICK)
    .env_runners(num_env_runners=1, num_envs_per_env_runner=2)
    .training(train_batch_size_per_learner=64, minibatch_size=32, num_epochs=2, gamma=1.0)
    .debugging(seed=0)
    .build_algo()
)
assert algorithm.train()["env_runners"]["num_episodes"] > 0
algorithm.stop()
