"""Draws the figures and the page of a finished run, from its directory alone.

    python -m experiments.report --workdir=runs/chain

`experiments.train` does the same at its end. Writes figures/ and report.html.
"""

from experiments.harness import app
from icl_causal.report import run


def main():
  """The command."""
  workdir = app.existing_workdir()
  run.write(workdir)
  print(f"{workdir}/report.html shows the figures")


if __name__ == "__main__":
  app.define_read_flags()
  app.run(main)
