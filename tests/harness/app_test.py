"""The commands in subprocesses: exit codes, messages, files."""

from concurrent import futures
import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import termios
import textwrap

import numpy as np
import pytest

from experiments.harness import app
from experiments.harness import config_flag
from icl_causal.config import ConfigError

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
CHAIN = "--config=configs/single_parent.py:chain"
MANUAL = "--config=configs/single_parent.py:manual"
TINY = (
  "--config.train.steps=4",
  "--config.train.eval_every=2",
  "--config.train.batch_size=64",
  "--config.eval.test_size=64",
  "--config.eval.batch_size=32",
  "--config.eval.posterior_prompts=0",
)


EIGHT_DEVICES = (
  os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=8"
)


def _run(module, *arguments, **environment):
  return subprocess.run(
    [sys.executable, "-m", f"experiments.{module}", *arguments],
    cwd=ROOT,
    env={k: v for k, v in {**os.environ, **environment}.items() if v},
    capture_output=True,
    text=True,
    timeout=300,
  )


REFUSED = {
  "no config": ([], "--config is missing"),
  "unknown flag": ([CHAIN, "--worksdir=x"], "Unknown command line flag"),
  "stray argument": ([CHAIN, "chain"], "unknown argument 'chain'"),
  "a sweep": (
    ["--config=configs/many_graphs.py"],
    "--config is a sweep: use experiments.sweep",
  ),
  "no such file": (["--config=configs/none.py"], "No such file"),
  "no such variant": ([CHAIN + "s"], "variant 'chains' must be one of"),
  "unknown key": (
    [CHAIN, "--config.train.stepz=3"],
    "the config has no field train.stepz; did you mean train.steps?",
  ),
  "wrong type": (
    [CHAIN, "--config.train.steps=many"],
    "config.train.steps=many",
  ),
  "a part without a field": (
    [CHAIN, "--config.graph.name=kgram"],
    "these fields have no value and need one: graph.k (an integer",
  ),
  "a name of ml_collections": (
    [CHAIN, "--config.to_dict=3"],
    "the config has no field to_dict",
  ),
  "one layer": (
    [CHAIN, "--config.model.heads=(1,)", "--config.model.beta0=0"],
    "model.heads = (1,): must have an entry for each of two layers",
  ),
  "no port": (
    [CHAIN, "--coordinator=localhost"],
    "--coordinator=localhost: must be HOST:PORT or auto",
  ),
  "not under srun": (
    [CHAIN, "--coordinator=auto"],
    "--coordinator=auto: needs srun or a TPU pod",
  ),
  "value": (
    [CHAIN, "--config.prior.alpha=0"],
    "prior.alpha = 0.0: must be a number",
  ),
  "workdir is a file": ([CHAIN, "--workdir=README.md"], "is not a directory"),
  "foreign workdir": ([CHAIN, "--workdir=tests"], "is not empty and not a run"),
}


CONFIGS = {
  "def get_config(): return {}": "get_config returns a dict",
  "def get_config(\n": "config.py, line 1: '(' was never closed",
  "x = 1\n": "has no attribute 'get_config'",
  "\ndef get_config():\n  return 1 / 0\n": "line 3: ZeroDivisionError: divis",
  "import jax\n\njax.nothing\n": "line 3: AttributeError: module 'jax' has",
  "open('none.txt')": "No such file: none.txt",
}


@pytest.mark.parametrize(("text", "message"), CONFIGS.items())
def test_config_files_that_are_refused(text, message, tmp_path):
  path = tmp_path / "config.py"
  path.write_text(text)
  with pytest.raises(ConfigError) as caught:
    config_flag.load(str(path))
  assert message in str(caught.value)


def test_refused_in_one_line():
  with futures.ThreadPoolExecutor(2) as pool:
    jobs = [pool.submit(_run, "train", *a) for a, _ in REFUSED.values()]
  for (name, (_, message)), job in zip(REFUSED.items(), jobs, strict=True):
    done = job.result()
    assert done.stderr.startswith("error: "), name
    assert message in done.stderr, name
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stdout == "", name
    assert done.returncode == 2, name


@pytest.mark.parametrize("platform", ["cuda", "abacus"])
def test_a_platform_that_is_not_there(platform, tmp_path):
  done = _run(
    "train", MANUAL, f"--workdir={tmp_path / 'run'}", JAX_PLATFORMS=platform
  )
  message = f"JAX_PLATFORMS={platform}: jax has no such devices here"
  assert (done.stderr, done.returncode) == (f"error: {message}\n", 2)


def test_a_sweep_needs_its_group():
  done = _run("sweep", CHAIN)
  message = "the config has no group sweep: experiments.train trains a single"
  assert done.stderr.startswith(f"error: {message}")
  assert done.returncode == 2


@pytest.mark.parametrize(
  ("command", "flags"),
  [
    ("train", "coordinator keep tensorboard wandb overwrite"),
    ("sweep", "launcher slurm runs_per_batch num_processes process_id"),
  ],
)
def test_help_lists_all_flags(command, flags):
  shown = _run(command, "--help").stdout
  for flag in flags.split():
    assert re.search(rf"^  --(\[no\])?{flag}:", shown, re.MULTILINE), flag
  fields = "--config.GROUP.FIELD=VALUE sets a field; the file lists the fields"
  assert fields in " ".join(shown.split())


