"""The measures of a run, against loops over prompts, positions and graphs."""

import json
from typing import Any

import jax
import numpy as np
import pytest

from configs import latent as configs_latent
from configs import selection as configs_selection
from experiments.harness import distributed
from experiments.harness import grid
from experiments.harness import loop
from experiments.harness import selection
from experiments.harness import smoke
from icl_causal import config as configs
from icl_causal import latent
from icl_causal import runs
from icl_causal.config import build

pytestmark = pytest.mark.slow

SMALL = {
  "graph.T": 7,
  "model.noise": 1.0,
  "train.steps": 2,
  "train.eval_every": 2,
  "train.batch_size": 16,
  "eval.test_size": 32,
  "eval.batch_size": 16,
  "eval.posterior_prompts": 16,
}


def _trained(folder, variant, **changes) -> runs.Run:
  config = configs.load(configs_latent, variant, **SMALL | changes)
  run = grid.run(config, {}, folder)
  runs.prepare(run.workdir, config.to_dict(), overwrite=False)
  loop.train_single(run, distributed.this_process())
  return runs.load(run.workdir)


@pytest.fixture(scope="module")
def known(tmp_path_factory):
  """(run, line) with a known kernel and three layers."""
  run = _trained(tmp_path_factory.mktemp("known"), "lags")
  return run, selection.line(run, 32)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
  """(run, line) with a new kernel in every prompt and two layers."""
  folder = tmp_path_factory.mktemp("fresh")
  changes = {"model.heads": (2, 2), "train.learning_rate": 0.5}
  run = _trained(folder, "fresh", **changes)
  return run, selection.line(run, 32)


def _laws(run, every=True):
  """The model, the Bayes predictor and the posterior on the test prompts."""
  prompts, S = run.prompts(32), run.config.prior.S
  law, root_law = build.known_law(run.config), run.config.prior.root_law

  @jax.jit
  @jax.vmap
  def of(x_T):
    given = (x_T, run.graph, law, S, root_law, every)
    return latent.model_average(*given), latent.graph_posterior(*given)

  f_NxTxS, out = run.apply(run.newest, prompts.x_T)
  bayes_NxTxS, w_NxTxM = of(prompts.x_T)
  return (
    jax.tree.map(np.asarray, (prompts._replace(kernel=None), f_NxTxS, out)),
    np.asarray(bayes_NxTxS),
    np.asarray(w_NxTxM, float),
  )


def _parents(run):
  """Of each position and of the target, M x (T + 1)."""
  return np.concatenate(
    [run.graph.parents_TxK[..., 0], run.graph.target_K], axis=1
  )


@pytest.mark.parametrize("name", ["known", "fresh"])
def test_the_gap_is_the_loss_minus_that_of_the_bayes_predictor(name, request):
  run, line = request.getfixturevalue(name)
  (prompts, f_NxTxS, _), bayes_NxTxS, _ = _laws(run)
  # From the first position that has a parent in every graph.
  first = max(run.config.graph.lags)
  assert line["positions"] == [*range(first, 7)]
  loss_NxT = -(prompts.y_S * np.log(f_NxTxS)).sum(axis=2)[:, first:]
  bayes_NxT = -(prompts.y_S * np.log(bayes_NxTxS)).sum(axis=2)[:, first:]
  gap_NxT = loss_NxT - bayes_NxT
  gap_N = gap_NxT.mean(axis=1)
  assert line["gap"] == pytest.approx(gap_N.mean(), abs=1e-5)
  error = gap_N.std(ddof=1) / 32**0.5
  assert line["gap_error"] == pytest.approx(error, rel=1e-3)
  assert line["last"] == pytest.approx(gap_NxT[:, -1].mean(), abs=1e-5)
  assert line["bayes"] == pytest.approx(bayes_NxT.mean(), abs=1e-5)
  np.testing.assert_allclose(
    line["gap_by_position"], gap_NxT.mean(axis=0), atol=1e-5
  )


