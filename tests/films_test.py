"""The attention while a run trains."""

import numpy as np

from configs import recipes as recipes_configs
from experiments import analyze
from experiments import batch
from experiments import figures
from experiments import films
from experiments import recipes
from experiments import stopping
from icl_causal import plotting


def test_times():
  assert films.times(2048) == [16, 64, 256, 1024, 2048]
  assert films.times(1024) == [16, 64, 256, 1024]


def test_the_last_picture_is_that_of_the_run(tmp_path):
  config = recipes_configs.get_config("half").unlock()
  config.base.graph.T, config.base.prior.S = 6, 2
  config.base.eval.update(test_size=64, batch_size=64, posterior_prompts=8)
  name, model, train = config.recipes[1]
  train = {**train, "steps": 32, "eval_every": 32, "batch_size": 8}
  config.recipes, config.seeds = ((name, model, train),), (1,)
  (run,) = recipes.planned(config)[name]
  batch.train([run], tmp_path, 1, stopping.never)
  params = figures.final_params(run, tmp_path)
  maps = films.film(run, films.times(32))
  assert list(maps) == [16, 32]
  expected = analyze.attention(run.config, run.graph)(params)
  np.testing.assert_allclose(maps[32], expected, atol=1e-4)
  assert np.abs(maps[32] - maps[16]).max() > 1e-3


def test_heads_have_colours_and_what_they_share_is_dark():
  first, second = np.eye(3), np.eye(3)
  second[2] = [1, 0, 0]
  image = plotting._in_colours(np.stack([first, second]))
  white, blue = image[0, 1], image[2, 2]
  orange, both = image[2, 0], image[1, 1]
  np.testing.assert_array_equal(white, 1)
  assert blue[2] > blue[0]
  assert orange[0] > orange[2]
  np.testing.assert_array_less(both, np.minimum(blue, orange) + 1e-6)
  assert (image >= 0).all()
  assert (image <= 1).all()


def test_a_shorter_film_leaves_the_rest_of_its_row_empty():
  maps = {step: np.eye(3)[None] for step in (16, 64, 256)}
  short = {step: maps[step] for step in (16, 64)}
  figure = plotting.films(np.eye(3), {"long": maps, "short": short})
  labels = [axes.get_xlabel() for axes in figure.axes if axes.axison]
  long = ["graph", "step 16", "step 64", "step 256"]
  assert labels == [*long, *long[:-1]]