def test_ctrl_c_while_modules_are_imported():
  """The process ends by the signal, for which a shell reports 130."""
  process = subprocess.Popen(
    [sys.executable, "-X", "importtime", "-m", "experiments.theory", CHAIN],
    cwd=ROOT,
    stderr=subprocess.PIPE,
    text=True,
  )
  for line in process.stderr:  # the package is imported, the command is not
    if line.endswith(" experiments\n"):
      break
  process.send_signal(signal.SIGINT)
  _, stderr = process.communicate(timeout=300)
  assert process.returncode == -signal.SIGINT
  assert "Traceback" not in stderr


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ([], "--workdir is missing: the directory of a run"),
    (["--workdir=none"], "none does not exist: no run has been there"),
    (["--workdir=tests"], "tests has no config.json"),
  ],
)
def test_report_refuses_what_is_not_a_run(arguments, message):
  done = _run("report", *arguments)
  assert (done.stderr, done.stdout) == (f"error: {message}\n", "")
  assert done.returncode == 2


def test_workdir_in_the_home_folder(tmp_path):
  done = _run("report", "--workdir=~/none", HOME=str(tmp_path))
  # matplotlib may say before that it builds its list of fonts.
  message = done.stderr.splitlines()[-1]
  assert message.startswith(f"error: {tmp_path}/none does not exist")


def test_batch_must_divide_over_devices():
  done = _run(
    "train",
    CHAIN,
    "--config.train.batch_size=500",
    XLA_FLAGS=EIGHT_DEVICES,
  )
  expected = "train.batch_size = 500: must be a multiple of the 8 devices"
  assert expected in done.stderr
  assert done.returncode == 2


