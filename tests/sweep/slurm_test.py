"""The Slurm launcher on a real cluster: one node, on loopback."""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.support import artifacts

ROOT = pathlib.Path(__file__).parents[2]

NO_SLURM = shutil.which("slurmctld") is None  # apt-get install slurm-wlm
pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(NO_SLURM, reason="no Slurm: .ci/run has it"),
]

CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
AuthType=auth/none
CredType=cred/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmctldPort={ctld_port}
SlurmdPort={d_port}
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd.pid
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool
SlurmctldLogFile={home}/slurmctld.log
SlurmdLogFile={home}/slurmd.log
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=0
MailProg=/bin/true
KillWait=2
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
  """The environment of Slurm's commands for a cluster of this test alone."""
  home = tmp_path_factory.mktemp("slurm")
  for name in ("state", "spool"):
    (home / name).mkdir()
  host = socket.gethostname().partition(".")[0]
  with socket.socket() as one, socket.socket() as two:
    for free in (one, two):
      free.bind(("127.0.0.1", 0))
    ports = [free.getsockname()[1] for free in (one, two)]
  conf = home / "slurm.conf"
  conf.write_text(
    CONF.format(
      home=home,
      host=host,
      user=os.environ.get("USER", "root"),
      ctld_port=ports[0],
      d_port=ports[1],
    )
  )
  environment = {**os.environ, "SLURM_CONF": str(conf)}

  def call(*command):
    done = subprocess.run(
      command, env=environment, capture_output=True, text=True
    )
    return done.stdout

  call("slurmctld", "-c")
  call("slurmd", "-N", host)
  deadline = time.monotonic() + 30
  while "idle" not in call("sinfo", "--noheader", "--format=%T"):
    assert time.monotonic() < deadline, (home / "slurmctld.log").read_text()
    time.sleep(0.2)
  yield environment
  call("scontrol", "shutdown")


