"""Compilation of stacked runs: memory, and one or eight devices."""

import os
import pathlib
import subprocess
import sys
import textwrap

import pytest

from experiments.harness import batches
from experiments.harness import grid
from icl_causal import parallel
from tests.support import small_sweeps


@pytest.mark.parametrize(
  ("large", "num_compiled"),
  [
    ((True,), 3 + 3),  # the test sets of 3 runs at once
    ((False, False, True), 3 + 3),  # an evaluation
  ],
)
def test_fewer_runs_at_once_if_memory_is_short(
  large, num_compiled, monkeypatch, tmp_path
):
  """Programs that are too large are compiled again for fewer runs."""
  config = small_sweeps.config({"graph": {"seed": (0, 1, 2)}})
  planned = grid.every_run(config, tmp_path)
  measured = []

  def needed(compiled):
    measured.append(compiled)
    return 3 if (*large, *[False] * 5)[len(measured) - 1] else 1

  monkeypatch.setattr(batches, "_bytes", needed)
  monkeypatch.setattr(batches, "_memory", lambda mesh: 2)
  inputs, _ = batches.compile_stacked(planned, parallel.runs_mesh(), at_once=3)
  assert len(measured) == num_compiled
  # Three runs are padded to two times two.
  assert inputs.values["seed"].shape == (4,)


def _on_eight_devices(script):
  """Runs a script in a process with eight devices."""
  eight = " --xla_force_host_platform_device_count=8"
  done = subprocess.run(
    [sys.executable, "-c", textwrap.dedent(script)],
    cwd=pathlib.Path(__file__).parents[2],
    env={**os.environ, "XLA_FLAGS": os.environ["XLA_FLAGS"] + eight},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_eight_devices_do_not_communicate_and_give_the_same_runs():
  """13 runs of 100 steps; only the order of sums differs."""
  script = """
    import pathlib
    import re
    import jax
    import numpy as np
    from experiments.harness import batches
    from experiments.harness import grid
    from icl_causal import parallel
    from tests.support import small_sweeps

    axes = {"graph": {"seed": tuple(range(13))}}
    config = small_sweeps.config(axes)
    config.train.update(steps=100, eval_every=100)
    planned = grid.every_run(config, pathlib.Path("unused"))
    devices = jax.local_devices()
    assert len(devices) == 8
    results = {}
    for num in (1, 8):
      jax.local_devices = lambda num=num: devices[:num]
      mesh = parallel.runs_mesh()
      inputs, compiled = batches.compile_stacked(planned, mesh, at_once=8)
      seeds = inputs.values["seed"]
      assert len(seeds.sharding.device_set) == num
      start = compiled["start"].result()(inputs)
      take_steps = compiled["take_steps"].result()
      state, (loss, _) = take_steps(inputs, start, 100)
      assert loss.shape == ({1: 14, 8: 16}[num], 100)
      results[num] = [loss[:13], jax.tree.map(lambda a: a[:13], state.params)]
      text = take_steps.as_text()
      assert "while" in text
      collectives = re.findall(
        r"all-\\w+|collective-\\w+|reduce-scatter", text
      )
      assert not collectives, collectives
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
      *results.values(),
    )
  """
  _on_eight_devices(script)


@pytest.mark.slow
def test_eight_devices_draw_the_prompts_of_one_without_communicating():
  _on_eight_devices("""
    import re
    import jax
    import numpy as np
    from configs import latent
    from configs import several_parents
    from icl_causal import parallel
    from icl_causal.config import build

    for module, variant in ((several_parents, "half"), (latent, "lags")):
      config = module.get_config(variant)
      config.graph.T = 8
      graph, key = build.graph(config), jax.random.key(0)
      mesh = parallel.batch_mesh()
      assert mesh.size == 8
      one = jax.jit(build.sampler(config, graph, 16))(key)
      draw = jax.jit(build.sampler(config, graph, 16, mesh))
      draw = draw.lower(key).compile()
      eight = draw(jax.device_put(key, parallel.replicated(mesh)))
      assert len(eight.x_T.sharding.device_set) == 8
      jax.tree.map(np.testing.assert_array_equal, one, eight)
      text = draw.as_text()
      assert "while" in text
      collectives = re.findall(
        r"all-\\w+|collective-\\w+|reduce-scatter", text
      )
      assert not collectives, collectives
  """)
