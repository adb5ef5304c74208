"""Trains one model on one graph; leaves a run directory, figures, a report.

    python -m experiments.train --config=configs/single_parent.py:chain

A finished run is shown again; an unfinished one resumes from its last state.
"""

from absl import flags

from experiments.harness import app
from experiments.harness import distributed
from experiments.harness import grid
from experiments.harness import loggers
from experiments.harness import loop
from experiments.harness import memory
from experiments.harness import signals
from experiments.harness import tables
from icl_causal import parallel
from icl_causal import runs
from icl_causal.config import build
from icl_causal.config import record


def main():
  """The command."""
  distributed.join()
  config = app.config()
  if "sweep" in config:
    raise app.Refused("--config is a sweep: use experiments.sweep")
  build.check_fields(config)
  if not distributed.is_one_of_several():
    prompts = (config.eval.test_size, config.eval.posterior_prompts)
    app.use_cores(
      parallel.num_cores(config.train.batch_size, prompts, app.cores())
    )
  build.check(config)
  build.check_devices(config)
  name = f"{config.graph.name}-{record.digest(config.to_dict())}"
  workdir = app.workdir(name)
  graph = build.graph(config)
  build.model(config, graph)  # refuses a model that does not fit
  run = grid.Run(config, graph, {}, workdir)
  memory.check([run])
  is_requested = signals.install_handlers()
  with distributed.opened(
    workdir, config.to_dict(), flags.FLAGS.overwrite
  ) as finished:
    log = loggers.none
    with distributed.raise_together():
      if distributed.is_first():
        log = loggers.create(workdir, config.to_dict())
        if finished:
          for row in runs.read_metrics(workdir)[-1:]:
            log(row)  # and all rows before
    if not finished:
      loop.train_single(
        run,
        distributed.every_process(),
        flags.FLAGS.keep,
        lambda: distributed.any_process(is_requested()),
        log,
      )
  if distributed.is_first():
    if finished:
      print(f"{workdir} is finished; --overwrite runs it again")
    if not (workdir / "report.html").exists():
      from icl_causal.report import run as report  # loads matplotlib

      report.write(workdir)
    print(tables.result_table(runs.read_result(workdir)))
    print(f"\n{workdir}/report.html shows the figures")


if __name__ == "__main__":
  app.define_run_flags()
  distributed.define_flags()
  loggers.define_flags()
  flags.DEFINE_integer(
    "keep",
    None,
    "Checkpoints to keep, one for each evaluation, the newest. By default two, "
    "and a save is skipped if it would take more than 2 % of the time.",
    1,
  )
  app.run(main)
