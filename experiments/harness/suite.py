"""Plans and trains the runs of the paper's experiments; records their results.

Results are recorded under results/TIER as a line of JSON for each run, so the
work can be spread over days and machines.
"""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import json
import pathlib
import types

from absl import flags
import jax

from configs import paper
from configs import variants
from experiments.harness import app
from experiments.harness import distributed
from experiments.harness import grid
from experiments.harness import loop
from experiments.harness import smoke
from experiments.harness.grid import Run
from icl_causal import parallel
from icl_causal import runs
from icl_causal.config import build
from icl_causal.report import run as report

flags.disclaim_key_flags()  # flags defined here belong to the command

NOTHING: Mapping[str, dict] = types.MappingProxyType({})
# Runs side by side on a device.
AT_ONCE = 8


def define_flags(num_seeds: int):
  """Defines --tier, --seeds, --workdir, --results and --smoke for a command.

  Args:
    num_seeds: the default of --seeds.
  """
  flags.DEFINE_enum(
    "tier", "quick", variants.TIERS, "Our recipes, or the paper's settings."
  )
  flags.DEFINE_integer("seeds", num_seeds, "Number of seeds per experiment.", 1)
  flags.DEFINE_string(
    "workdir", None, "Directory of the runs; by default runs/TIER."
  )
  flags.DEFINE_string(
    "results", None, "Directory of the results; by default results/TIER."
  )
  smoke.define()


def planned(
  name: str,
  tier: str,
  num_seeds: int,
  workdir: pathlib.Path,
  small: bool = False,
) -> list[Run]:
  """The runs of an experiment from seeds 0, 1, .., by seed and then by graph.

  Args:
    name: a key of `paper.EXPERIMENTS`.
    tier: a tier of configs/variants.py.
    num_seeds: number of seeds.
    workdir: the runs are in WORKDIR/members.
    small: whether they are shrunk, as with --smoke.
  """
  module, variant = paper.EXPERIMENTS[name]
  config: build.Config = module.get_config(f"{variant},{tier}")
  if small:
    smoke.shrink(config)
  axes = {}
  if "sweep" in config:
    axes = {"graph.seed": config.sweep.grid.graph.seed}
    with config.unlocked():
      del config["sweep"]
  return [
    grid.run(config, point | {"eval.seed": _test_seed(point)}, workdir)
    for point in grid.points({"seed": range(num_seeds), **axes})
  ]


def _test_seed(point: Mapping[str, int]) -> int:
  """Different test prompts for each seed and graph: independent runs."""
  return point["seed"] + 1000 * point.get("graph.seed", 0)


def train(
  runs_of: dict[str, list[Run]],
  stop: Callable[[], bool],
  at_once: int = AT_ONCE,
  keep: int | None = None,
):
  """Trains the missing runs; runs of one program are trained side by side.

  Or one after another, if they are too few for the cores of a processor and the
  prompts divide over the cores.

  Args:
    runs_of: runs by the name of their experiment.
    stop: whether a stop is requested; called after every evaluation.
    at_once: number of runs per device at once.
    keep: number of checkpoints of each run, one for each evaluation; the
      default is that of `loop.Job`.
  """
  # Experiments may share runs.
  every = {run.workdir: run for group in runs_of.values() for run in group}
  for batch in grid.divide([*every.values()], largest=256):
    missing = [run for run in batch if not runs.is_done(run.workdir)]
    if not missing:
      continue
    names = names_of(batch, runs_of)
    print(f"training {len(missing)} runs: {names}", flush=True)
    if one_by_one(batch, jax.device_count()):
      for run in missing:
        _train_single(run, stop, keep, with_report=len(batch) == 1)
    else:
      loop.train_batch(batch, at_once, stop, keep)


def names_of(batch: Sequence[Run], runs_of: dict[str, list[Run]]) -> str:
  """The names of the experiments of a batch, with commas."""
  chosen = {run.name for run in batch}
  return ", ".join(
    name
    for name, group in runs_of.items()
    if chosen & {run.name for run in group}
  )