def _sweep(environment, workdir, *arguments, config="configs/many_graphs.py"):
  return subprocess.Popen(
    [
      sys.executable,
      "-m",
      "experiments.sweep",
      f"--config={config}",
      "--config.graph.T=6",
      "--config.train.batch_size=16",
      "--config.eval.test_size=64",
      "--config.eval.batch_size=32",
      "--config.sweep.grid.seed=(0,)",
      f"--workdir={workdir}",
      *arguments,
    ],
    cwd=ROOT,
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def _table(workdir):
  rows = map(json.loads, (workdir / "table.jsonl").read_text().splitlines())
  return [artifacts.timeless(row) for row in rows]


def _logs(workdir):
  return "".join(p.read_text() for p in workdir.glob("slurm/*_log.*"))


SLURM = (
  "--launcher=slurm",
  "--slurm=timeout_min=10",
  "--slurm=cpus_per_task=1",
)


def test_batches_become_jobs_and_preempted_jobs_resume(slurm, tmp_path):
  """Two jobs; both are preempted once one has saved a state."""
  grid = ("--config.sweep.grid.graph.seed=(0,1)", "--runs_per_batch=1")
  long = ("--config.train.steps=960", "--config.train.first_steps=800")
  jobs = _sweep(slurm, tmp_path / "jobs", *grid, *long, *SLURM)
  deadline = time.monotonic() + 200
  while not list((tmp_path / "jobs").glob("members/*/checkpoints/*.npz")):
    assert time.monotonic() < deadline
    assert jobs.poll() is None, jobs.stderr.read()
    time.sleep(0.02)
  subprocess.run(["scancel", "--signal=USR2", "--name=jobs"], env=slurm)
  while "this job is" not in _logs(tmp_path / "jobs"):
    assert time.monotonic() < deadline
    time.sleep(0.1)
  # Slurm waits for two minutes before it starts a requeued job.
  while jobs.poll() is None:
    for job in ("1_0", "1_1"):
      subprocess.run(
        ["scontrol", "update", f"JobId={job}", "StartTime=now"],
        env=slurm,
        capture_output=True,
      )
    time.sleep(1)
  stdout, stderr = jobs.communicate(timeout=300)
  assert jobs.returncode == 0, stderr
  assert "2 jobs in Slurm array" in stdout
  assert "Requeued job" in _logs(tmp_path / "jobs")

  local = _sweep(slurm, tmp_path / "local", *grid, *long)
  _, stderr = local.communicate(timeout=300)
  assert local.returncode == 0, stderr
  statuses = [row["status"] for row in _table(tmp_path / "local")]
  assert statuses == ["finished"] * 2
  assert _table(tmp_path / "jobs") == _table(tmp_path / "local")
  by_jobs, by_local = (
    artifacts.by_sweep(tmp_path / name) for name in ("jobs", "local")
  )
  assert by_jobs == by_local


OWN = """
from configs import many_graphs
from icl_causal import config
from icl_causal import priors

config.register(
  "prior", "own", config.Part(lambda alpha, root_law: priors.dirichlet(alpha))
)


def get_config():
  made = many_graphs.get_config()
  made.prior.name = "own"
  return made
"""


def test_a_command_that_is_repeated_waits_for_the_live_array(slurm, tmp_path):
  """With a prior of the user's own config file."""
  own = tmp_path / "own.py"
  own.write_text(OWN)
  workdir = tmp_path / "run"
  arguments = ("--config.sweep.grid.graph.seed=(0,)", *SLURM)
  arguments += ("--slurm=slurm_max_num_timeout=7",)
  subprocess.run(
    ["scontrol", "update", "PartitionName=main", "State=DOWN"], env=slurm
  )  # jobs wait in the queue
  try:
    first = _sweep(slurm, workdir, *arguments, config=own)
    while not (workdir / "slurm" / "array.json").exists():
      assert first.poll() is None, first.stderr.read()
      time.sleep(0.1)
    first.send_signal(signal.SIGTERM)
    stdout, stderr = first.communicate(timeout=300)
    assert (first.returncode, stderr) == (4, "")
    array = json.loads((workdir / "slurm" / "array.json").read_text())["array"]
    assert f"1 jobs in Slurm array {array}: waiting" in stdout

    over = _sweep(slurm, workdir, *arguments, "--overwrite", config=own)
    _, stderr = over.communicate(timeout=300)
    assert f"scancel {array} first" in stderr
    assert over.returncode == 2
  finally:
    subprocess.run(
      ["scontrol", "update", "PartitionName=main", "State=UP"], env=slurm
    )
  again = _sweep(slurm, workdir, *arguments, config=own)
  stdout, stderr = again.communicate(timeout=600)
  assert again.returncode == 0, stderr
  assert f"Slurm array {array} of an earlier command is in the queue" in stdout
  (submitted,) = workdir.glob("slurm/*_submitted.pkl")
  assert submitted.name.startswith(array)
  assert [row["status"] for row in _table(workdir)] == ["finished"]


def test_an_array_that_ended_early_is_named(slurm, tmp_path):
  """Jobs that do not know the user's prior, which is gone."""
  own = tmp_path / "own.py"
  own.write_text(OWN)
  arguments = ("--config.sweep.grid.graph.seed=(0,)", *SLURM)
  late = _sweep(slurm, tmp_path / "run", *arguments, config=own)
  while not (tmp_path / "run" / "slurm" / "array.json").exists():
    assert late.poll() is None, late.stderr.read()
    time.sleep(0.05)
  own.unlink()
  _, stderr = late.communicate(timeout=300)
  assert stderr.startswith("error: 1 of 1 runs are not done, and Slurm array")
  assert "run/slurm/" in stderr
  assert late.returncode == 2


@pytest.mark.parametrize(
  ("parameter", "message"),
  [
    ("time_limit=10", ""),
    ("slurm_partition=none", "invalid partition specified: none"),
  ],
)
def test_parameters_that_are_refused(slurm, tmp_path, parameter, message):
  wrong = _sweep(
    slurm, tmp_path / "run", "--launcher=slurm", f"--slurm={parameter}"
  )
  _, stderr = wrong.communicate(timeout=300)
  assert stderr.startswith("error: --slurm: ")
  assert message in stderr
  assert stderr.count("\n") == 1, stderr
  assert wrong.returncode == 2


def test_no_controller(slurm, tmp_path):
  conf = tmp_path / "slurm.conf"
  text = pathlib.Path(slurm["SLURM_CONF"]).read_text()
  conf.write_text(re.sub("SlurmctldPort=.*", "SlurmctldPort=1", text))
  environment = slurm | {"SLURM_CONF": str(conf)}
  wrong = _sweep(environment, tmp_path / "run", "--launcher=slurm")
  _, stderr = wrong.communicate(timeout=300)
  assert stderr.startswith("error: --slurm: ")
  assert "Unable to contact slurm controller" in stderr
  assert stderr.count("\n") == 1, stderr
  assert wrong.returncode == 2
