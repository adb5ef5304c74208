"""The phases of a training, from three seeds (`experiments/phases.py`).

    python -m experiments.phases --config=configs/phases.py:TASK

TASK: forest (default), a forest with seven edges and S = 3, trained with Adam
at .01 on 512 prompts a step; or chain, with S = 10, at .02 on 256 prompts.
Blocks of A2 and W start at half the identity (`beta0`). 1024 steps at a
constant rate. Each seed has its own test prompts, of which 2,048 are for the
phases. Takes two minutes for a task on two cores.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import single_parent
from configs import variants

TASKS = ("forest", "chain")
# graphs.random_forest(jax.random.key(2000), 20, 0.5)
_FOREST = (-1, 0, 1, -1, -1, -1, 3, -1, -1, 3, -1, 3, -1, -1, 0, -1, 14)


def get_config(task_and_tier: str = "forest") -> ConfigDict:
  """The config of `TASK`: a base config and seeds."""
  task, _ = variants.parse(task_and_tier, TASKS, ("quick",))
  base: Any = single_parent.get_config("chain")
  base.train.update(steps=2**10, eval_every=2**3, schedule="constant", b2=0.999)
  base.eval.update(test_size=2**12, batch_size=2**11)
  if task == "forest":
    parents = (*_FOREST, -1, -1, -1)
    base.graph = ConfigDict({"name": "manual", "parents": parents})
    base.graph.target = ()
    base.prior.S = 3
    base.train.update(learning_rate=0.01, batch_size=2**9)
    base.eval.update(posterior_samples=256)
  else:
    base.train.update(learning_rate=0.02, batch_size=2**8)
  return ConfigDict({"task": task, "base": base, "seeds": (0, 1, 2)})
