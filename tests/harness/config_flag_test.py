"""Random flags of a config are accepted, or refused with a message.

With --hypothesis-profile=many, 10,000 command lines.
"""

import contextlib
import sys

from absl import flags
from hypothesis import given
from hypothesis import strategies as st

from configs import single_parent
from experiments.harness import app
from experiments.harness import config_flag
from experiments.harness import smoke
from icl_causal.config import build
from icl_causal.config import record
from icl_causal.config.fields import ConfigError

NAMES = [*record.flatten(single_parent.get_config().to_dict()), "graph.k"]
NAMES += ["prior.gamma", "graph.seed", "model.width", "graph", "to_dict", ""]
NAMES += ["a.b", "graph.", ".x", "graph['T']", "__class__.__name__"]
VALUES = ["1", "2", "-1", "0", "0.5", "1e400", "nan", "kgram", "pairs", "sgd"]
VALUES += ["adamw", "standard", "reduced", "floored_dirichlet", "(1,1)", "("]
VALUES += ["((1,),", "", "None", "True", "1" * 400, "\0", "{}", "[1]", '"x']
WORDS = st.one_of(
  st.builds(
    "{}config.{}={}".format,
    st.sampled_from(["--", "-", "--no"]),
    st.sampled_from(NAMES),
    st.one_of(st.sampled_from(VALUES), st.text(max_size=4)),
  ),
  st.builds("--config.{}".format, st.sampled_from(NAMES)),
  st.sampled_from(VALUES),
)


@given(
  st.sampled_from(["chain", "random", "manual", "pairs", "none"]),
  st.lists(WORDS, min_size=1, max_size=4),
)
def test_command_lines(variant, words):
  if "config" not in flags.FLAGS:
    config_flag.define("A config.")
    smoke.define()
  argv = ["x", f"--config=configs/single_parent.py:{variant}", *words]
  before, sys.argv = sys.argv, argv
  try:
    with contextlib.suppress(flags.Error, ConfigError):
      flags.FLAGS(argv)
      build.check(app.config())
  finally:
    sys.argv = before
    for name in [f for f in flags.FLAGS if f.startswith("config.")]:
      delattr(flags.FLAGS, name)
