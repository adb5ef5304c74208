"""Two processes on loopback against one."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import textwrap

import numpy as np

from experiments import clocks

ROOT = pathlib.Path(__file__).parents[1]


def _python(*arguments):
  return subprocess.Popen(
    [sys.executable, *arguments],
    cwd=ROOT,
    env={**os.environ, "PYTHONPATH": str(ROOT)},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def _finish(processes, code):
  texts = [process.communicate(timeout=300) for process in processes]
  for process, (_, stderr) in zip(processes, texts, strict=True):
    assert process.returncode == code, stderr
  return texts


def _ended(code, *arguments):
  """(stdout, stderr) of two processes that run the same command as one."""
  with socket.socket() as free:
    free.bind(("localhost", 0))
    where = f"--coordinator=localhost:{free.getsockname()[1]}"
  return _finish(
    [
      _python(*arguments, where, "--num_processes=2", f"--process_id={i}")
      for i in range(2)
    ],
    code,
  )


def _together(*arguments):
  """The outputs of two that come to their end."""
  return [stdout for stdout, _ in _ended(0, *arguments)]


def test_gradient_of_two_processes_is_that_of_one(tmp_path):
  script = tmp_path / "gradient.py"
  script.write_text(
    textwrap.dedent("""
      import sys
      import jax
      import numpy as np
      from absl import flags
      from configs import single_parent
      from experiments import build, processes, program
      from icl_causal import training

      processes.define_flags()
      flags.FLAGS(sys.argv)
      processes.join()
      config = single_parent.get_config("manual")
      config.model.noise = 0.3
      graph = build.graph(config)
      mesh = build.mesh()
      whole = build.whole(mesh)
      run = program.program(config, mesh)
      own = jax.device_put(program.member(config, graph), whole)
      state = jax.jit(run.start, out_shardings=whole)(own)
      draw = build.sampler(config, graph, 512, mesh)
      batch = jax.jit(draw)(jax.random.key(3))
      assert len(batch.x_T.sharding.device_set) == jax.process_count()
      mine = batch.x_T.addressable_data(0)
      assert mine.shape[0] == 512 // jax.process_count()
      model = build.model(config, graph)
      _, gradient = jax.jit(
        lambda p, batch: training.loss_and_gradient(p, batch, model, mesh=mesh),
        out_shardings=whole,
      )(state.params, batch)
      if processes.is_first():
        np.savez(f"OUT/{jax.process_count()}.npz", **gradient)
    """).replace("OUT", str(tmp_path))
  )
  _together(str(script))
  _finish([_python(str(script))], 0)
  two, one = (
    np.load(tmp_path / f"{n}.npz", allow_pickle=False) for n in (2, 1)
  )
  for name in one:
    assert np.abs(one[name]).max() > 1e-4
    np.testing.assert_allclose(two[name], one[name], rtol=0, atol=1e-6)


CONFIG = (
  "--config.train.steps=4",
  "--config.train.eval_every=2",
  "--config.train.batch_size=16",
  "--config.eval.test_size=64",
  "--config.eval.batch_size=32",
  "--config.eval.posterior_prompts=0",
)


def test_a_run_of_two_processes_stopped_and_resumed(tmp_path):
  home = tmp_path / "run"
  command = (
    "-m",
    "experiments.train",
    "--config=configs/single_parent.py:manual",
    *CONFIG,
    f"--workdir={home}",
  )
  first, second = _together(*command)
  assert "edges recovered" in first
  assert "edges recovered" not in second
  whole = json.loads((home / "result.json").read_text())
  rows = (home / "metrics.jsonl").read_text().splitlines()
  assert len(rows) == 3
  (home / "result.json").unlink()
  os.rename(home / "checkpoints" / "4", tmp_path / "away")
  _together(*command)
  again = json.loads((home / "result.json").read_text())
  times = dict.fromkeys(clocks.TIMES, 0)
  assert {**again, **times} == {**whole, **times}
  # What can't be written by the first one ends both.
  (home / "result.json").unlink()
  os.rename(home / "checkpoints", tmp_path / "saved")
  (home / "checkpoints").write_text("no folder")
  (_, first), (_, second) = _ended(2, *command)
  assert "error: can't save the state of step 2" in first
  assert "File exists" in first
  assert "error: another process can't go on, and says why" in second


def test_two_processes_share_a_sweep(tmp_path):
  home = tmp_path / "sweep"
  command = (
    "-m",
    "experiments.sweep",
    "--config=configs/many_graphs.py",
    *CONFIG,
    "--config.graph.T=6",
    "--config.sweep.grid.seed=(0,)",
    "--config.sweep.grid.graph.seed=(0,1,2)",
    f"--workdir={home}",
  )
  first, second = _together(*command)
  assert first.count("finished") == 3
  assert "finished" not in second
  table = (home / "table.jsonl").read_text().splitlines()
  assert [json.loads(line)["status"] for line in table] == ["finished"] * 3
  assert len(list((home / "batches").iterdir())) == 2