def test_flags_choose_parts_with_their_fields(tmp_path):
  """A graph, a prior, a model and an optimizer that the file does not have."""
  chosen = {
    "graph.name": "kgram",
    "graph.k": 1,
    "prior.name": "floored_dirichlet",
    "prior.gamma": 0.3,
    "model.name": "reduced",
    "train.optimizer": "sgd",
    "train.epsilon": 0.1,
    "train.steps": 3,
    "train.batch_size": 32,
    "eval.test_size": 32,
    "eval.batch_size": 32,
    "eval.posterior_prompts": 0,
  }
  arguments = [f"--config.{name}={value}" for name, value in chosen.items()]
  done = _run("train", CHAIN, *arguments, f"--workdir={tmp_path / 'run'}")
  assert done.returncode == 0, done.stderr
  written = json.loads((tmp_path / "run" / "config.json").read_text())
  for name, value in chosen.items():
    group, field = name.split(".")
    assert written[group][field] == value
  assert written["train"]["eval_every"] == 3
  assert written["model"] == {"name": "reduced", "beta0": 0.5}
  assert "b2" not in written["train"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """(workdir, the finished process) of a short training."""
  workdir = tmp_path_factory.mktemp("runs") / "run"
  return workdir, _run("train", MANUAL, *TINY, f"--workdir={workdir}")


def test_eight_devices_train_as_one_does(run, tmp_path):
  done = _run(
    "train",
    MANUAL,
    *TINY,
    f"--workdir={tmp_path / 'run'}",
    XLA_FLAGS=EIGHT_DEVICES,
  )
  assert done.returncode == 0, done.stderr
  one, eight = (
    json.loads((workdir / "result.json").read_text())["loss"]
    for workdir in (run[0], tmp_path / "run")
  )
  np.testing.assert_allclose(eight, one, rtol=1e-5)


def test_a_registered_prior_trains_on_several_devices(tmp_path):
  """The example of docs/running.md, which draws a kernel before it trains."""
  text = (ROOT / "docs/running.md").read_text().split("registers a prior:\n")[1]
  code = textwrap.dedent(text.split("Then `python -m")[0])
  (tmp_path / "sticky.py").write_text(code)
  config, workdir = tmp_path / "sticky.py", tmp_path / "run"
  flags = (f"--config={config}", *TINY, f"--workdir={workdir}")
  done = _run("train", *flags, JAX_NUM_CPU_DEVICES="")
  assert done.returncode == 0, done.stderr
  made = json.loads((workdir / "environment.json").read_text())
  assert len(made["devices"]) == min(2, app.cores())
  assert (
    "config file that registers it"
    in _run("report", f"--workdir={workdir}").stderr
  )
  again = _run("report", f"--config={config}", f"--workdir={workdir}")
  assert again.returncode == 0, again.stderr


def test_loss_that_is_not_finite_stops_the_run(tmp_path):
  workdir = f"--workdir={tmp_path / 'run'}"
  done = _run(
    "train", MANUAL, *TINY, workdir, "--config.train.learning_rate=1e38"
  )
  assert done.stderr.startswith(
    "error: the test loss is not finite at step 1: "
  )
  assert "keeps the last state saved before it" in done.stderr
  assert done.stderr.count("\n") == 1, done.stderr
  assert done.returncode == 3
  assert not (tmp_path / "run" / "result.json").exists()
  failed = json.loads((tmp_path / "run" / "failed.json").read_text())
  assert failed["step"] == 1
  assert len(failed["last_losses"]) == len(failed["last_gradient_norms"]) == 1


def test_train_writes_a_run_and_prints_it_again(run):
  workdir, first = run
  assert first.returncode == 0, first.stderr
  assert first.stderr == ""  # no progress bar without a terminal
  assert "edges recovered" in first.stdout
  assert {path.name for path in workdir.iterdir()} == {
    "config.json",
    "environment.json",
    "metrics.jsonl",
    "snapshots.jsonl",
    "checkpoints",
    "result.json",
    "figures",
    "report.html",
  }
  made = json.loads((workdir / "environment.json").read_text())
  assert len(made["devices"]) == min(2, app.cores())  # for 64 prompts
  again = _run("train", MANUAL, *TINY, f"--workdir={workdir}")
  assert again.stdout.splitlines()[0].endswith("--overwrite runs it again")
  assert again.stdout.splitlines()[1:] == first.stdout.splitlines()
  other = _run(
    "train", MANUAL, *TINY, f"--workdir={workdir}", "--config.seed=1"
  )
  assert "holds another run (seed is 0 there and 1 here)" in other.stderr
  assert other.returncode == 2


def test_a_progress_bar_on_a_terminal(tmp_path):
  command = [sys.executable, "-m", "experiments.train", MANUAL, *TINY]
  command.append(f"--workdir={tmp_path / 'run'}")
  leader, follower = os.openpty()
  termios.tcsetwinsize(leader, (24, 100))
  process = subprocess.Popen(
    command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=follower
  )
  os.close(follower)
  shown = ""
  with contextlib.suppress(OSError), open(leader, "rb", buffering=0) as screen:
    while part := screen.read(1 << 12):  # an error at the end, on Linux
      shown += part.decode(errors="replace")
  assert process.wait(timeout=300) == 0
  assert "4/4" in shown
  assert "edges " in shown
  assert "loss " in shown


@pytest.mark.parametrize(
  ("environment", "devices"),
  [
    ({}, 3),
    ({"JAX_NUM_CPU_DEVICES": "1"}, 1),
    ({"XLA_FLAGS": EIGHT_DEVICES}, 8),
  ],
)
def test_cores_are_devices_unless_the_environment_differs(environment, devices):
  script = "import jax; from experiments.harness import app; app.use_cores(3); "
  done = subprocess.run(
    [sys.executable, "-c", script + "print(jax.device_count())"],
    cwd=ROOT,
    env=os.environ | environment,
    capture_output=True,
    text=True,
    timeout=60,
  )
  assert done.stdout == f"{devices}\n", done.stderr


def test_benchmark_times_the_start(tmp_path):
  workdir = tmp_path / "run"
  command = ("--parts=start", "--repeats=1", f"--workdir={workdir}")
  done = _run("benchmark", *command)
  assert done.returncode == 0, done.stderr
  result = json.loads((workdir / "result.json").read_text())
  for what, seconds in result["start"].items():
    assert f"{what:<36}{seconds:.3g}" in done.stdout
    assert 0 < seconds < 60
  assert (workdir / "table.txt").read_text() in done.stdout
  assert "is finished: name another" in _run("benchmark", *command).stderr
  for flag, message in (
    ("--parts=end", "error: --parts: 'end' must be one of"),
    ("--before=none.json", "error: --before=none.json: "),
  ):
    assert _run("benchmark", flag).stderr.startswith(message)


def test_compiled_programs_are_cached(tmp_path):
  """In the user's cache folder, unless the flag disables it."""
  command = (
    "--config=configs/theory.py:second_layer",
    "--config.experiments=('three',)",
    "--config.num_prompts=2",
    "--config.steps=1",
  )
  kept = {"XDG_CACHE_HOME": str(tmp_path), "JAX_COMPILATION_CACHE_DIR": None}
  folder = tmp_path / "icl_causal" / "jax"
  for name, flag in (("off", "--nocompile_cache"), ("on", "--compile_cache")):
    assert not folder.exists()
    workdir = f"--workdir={tmp_path / name}"
    done = _run("theory", *command, flag, workdir, **kept)
    assert done.returncode == 0, done.stderr
  entries = list(folder.glob("*-cache"))
  assert len(entries) > 2
  for path in entries:  # truncated: deleted with a line, then written anew
    path.write_bytes(path.read_bytes()[:100])
  for name, is_damaged in (("damaged", True), ("repaired", False)):
    workdir = f"--workdir={tmp_path / name}"
    done = _run("theory", *command, workdir, **kept)
    assert done.returncode == 0
    lines = done.stderr.splitlines()
    assert bool(lines) == is_damaged
    assert all("deleted a damaged compiled program" in line for line in lines)
  again = _run("theory", *command, workdir, **kept)
  first = again.stdout.splitlines()[0]
  assert first.endswith("is finished; --overwrite runs it again")