def test_attention_is_compared_with_the_posterior_of_the_parent(known):
  """Over all candidates, by position and by level."""
  run, line = known
  (prompts, _, out), _, w_NxTxM = _laws(run)
  att_NxTxT = out["attention_3"].mean(axis=1)
  parents, lags = _parents(run), run.config.graph.lags
  weights, shares, on_true = [], [], []
  by_position: dict[int, list] = {t: [] for t in line["positions"]}
  for n in range(32):
    for t in line["positions"]:
      rows = [
        (w_NxTxM[n, t, m], att_NxTxT[n, t, parents[m, t + 1]])
        for m in range(len(lags))
      ]
      weights += [w for w, _ in rows]
      shares += [a for _, a in rows]
      on_true.append(rows[prompts.graph_index[n]][1])
      logs = np.log(np.maximum(rows, 1e-6))
      by_position[t] += [*(logs - logs.mean(axis=0))]
  correlation = np.corrcoef(weights, shares)[0, 1]
  assert line["correlation"] == pytest.approx(correlation, abs=1e-4)
  assert line["on_true"] == pytest.approx(np.mean(on_true), abs=1e-5)
  slopes = [np.polyfit(*np.transpose(of), 1)[0] for of in by_position.values()]
  np.testing.assert_allclose(line["slope_by_position"], slopes, rtol=1e-2)


def test_the_calibration_is_the_mean_attention_by_level(known):
  """Of all rows with candidates, also before the first child."""
  run, line = known
  (_, _, out), _, w_NxTxM = _laws(run)
  att_NxTxT = out["attention_3"].mean(axis=1)
  parents = _parents(run)
  edges = np.array(
    [0.01, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.99]
  )
  of_level: dict[int, list] = {level: [] for level in range(12)}
  for t in range(7):
    present = [m for m in range(3) if parents[m, t + 1] >= 0]
    for m in present:
      for n in range(32):
        level = int((w_NxTxM[n, t, m] >= edges).sum())
        of_level[level].append(att_NxTxT[n, t, parents[m, t + 1]])
  assert len(line["levels"]) == len(line["calibration"]) == 12
  np.testing.assert_allclose(line["levels"][:2], [0.005, 0.03])
  for level, shares in of_level.items():
    if not shares:
      assert line["calibration"][level] is None
    elif len(shares) > 10:  # rounding may move an entry to another level
      found = line["calibration"][level]
      assert found == pytest.approx(np.mean(shares), abs=2e-2)


def test_the_second_layer_explains_a_share_of_the_log_likelihoods(known):
  """By numpy's least squares with a coefficient for each pair of heads."""
  run, line = known
  (_, _, out), _, w_NxTxM = _laws(run)
  parents = _parents(run)
  columns, targets = [], []
  for n in range(32):
    first_HxTxT = out["attention_1"][n]
    second_GxT = out["attention_2"][n, :, -1]
    e_MxHxG = np.zeros((3, len(first_HxTxT), len(second_GxT)))
    for m in range(3):
      for i in range(7):
        if parents[m, i] >= 0:
          copied_H = first_HxTxT[:, i, parents[m, i]]
          e_MxHxG[m] += np.outer(copied_H, second_GxT[:, i])
    columns.append((e_MxHxG - e_MxHxG.mean(axis=0)).reshape(3, -1))
    log_M = np.log(np.maximum(w_NxTxM[n, -1], 1e-6))
    targets.append(log_M - log_M.mean())
  X, y = np.concatenate(columns), np.concatenate(targets)
  coefficients = np.linalg.lstsq(X, y, rcond=None)[0]
  share = 1 - ((y - X @ coefficients) ** 2).sum() / (y**2).sum()
  assert line["evidence"] == pytest.approx(share, rel=1e-2)


def test_probes_are_fitted_on_half_of_the_prompts(known):
  """By ridge regression with next to no penalty, from the normal equations."""
  run, line = known
  (prompts, _, out), _, w_NxTxM = _laws(run)
  log_NxM = np.log(np.maximum(w_NxTxM[:, -1], 1e-6))
  y_NxM = log_NxM - log_NxM.mean(axis=1, keepdims=True)
  center_M = y_NxM[:16].mean(axis=0)
  shares = []
  for layer in (1, 2):
    h_NxD = np.stack(
      [
        run.model.streams(x_T, jax.tree.map(lambda a: a[n], out))[layer][-1]  # noqa: B023
        for n, x_T in enumerate(prompts.x_T)
      ]
    ).astype(float)
    mean_D = h_NxD[:16].mean(axis=0)
    fit = (h_NxD[:16] - mean_D).T
    kernel = fit.T @ fit + 1e-9 * np.eye(16)
    dual = np.linalg.solve(kernel, y_NxM[:16] - center_M)
    found = center_M + (h_NxD[16:] - mean_D) @ fit @ dual
    rest = ((y_NxM[16:] - found) ** 2).sum()
    shares.append(1 - rest / ((y_NxM[16:] - center_M) ** 2).sum())
  np.testing.assert_allclose(line["probes"], shares, rtol=0.02, atol=0.02)


