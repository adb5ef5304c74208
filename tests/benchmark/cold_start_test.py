"""That the time of imports covers the whole library."""

from experiments.benchmark import cold_start


def test_modules_of_sub_packages_are_imported():
  modules = cold_start.modules()
  assert {"icl_causal.graphs", "icl_causal.config.build"} <= set(modules)
  assert len(modules) == len(set(modules))
