"""Draws the figures and the page of a finished run, from its directory alone.

    python -m experiments.report --workdir=runs/chain

`experiments.train` does the same at its end. Writes figures/ and report.html.
Of a sweep, writes the page with all runs; --members also draws those of its
finished runs that have no page yet.
"""

from absl import flags

from experiments.harness import app
from icl_causal import runs
from icl_causal.report import run
from icl_causal.report import sweep


def main():
  """The command."""
  workdir = app.existing_workdir()
  if "sweep" not in runs.read_config(workdir):
    if flags.FLAGS.members:
      raise app.Refused(f"--members: {workdir} is a run, not a sweep")
    run.write(workdir)
  else:
    for member in runs.load_sweep(workdir) if flags.FLAGS.members else ():
      has_page = (member.path / "report.html").exists()
      if runs.is_finished(member.path) and not has_page:
        run.write(member.path)
    sweep.write(workdir)
  print(f"{workdir}/report.html shows the results")


if __name__ == "__main__":
  app.define_read_flags()
  flags.DEFINE_bool("members", False, "Draw the runs of a sweep as well.")
  app.run(main)
