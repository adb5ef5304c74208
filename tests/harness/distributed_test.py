"""Two processes on the loopback interface, compared with one."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from experiments.harness import clock

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]


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


def _start_two(*arguments):
  """Two processes that run one command together."""
  with socket.socket() as free:
    free.bind(("localhost", 0))
    where = f"--coordinator=localhost:{free.getsockname()[1]}"
  return [
    _python(*arguments, where, "--num_processes=2", f"--process_id={i}")
    for i in range(2)
  ]


def _run_two(code, *arguments):
  """(stdout, stderr) of two processes that run one command together."""
  return _finish(_start_two(*arguments), code)


def _together(*arguments):
  """The stdout of two processes that succeed."""
  return [stdout for stdout, _ in _run_two(0, *arguments)]


def test_two_processes_give_the_gradient_and_evaluation_of_one(tmp_path):
  script = tmp_path / "gradient.py"
  script.write_text(
    textwrap.dedent("""
      import sys
      import jax
      import numpy as np
      from absl import flags
      from configs import single_parent
      from experiments.harness import distributed, program, traced
      from icl_causal import parallel, training
      from icl_causal.config import build

      distributed.define_flags()
      flags.FLAGS(sys.argv)
      distributed.join()
      config = single_parent.get_config("manual")
      config.model.noise = 0.3
      graph = build.graph(config)
      mesh = parallel.batch_mesh()
      full = parallel.replicated(mesh)
      run = program.program(config, mesh)
      inputs = jax.device_put(traced.run_inputs(config, graph), full)
      state = jax.jit(run.start, out_shardings=full)(inputs)
      draw = build.sampler(config, graph, 512, mesh)
      batch = jax.jit(draw)(jax.random.key(3))
      assert len(batch.x_T.sharding.device_set) == jax.process_count()
      local = batch.x_T.addressable_data(0)
      assert local.shape[0] == 512 // jax.process_count()
      model = build.model(config, graph)
      _, gradient = jax.jit(
        lambda p, batch: training.loss_and_gradient(p, batch, model, mesh=mesh),
        out_shardings=full,
      )(state.params, batch)
      found = jax.jit(
        lambda p, batch: training.evaluate(
          *(p, model, batch.x_T, batch.y_S, 64),
          num_batches=3,
          num_first=3,
          chunk_size=16,
          mesh=mesh,
        ),
        out_shardings=full,
      )(state.params, batch)
      first = {f"first_{name}": a for name, a in found.first.items()}
      arrays = gradient | found.attention | first
      arrays |= {"loss": found.loss_N[:192], "law": found.law_NxS[:192]}
      if distributed.is_first():
        np.savez(f"OUT/{jax.process_count()}.npz", **arrays)
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
  workdir = tmp_path / "run"
  command = (
    "-m",
    "experiments.train",
    "--config=configs/single_parent.py:manual",
    *CONFIG,
    f"--workdir={workdir}",
  )
  first, second = _together(*command)
  assert "edges recovered" in first
  assert "edges recovered" not in second
  result = json.loads((workdir / "result.json").read_text())
  rows = (workdir / "metrics.jsonl").read_text().splitlines()
  assert len(rows) == 3
  (workdir / "result.json").unlink()
  os.rename(workdir / "checkpoints" / "4.npz", tmp_path / "4.npz")
  _together(*command)
  again = json.loads((workdir / "result.json").read_text())
  times = dict.fromkeys((*clock.TIMES, "checksum"), 0)
  assert {**again, **times} == {**result, **times}
  # A write error of process 0 ends both processes.
  (workdir / "result.json").unlink()
  os.rename(workdir / "checkpoints", tmp_path / "saved")
  (workdir / "checkpoints").write_text("not a folder")
  (_, first), (_, second) = _run_two(2, *command)
  assert "error: can't save the state of step 2" in first
  assert "File exists" in first
  assert "error: another process failed and reports why" in second


def test_two_processes_share_a_sweep(tmp_path):
  workdir = tmp_path / "sweep"
  command = (
    "-m",
    "experiments.sweep",
    "--config=configs/many_graphs.py",
    *CONFIG,
    "--config.graph.T=6",
    "--config.sweep.grid.seed=(0,)",
    "--config.sweep.grid.graph.seed=(0,1,2)",
    f"--workdir={workdir}",
  )
  first, second = _together(*command)
  assert first.count("finished") == 3
  assert "finished" not in second
  table = (workdir / "table.jsonl").read_text().splitlines()
  assert [json.loads(line)["status"] for line in table] == ["finished"] * 3
  trained_by = {
    json.loads(path.read_text())["command"][-1]
    for path in workdir.glob("members/*/environment.json")
  }
  assert trained_by == {"--process_id=0", "--process_id=1"}


def test_the_first_process_ends_soon_after_another_is_killed(tmp_path):
  """With one line; jax by itself waits 100 s and aborts with 80 lines."""
  workdir = tmp_path / "run"
  first, second = _start_two(
    "-m",
    "experiments.train",
    "--config=configs/single_parent.py:manual",
    *CONFIG,
    "--config.train.steps=1000000",
    f"--workdir={workdir}",
  )
  try:
    metrics = workdir / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_bytes().count(b"\n") > 2):
      time.sleep(0.1)
      assert first.poll() is None
    second.kill()
    _, stderr = first.communicate(timeout=60)
    assert first.returncode == 4
    *before, last = stderr.splitlines()
    assert last.startswith("error: a call of all processes failed")
    assert f"--workdir={workdir}" in last
    assert not any("Traceback" in line for line in before)
  finally:
    for process in (first, second):
      process.kill()
      process.communicate()
