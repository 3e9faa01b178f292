"""The lines about episodes and time that every SB3 algorithm logs, for one that is neither kind.

SB3 writes them in its on-policy and off-policy classes; an algorithm of another kind has to do so
itself. It knows nothing of pruning.
"""

from __future__ import annotations

import time

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import safe_mean


def dump_rollout_logs(algorithm: BaseAlgorithm) -> None:
    """Log episode returns, success rate, time and transitions of `algorithm`, and dump the logger.

    Names are SB3's.
    """
    logger, episodes = algorithm.logger, algorithm.ep_info_buffer
    assert episodes is not None and algorithm.ep_success_buffer is not None
    if episodes:
        for key, name in (("r", "ep_rew_mean"), ("l", "ep_len_mean")):
            logger.record(f"rollout/{name}", safe_mean([info[key] for info in episodes]))
    if algorithm.ep_success_buffer:
        logger.record("rollout/success_rate", safe_mean(algorithm.ep_success_buffer))
    seconds = max((time.time_ns() - algorithm.start_time) / 1e9, 1e-9)
    fps = int((algorithm.num_timesteps - algorithm._num_timesteps_at_start) / seconds)
    logger.record("time/episodes", algorithm._episode_num, exclude="tensorboard")
    logger.record("time/fps", fps)
    logger.record("time/time_elapsed", int(seconds), exclude="tensorboard")
    logger.record("time/total_timesteps", algorithm.num_timesteps, exclude="tensorboard")
    logger.dump(step=algorithm.num_timesteps)