def test_a_new_kernel_is_compared_with_the_successors(fresh):
  """Tokens whose parents have the state of the next token's parent."""
  run, line = fresh
  (prompts, _, out), _, w_NxTxM = _laws(run)
  # Averaged by the gate of the mixture, which is not even.
  att_NxTxT = np.einsum("nth,nhtj->ntj", out["gate"], out["attention_2"])
  assert np.ptp(out["gate"], axis=2).max() > 0.1
  parents = _parents(run)
  weights, shares, on_true = [], [], []
  for n, x_T in enumerate(prompts.x_T):
    for t in line["positions"]:
      weight_T, own_T = np.zeros(7), np.zeros(7)
      for m in range(2):
        state = x_T[parents[m, t + 1]]
        matches = [
          i
          for i in range(t + 1)
          if parents[m, i] >= 0 and x_T[parents[m, i]] == state
        ]
        for i in matches:
          weight_T[i] += w_NxTxM[n, t, m] / len(matches)
          own_T[i] += m == prompts.graph_index[n]
      weights += [*weight_T[weight_T > 0]]
      shares += [*att_NxTxT[n, t, weight_T > 0]]
      on_true.append(att_NxTxT[n, t, own_T > 0].sum())
  correlation = np.corrcoef(weights, shares)[0, 1]
  assert line["correlation"] == pytest.approx(correlation, abs=1e-4)
  assert line["on_true"] == pytest.approx(np.mean(on_true), abs=1e-5)
  assert line["evidence"] is None


def test_lines_are_json_and_have_the_recorded_fields(known, fresh, tmp_path):
  """A slope of constant weights is None, as at the first child."""
  lines = [{"model": "deep"} | line for _, line in (known, fresh)]
  path = tmp_path / "lines.jsonl"
  text = [json.dumps(line, allow_nan=False) + "\n" for line in lines]
  path.write_text("".join(text))
  assert runs.read_table(path, selection.FIELDS) == lines
  assert all(set(line) == set(selection.FIELDS) for line in lines)
  assert fresh[1]["slope_by_position"][0] is None


def _line(model, seed, **more) -> dict[str, Any]:
  values = {
    "gap": 0.1 + 0.2 * seed,
    "last": 0.3 * seed,
    "bayes": 1.0 + seed,
    "correlation": 0.5,
    "last_correlation": 0.75,
    "on_true": 0.25,
    "evidence": None,
    "probes": [0.1],
  }
  of_run = {"model": model, "heads": "(2, 1)", "T": 32, "stage": "trained"}
  return {**of_run, "seed": seed, **values, **more}


def test_the_tables_have_means_over_seeds():
  lines = [
    _line("deep", seed, evidence=0.9, probes=[0.1, 0.2 + 0.2 * seed])
    for seed in (0, 1)
  ]
  lines += [_line("two_layers", 0), _line("two_layers", 1)]
  header, rows = selection.table(lines)
  assert header[:6] == ["model", "heads", "T", "stage", "seeds", "Bayes"]
  deep, flat = (dict(zip(header, row, strict=True)) for row in rows)
  assert (deep["model"], deep["seeds"], deep["Bayes"]) == ("deep", 2, 1.5)
  assert deep["gap"] == flat["gap"] == pytest.approx(0.2)
  assert deep["error of gap"] == pytest.approx(0.1)
  assert deep["largest gap"] == pytest.approx(0.3)
  assert deep["largest last"] == pytest.approx(0.3)
  header, rows = selection.inside(lines)
  deep, flat = (dict(zip(header, row, strict=True)) for row in rows)
  assert deep["evidence"] == pytest.approx(0.9)
  assert flat["evidence"] is flat["error of evidence"] is None
  assert deep["last correlation"] == pytest.approx(0.75)
  assert (deep["probe 1"], flat["probe 1"]) == (0.1, 0.1)
  assert deep["probe 2"] == pytest.approx(0.3)
  assert deep["error of probe 2"] == pytest.approx(0.1)
  assert flat["probe 2"] is None


@pytest.mark.parametrize("task", configs_selection.TASKS)
def test_small_configs_are_accepted(task):
  config = configs_selection.get_config(task)
  smoke.shrink(config)
  assert config.seeds == (0, 1)
  for model in config.models.values():
    assert model.train.steps == 16
    build.check(model)
    assert config.num_prompts <= model.eval.test_size
    assert config.num_prompts % model.eval.batch_size == 0