def one_by_one(batch: Sequence[Run], num_devices: int) -> bool:
  """Whether a batch is trained one run after another, each on all devices.

  Side by side, a run has a device; R runs keep ceil(R / D) * D devices busy for
  as long as one takes. On a processor, a quarter of them without a run costs
  more than the cores of one run lose when they wait for each other.
  """
  config, num = batch[0].config, len(batch)
  prompts = (config.eval.test_size, config.eval.posterior_prompts)
  idle = -num % num_devices
  if num == 1:
    counts = (config.train.batch_size, *prompts)
    return not any(count % num_devices for count in counts)
  return (
    jax.default_backend() == "cpu"
    and idle >= (num + idle) / 4
    and parallel.num_cores(config.train.batch_size, prompts, num_devices)
    == num_devices
  )


def read_results(
  group: Sequence[Run], recorded: Mapping[str, dict] = NOTHING
) -> list[dict]:
  """The result of every run, with the fields of its point.

  Args:
    group: the runs.
    recorded: results of runs that are not finished in their directories, by
      name.

  Raises:
    NonFinite: for a run whose loss was not finite.
  """
  results = []
  for run in group:
    if failed := runs.read_failure(run.workdir):
      raise app.NonFinite(
        f"{run.workdir}: {failed['what']} at step {failed['step']}"
      )
    if run.name in recorded and not runs.is_done(run.workdir):
      results.append(run.point | recorded[run.name])
    else:
      results.append(run.point | runs.read_result(run.workdir))
  return results


def write_results(
  results: pathlib.Path,
  name: str,
  group: Sequence[Run],
  recorded: Mapping[str, dict] = NOTHING,
):
  """Writes the results of runs to the file of an experiment, a line for each.

  Lines of other runs stay, unless a new run has their seed and graph: then its
  recipe has changed.

  Args:
    results: the directory.
    name: of the experiment.
    group: runs of the experiment.
    recorded: results of runs that have no directory, by name.
  """
  names = {run.name for run in group}
  points = [run.point for run in group]
  lines = {
    name_of_line: line
    for name_of_line, line in read_recorded(results, name).items()
    if name_of_line in names
    or not any(point.items() <= line.items() for point in points)
  }
  for run, result in zip(group, read_results(group, recorded), strict=True):
    lines[run.name] = {"run": run.name} | result
  results.mkdir(parents=True, exist_ok=True)
  text = "".join(
    json.dumps(line, sort_keys=True, allow_nan=False) + "\n"
    for line in lines.values()
  )
  runs.write_text(_file(results, name), text)


def read_recorded(results: pathlib.Path, name: str) -> dict[str, dict]:
  """The lines that `write_results` wrote for an experiment, by run name.

  Raises:
    RunError: if a line is damaged.
  """
  lines = runs.read_table(_file(results, name), runs.RECORDED)
  return {line["run"]: line for line in lines}


def final_params(run: Run):
  """The parameters at the end of a run."""
  params = runs.load(run.workdir).params
  if run.config.train.steps not in params:
    raise app.Refused(
      f"{run.workdir}: its final checkpoint is missing or unreadable; delete "
      "the directory to retrain"
    )
  return params[run.config.train.steps]


def final_attention(run: Run):
  """The layer-1 maps of the last evaluation, H x T x T."""
  snapshots = runs.read_snapshots(run.workdir)
  if run.config.train.steps not in snapshots:
    raise app.Refused(
      f"{run.workdir}: its final attention maps are missing; delete the "
      "directory to retrain"
    )
  return snapshots[run.config.train.steps].attention


def _train_single(
  run: Run, stop: Callable[[], bool], keep: int | None, with_report: bool
):
  """Trains one run on all devices.

  Args:
    run: the run.
    stop: as in `loop.Job`.
    keep: as in `loop.Job`.
    with_report: whether it is the only run: its report is written, and an error
      is raised if its loss is not finite. `read_results` raises it otherwise.
  """
  config = run.config.to_dict()
  failures = () if with_report else (app.NonFinite,)
  with (
    contextlib.suppress(*failures),
    runs.opened(run.workdir, config, overwrite=False) as finished,
  ):
    if not finished:
      loop.train_single(run, distributed.this_process(), keep, stop)
  if with_report:
    report.write(run.workdir)


def _file(results: pathlib.Path, name: str) -> pathlib.Path:
  return results / f"{name.replace(' ', '_')}.jsonl"
