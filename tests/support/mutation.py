"""Mutation testing: puts one-line faults into the code, one at a time.

    python -m tests.support.mutation

Works on a copy of the project. The tests must pass on the copy without a fault.
A fault is caught if one of its test files fails. Prints the faults, each with
the test that catches it.
"""

import argparse
from collections.abc import Iterable
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[2]


class Fault(NamedTuple):
  """A changed line.

  Attributes:
    module: its path in the project, without the suffix.
    line: a part of one line.
    wrong: its replacement.
    tests: paths in tests/ of the test files that must catch it, without
      `_test.py`; by default that of the module.
  """

  module: str
  line: str
  wrong: str
  tests: tuple[str, ...] = ()


FAULTS = (
  Fault("icl_causal/graphs", "[i - 1 if i % 2 else", "[i - 2 if i % 2 else"),
  Fault(
    "icl_causal/graphs",
    "NO_PARENT, jnp.arange(T - 1))",
    "NO_PARENT, jnp.arange(1, T))",
  ),
  Fault(
    "icl_causal/graphs",
    "is_root | (positions == 0)",
    "is_root | (positions == 1)",
  ),
  Fault("icl_causal/graphs", "+ jnp.tri(T, k=-1)", "+ jnp.tri(T)"),
  Fault(
    "icl_causal/graphs",
    "rows = [((i - 1) // 2, i - 1)",
    "rows = [(i // 2, i - 1)",
  ),
  Fault(
    "icl_causal/priors", "num_rows, S) + gamma / S", "num_rows, S) + gamma"
  ),
  Fault(
    "experiments/harness/memory",
    "rows = S * (T + 1)",
    "rows = 0",
    ("harness/memory",),
  ),
  Fault("icl_causal/tokens", "(row_N == row, j", "(row_N >= row, j"),
  Fault(
    "icl_causal/tokens", "(is_uniform, N, first)", "(is_uniform, 0, first)"
  ),
  Fault("icl_causal/tokens", "(is_uniform, none, t", "(is_uniform, 0, t"),
  Fault(
    "icl_causal/sampling",
    "is_uniform_N |= (parents",
    "is_uniform_N &= (parents",
    ("tokens",),
  ),
  Fault(
    "icl_causal/sampling", ".at[row_N].set(", ".at[row_N].add(", ("tokens",)
  ),
  Fault(
    "icl_causal/priors",
    "return table / jnp.maximum(total, 1)",
    "return table / jnp.maximum(total, 2)",
  ),
  Fault("icl_causal/gammas", "d = shape - 1 / 3", "d = shape + 1 / 3"),
  Fault("icl_causal/gammas", "num) / alpha", "num) / (alpha + 1)"),
  Fault(
    "icl_causal/priors",
    "pi_SxS[n, :n], pi_SxS[:n, n]",
    "pi_SxS[:n, n], pi_SxS[n, :n]",
  ),
  Fault("icl_causal/layers", "for _ in range(2):", "for _ in range(1):"),
  Fault(
    "icl_causal/layers",
    "E_SxD, others_TxD]))[S:]",
    "E_SxD, others_TxD]))[:-S]",
    ("models",),
  ),
  Fault(
    "experiments/harness/suite",
    "results.append(run.point | runs.read_result(run.workdir))",
    "results.append(runs.read_result(run.workdir))",
    ("figures",),
  ),
  Fault(
    "experiments/harness/smoke",
    "in_grid or name in _LISTS",
    "name in _LISTS",
  ),
  Fault("icl_causal/graphs", "return has_none_T & (", "return has_none_T | ("),
  Fault("icl_causal/tokens", "row * (S + 1) + t", "row * S + t", ("sampling",)),
  Fault(
    "icl_causal/tokens",
    "jnp.where(parents_xK < 0, S",
    "jnp.where(parents_xK <= 0, S",
    ("sampling",),
  ),
  Fault(
    "icl_causal/bayes",
    "_normalise(counts_S + alpha)",
    "_normalise(counts_S + 1)",
  ),
  Fault("icl_causal/metrics", "xlogy(y_S, f_S + epsilon)", "xlogy(y_S, f_S)"),
  Fault("icl_causal/metrics", "std(ddof=1)", "std(ddof=0)"),
  Fault("icl_causal/mixtures", "fastest / _TO_BOUNDARY, 1)", "0 * fastest, 1)"),
  Fault("icl_causal/mixtures", "jnp.diag(diagonal_K),", "jnp.diag(z_K),"),
  Fault(
    "icl_causal/mixtures",
    "lack_K + _matmul(ratio_KxM, m_M - f_M)",
    "lack_K + _matmul(ratio_KxM, f_M - m_M)",
  ),
  Fault("icl_causal/mixtures", "f_M[None], ratio_KxM.T", "ratio_KxM, p_KxM.T"),
  Fault("icl_causal/phases", "jnp.tri(T, k=-1)", "jnp.tri(T)"),
  Fault("icl_causal/phases", "> threshold", ">= threshold"),
  Fault(
    "icl_causal/phases",
    "decided(earlier_KxTxT, is_query_T[None])",
    "decided(earlier_KxTxT, has_none_T[None])",
  ),
  Fault("icl_causal/phases", "total_P.argmax()", "total_P.argmin()"),
  Fault(
    "icl_causal/phases",
    "jnp.where(graph.target_K == T - 1, T - 1, fetched_K)",
    "fetched_K",
  ),
  Fault(
    "icl_causal/phases",
    "jnp.where(is_new, law_NxS, 0)",
    "law_NxS",
  ),
  Fault("icl_causal/models", "score_TxT + mask_TxT", "score_TxT"),
  Fault("icl_causal/threefry", "(13, 15, 26, 6)", "(13, 15, 26, 7)"),
  Fault("icl_causal/threefry", "np.float32(-1), ", "np.float32(-2), "),
  Fault(
    "icl_causal/reduced", "(queries @ A).T)", "(queries @ A.T).T)", ("models",)
  ),
  Fault(
    "icl_causal/models",
    "queries @ A_DxD @ keys_TxD.T",
    "queries @ A_DxD.T @ keys_TxD.T",
  ),
  Fault(
    "icl_causal/models",
    "[mixes.compose(att, mix)",
    "[mixes.compose(att.T, mix)",
  ),
  Fault("icl_causal/training", "weight = size / share", "weight = 1.0"),
  Fault(
    "icl_causal/training",
    "jax.lax.pmean(of_share",
    "jax.lax.psum(of_share",
    ("harness/distributed",),
  ),
  Fault(
    "icl_causal/evaluation", "(1 + f_S.shape[-1] * epsilon)", "(1 + epsilon)"
  ),
  Fault(
    "icl_causal/optimizers",
    "state.step < max_first_steps",
    "state.step <= max_first_steps",
  ),
  Fault(
    "icl_causal/optimizers",
    "jnp.arange(1, len(A1_TxT) + 1)",
    "jnp.arange(len(A1_TxT))",
  ),
  Fault(
    "icl_causal/analysis/information",
    "ratio(P_TxTxSxS, P_j)).sum((2, 3)) - 1",
    "ratio(P_TxTxSxS, P_j)).sum((2, 3))",
  ),
  Fault(
    "icl_causal/analysis/information",
    "(positions <= parent)[",
    "(positions >= parent)[",
  ),
  Fault(
    "icl_causal/analysis/circuits",
    "is_edge_T & (x_T[parents_T]",
    "(x_T[parents_T]",
  ),
  Fault(
    "icl_causal/analysis/circuits",
    "fixed_DxC[own] += shared_C",
    "fixed_DxC[own] += 0 * shared_C",
  ),
  Fault(
    "icl_causal/analysis/circuits",
    "read_DxC[own, columns] = np.tri(T, dtype=bool)",
    "read_DxC[own, columns] = True",
  ),
  Fault(
    "icl_causal/analysis/patches",
    "lambda o, p: o + att @ p, of.own",
    "lambda o, p: o + p, of.own",
  ),
  Fault(
    "icl_causal/analysis/patches",
    "+ weight_JxT[:, i, None] * change_JxS",
    "+ 0 * weight_JxT[:, i, None] * change_JxS",
  ),
  Fault(
    "icl_causal/analysis/patches",
    "jnp.arange(T)) - loss_of(graph)",
    "jnp.arange(T)) + 0 * loss_of(graph)",
  ),
  Fault(
    "icl_causal/analysis/agreement",
    "return [a / (G - 1) for a in",
    "return [a for a in",
  ),
  Fault(
    "experiments/harness/circuits",
    "of_children=True",
    "of_children=False",
  ),
  Fault(
    "experiments/theory/circuits",
    '"A1": "fixed", "A2"',
    '"A1": "trained", "A2"',
    ("theory/circuits",),
  ),
  Fault(
    "icl_causal/runs/circuits",
    "type(entry) in (int, float)",
    "isinstance(entry, int | float)",
  ),
  Fault(
    "icl_causal/report/circuits",
    "for n in names if n in record",
    "for n in names[::-1] if n in record",
  ),
  Fault(
    "icl_causal/plotting/circuits",
    "enumerate(titles) if n != 1]",
    "enumerate(titles)]",
  ),
  Fault("icl_causal/analysis/gradient", '"ijts,st->ij"', '"ijts,ts->ij"'),
  Fault(
    "icl_causal/analysis/information",
    "return v_S[x_T] - v_S @ p_S,",
    "return v_S[x_T] - v_S.mean(),",
  ),
  Fault(
    "icl_causal/analysis/dynamics",
    "jnp.maximum(square - mean**2, 0) / (num",
    "jnp.maximum(square, 0) / (num",
  ),
  Fault(
    "icl_causal/analysis/dynamics",
    "return A1_TxT + rate / T * att_TxT",
    "return A1_TxT + rate * att_TxT",
  ),
  Fault(
    "icl_causal/analysis/dynamics", "steps.append(n - 1 +", "steps.append(n +"
  ),
  Fault(
    "icl_causal/analysis/dynamics", "+ 2 * jnp.log(i - 1)", "+ jnp.log(i - 1)"
  ),
  Fault(
    "icl_causal/analysis/dynamics",
    "mu_S @ pi_SxS**2 - mu_S**2",
    "mu_S @ pi_SxS**2",
  ),
  Fault(
    "experiments/theory/learned",
    "gap * is_edge_TxT",
    "is_edge_TxT",
    ("theory/times",),
  ),
  Fault(
    "experiments/theory/repetition",
    "is_own_N = jnp.arange(len(own.x_T)) < num_prompts",
    "is_own_N = jnp.arange(len(own.x_T)) >= 0",
    ("theory/repetition",),
  ),
  Fault(
    "experiments/theory/repetition",
    "np.flip(np.logical_and.accumulate(np.flip(edges_M >= 0.5)))",
    "edges_M >= 0.5",
    ("theory/repetition",),
  ),
  Fault(
    "experiments/theory/order",
    "learned.partial_rank(step_E, -strength_E",
    "learned.partial_rank(step_E, strength_E",
    ("theory/order",),
  ),
  Fault(
    "icl_causal/analysis/recovery", "if j < i and score", "if j <= i and score"
  ),
  Fault(
    "icl_causal/parallel", "padding = -len(runs) %", "padding = len(runs) %"
  ),
  Fault(
    "icl_causal/runs/history",
    'if row["step"] > step:',
    'if row["step"] >= step:',
  ),
  Fault(
    "icl_causal/bayes",
    "_normalise(edge_S * ratio_S), 1 / largest",
    "_normalise(weighted_S), 1 / largest",
  ),
  Fault(
    "icl_causal/bayes",
    "jnp.maximum((weight_N**2)",
    "jnp.minimum((weight_N**2)",
  ),
  Fault(
    "icl_causal/bayes", "fori_loop(0, num_states", "fori_loop(1, num_states"
  ),
  Fault(
    "icl_causal/bayes", "maximum(log_largest, -50)", "maximum(log_largest, 0)"
  ),
  Fault(
    "icl_causal/config/build",
    "*(S, num_samples, config.prior.root_law),",
    "*(S, num_samples),",
  ),
  Fault(
    "icl_causal/analysis/recovery",
    "score_HxTxT[head_of_slot, i, :i]",
    "score_HxTxT[:, i, :i]",
  ),
  Fault(
    "icl_causal/optimizers",
    "(head_updates, state.joint)",
    "(head_updates, joint_state)",
  ),
  Fault(
    "icl_causal/optimizers",
    "jnp.where(jnp.arange(len(order)) <= phase, order, 0).max()",
    "order[phase]",
  ),
  Fault(
    "icl_causal/layers",
    "query = 0 if copy == 1 else copy",
    "query = 0",
    ("models",),
  ),
  Fault("icl_causal/symmetry", "/ (S * (S - 1))", "/ (S * S)"),
  Fault(
    "icl_causal/constructions",
    "excluded_T[-1] |= small.heads > 0",
    "excluded_T[-1] &= small.heads > 0",
  ),
  Fault(
    "icl_causal/blocks",
    'f"{path} {layer}.{head}"',
    'f" {layer}.{head}{path}"',
    ("models",),
  ),
  Fault(
    "icl_causal/mixes",
    "mix @ score if",
    "score @ mix if",
    ("models",),
  ),
  Fault(
    "icl_causal/analysis/estimators",
    "- margins + 1) / 2",
    "- margins) / 2",
  ),
  Fault(
    "icl_causal/config/fields",
    "if isinstance(value, bool) or expected is bool:",
    "if expected is bool:",
  ),
  Fault(
    "icl_causal/config/optimizer_parts",
    "staged_heads(joint, phase_steps, joint_steps",
    "staged_heads(joint, joint_steps, phase_steps",
    ("config/parts",),
  ),
  Fault(
    "icl_causal/optimizers",
    "jnp.where(resets, reset, step)",
    "jnp.where(resets, reset + step, step)",
  ),
  Fault(
    "icl_causal/config/build",
    "if K > built.first_layer_heads:",
    "if K > built.first_layer_heads + 1:",
  ),
  Fault(
    "icl_causal/config/record",
    "return tuple(map(_tuples, value)) if",
    "return list(map(_tuples, value)) if",
  ),
  Fault("icl_causal/config/streams", "_STREAMS.index(stream)", "0"),
  Fault(
    "icl_causal/plotting/arcs",
    "y = side * _arc_height(edge)",
    "y = _arc_height(edge)",
  ),
  Fault(
    "icl_causal/plotting/curves",
    "max((level - low) / (high - low), lowest_free)",
    "(level - low) / (high - low)",
  ),
  Fault(
    "icl_causal/plotting/matrices",
    "(j - 0.5, i - 0.5), 1, 1",
    "(i - 0.5, j - 0.5), 1, 1",
  ),
  Fault(
    "icl_causal/report/page",
    r'text.replace("<", "\\u003c")',
    'text.replace("<", "<")',
  ),
  Fault("icl_causal/report/page", "<h1>{html.escape(title)}", "<h1>{title}"),
  Fault(
    "icl_causal/report/data",
    "at=place: abs(places[k] - at)",
    "at=place: abs(steps[k] - at)",
    ("report/page",),
  ),
  Fault(
    "icl_causal/report/data",
    "whole = np.rint(levels * np.clip",
    "whole = np.rint(200 * np.clip",
    ("report/page",),
  ),
  Fault(
    "icl_causal/report/summary",
    "np.log2(1 + step), place, gap",
    "step, place, gap",
  ),
  Fault(
    "icl_causal/report/sweep",
    '"run": member.path.name',
    '"run": "run"',
    ("report/page",),
  ),
  Fault(
    "icl_causal/report/summary",
    "result[name + '_standard_error']",
    "result[name]",
  ),
  Fault(
    "icl_causal/runs/files",
    "is_written and info.st_nlink > 1",
    "is_written and info.st_nlink > 2",
    ("runs/hostile",),
  ),
  Fault(
    "icl_causal/runs/checkpoints",
    "in sorted(steps, reverse=True):",
    "in sorted(steps):",
  ),
  Fault(
    "icl_causal/runs/load",
    'streams.key(config.eval.seed, "test")',
    'streams.key(config.seed, "test")',
  ),
  Fault("icl_causal/runs/locking", "LOCK_EX | fcntl", "LOCK_SH | fcntl"),
  Fault(
    "experiments/harness/clock",
    "(wall + time.monotonic() - since, saving)",
    "(time.monotonic() - since, saving)",
  ),
  Fault(
    "experiments/harness/grid",
    "math.log(low), math.log(high)",
    "low, high",
  ),
  Fault(
    "experiments/harness/traced",
    'not in arguments and not name.startswith("graph.")',
    "not in arguments",
    ("harness/grid_plan",),
  ),
  Fault(
    "experiments/harness/forests",
    "roots[1:-1] += is_root_T[1:-1]",
    "roots += is_root_T",
  ),
  Fault(
    "experiments/harness/recorded",
    "step - len(steps.loss_N)",
    "step",
  ),
  Fault(
    "experiments/harness/recorded",
    'name == "edge_posterior" and not build',
    'name == "edge_posterior" and build',
  ),
  Fault(
    "experiments/harness/program",
    "effective >= metrics.MIN_EFFECTIVE_SAMPLES",
    "effective > 0",
  ),
  Fault(
    "experiments/harness/phase_tables",
    "late[-1] + 1 if late else 0",
    "late[-1] if late else 0",
  ),
  Fault(
    "icl_causal/runs/history",
    "abs(sum(weights.values()) - 1) > _ROUNDING",
    "False",
  ),
  Fault(
    "icl_causal/report/phases",
    "a - edge_loss - b for a, b",
    "a - edge_loss for a, b",
  ),
  Fault(
    "icl_causal/plotting/phases",
    "weights.values(), colors=colors",
    "[*weights.values()][::-1], colors=colors",
  ),
  Fault(
    "experiments/harness/loop",
    "3 * power // 4",
    "power // 2",
  ),
  Fault(
    "icl_causal/evaluation",
    "(c * size + jnp.arange(size))",
    "(c + jnp.arange(size))",
  ),
  Fault(
    "icl_causal/evaluation",
    "jax.lax.pmean(found.attention, axis)",
    "jax.lax.psum(found.attention, axis)",
    ("harness/distributed",),
  ),
  Fault(
    "icl_causal/runs/history",
    "is_maps=a.ndim == 4",
    "is_maps=a.ndim >= 3",
  ),
  Fault(
    "icl_causal/runs/load",
    "like not in (None, _shapes(read))",
    "like is False",
  ),
  Fault(
    "icl_causal/export",
    "1 if model.scaled else D**0.5",
    "D**0.5 if model.scaled else 1",
  ),
  Fault(
    "icl_causal/runs/environment",
    "if pathlib.Path(installed).resolve() == here.resolve():",
    "if True:",
  ),
  Fault(
    "icl_causal/runs/checkpoints",
    "if checksum not in file.checksums:",
    "if not file.checksums:",
    ("runs/history",),
  ),
  Fault(
    "experiments/harness/tables",
    "cell.rjust(w) for cell, w",
    "cell.ljust(w) for cell, w",
  ),
  Fault(
    "experiments/sweep/summary",
    "(step, np.median(losses),",
    "(step, np.mean(losses),",
  ),
  Fault(
    "experiments/theory/pooled",
    "return hits, len(edges), len(set(pairs)) - hits",
    "return hits, len(edges), len(set(pairs))",
  ),
  Fault(
    "experiments/theory/second_layer",
    "jax.nn.softmax(logits_NxT)[:, :T]",
    "jax.nn.softmax(logits_NxT[:, :T])",
  ),
  Fault(
    "experiments/theory/roots",
    "len(before & false)",
    "len(before | false)",
  ),
  Fault(
    "experiments/theory/posterior",
    "[down / total, up / total]",
    "[up / total, down / total]",
  ),
  Fault(
    "icl_causal/sampling",
    "(batch_size,), 0, N)",
    "(batch_size,), 0, len(prompts.x_T))",
  ),
  Fault(
    "icl_causal/analysis/information",
    "root_SxS @ root_SxS.T",
    "root_SxS.T @ root_SxS",
  ),
  Fault(
    "icl_causal/analysis/likelihood",
    "log_SxS[x_T[None, :], x_T[:, None]]",
    "log_SxS[x_T[:, None], x_T[None, :]]",
  ),
  Fault(
    "icl_causal/analysis/likelihood",
    "from_RxT - is_own_RxT + S",
    "from_RxT + S",
  ),
  Fault(
    "icl_causal/analysis/likelihood",
    "score_T[best] > root_T[i], best",
    "score_T[best] < root_T[i], best",
  ),
  Fault(
    "icl_causal/analysis/guided",
    "score_SxS[x_T[None, :], x_T[:, None]]",
    "score_SxS[x_T[:, None], x_T[None, :]]",
  ),
  Fault(
    "icl_causal/analysis/guided",
    "jnp.moveaxis(kernel[(slice(S),) * K], slot, 0)",
    "jnp.moveaxis(kernel[(slice(S),) * K], 0, 0)",
  ),
  Fault(
    "icl_causal/analysis/guided",
    "_lift(pi_SxS, mu_S + epsilon) - 1",
    "_lift(pi_SxS, mu_S) - 1",
  ),
  Fault(
    "icl_causal/analysis/guided",
    "x_T[None, :, None], x_T[None, None, :], x_T[:, None, None]",
    "x_T[None, None, :], x_T[None, :, None], x_T[:, None, None]",
  ),
  Fault(
    "icl_causal/analysis/guided",
    "scale_T = rate * jnp.arange(1, T + 1",
    "scale_T = rate * jnp.arange(0, T",
  ),
  Fault(
    "icl_causal/analysis/guided",
    'floor = 0 if kind == "shannon" else epsilon',
    "floor = 0.0 * epsilon",
  ),
  Fault(
    "experiments/theory/pair_methods",
    "1 - (1 - chosen_KxTxT).prod(axis=0)",
    "chosen_KxTxT.sum(axis=0)",
    ("theory/two_parents",),
  ),
  Fault(
    "experiments/theory/pair_methods",
    "pairs_TxTxT, axis=axis) for axis in (2, 1)",
    "pairs_TxTxT, axis=axis) for axis in (1, 2)",
    ("theory/two_parents",),
  ),
  Fault(
    "experiments/theory/two_parents",
    "np.asarray(hits.right) > num_edges - 1e-3",
    "np.asarray(hits.anywhere) > num_edges - 1e-3",
    ("theory/two_parents",),
  ),
  Fault(
    "icl_causal/analysis/samples",
    "is_hit_T / is_top_TxT.sum(axis=1)",
    "is_hit_T * 1.0",
  ),
  Fault(
    "icl_causal/analysis/samples",
    "jnp.log(u / w) / (root * w)",
    "jnp.log(w / u) / (root * w)",
  ),
  Fault(
    "icl_causal/analysis/bounds",
    "1 - B_TxT ** (2 * N)",
    "1 - B_TxT ** (N)",
  ),
  Fault(
    "icl_causal/plotting/samples",
    "1 - np.asarray(curve.shares)",
    "np.asarray(curve.shares)",
  ),
  Fault(
    "experiments/theory/sample_curves",
    "jnp.log(root_probability * i_T) -",
    "jnp.log(root_probability * i_T) +",
    ("theory/samples",),
  ),
  Fault(
    "experiments/theory/sample_table",
    "needed(has_all_GxN, ones_G",
    "needed(has_all_GxN, edges_G",
    ("theory/samples",),
  ),
  Fault(
    "experiments/analyze",
    '"child,candidate,measured,standard_error,predicted,edge',
    '"candidate,child,measured,standard_error,predicted,edge',
  ),
  Fault(
    "icl_causal/running",
    "seen_T[None]) & jnp.tri(T, dtype",
    "seen_T[None]) & jnp.tri(T, k=-1, dtype",
  ),
  Fault(
    "icl_causal/running",
    "|= (next_TxK == graphs.NO_PARENT).all(axis=1)",
    "|= (next_TxK == graphs.NO_PARENT).any(axis=1)",
  ),
  Fault("icl_causal/latent", "x_T[1:]])", "x_T[:-1]])"),
  Fault("icl_causal/latent", "((0, 0), (1, 0)))", "((0, 0), (0, 1)))"),
  Fault(
    "icl_causal/latent",
    "running.edge_posterior(x_T, graph, law, S, root_law)",
    "running.edge_posterior(x_T, graph, law, S)",
  ),
  Fault("icl_causal/latent", ".argmax(axis=0)", ".argmin(axis=0)"),
  Fault(
    "icl_causal/graphs",
    "range(first, T)], [T - k]",
    "range(first, T)], [T - 1]",
  ),
  Fault(
    "icl_causal/graphs",
    "starts_L = length * np",
    "starts_L = (length - 1) * np",
  ),
  Fault(
    "icl_causal/graphs",
    "parents_Mx[:1]).all(axis=0)",
    "parents_Mx[:1]).any(axis=0)",
  ),
  Fault(
    "icl_causal/sampling",
    "graphs.is_query(graph)[1:], False)",
    "graphs.is_query(graph)[:-1], False)",
  ),
  Fault(
    "icl_causal/sampling",
    "(), 0, len(graphs_M.target_K))",
    "(), 0, len(graphs_M.target_K) - 1)",
  ),
  Fault(
    "icl_causal/pools",
    "jnp.where(graphs.is_query(graph)[None], 0, log_MxT)",
    "log_MxT",
  ),
  Fault("icl_causal/pools", "[:, -1]", "[:, 0]"),
  Fault("icl_causal/pools", "laws_MxRxS[:, target],", "laws_MxRxS[:, 0],"),
  Fault("icl_causal/pools", "(p_MxT, _FLOOR)", "(p_MxT, 0.01)"),
  Fault(
    "icl_causal/priors",
    "(key, (), 0, len(kernels))",
    "(key, (), 0, len(kernels) - 1)",
  ),
  Fault(
    "icl_causal/config/parts",
    "jax.random.randint(key, (), 0, num_kernels)",
    "jax.random.randint(key, (), 1, num_kernels + 1)",
    ("config/build",),
  ),
  Fault(
    "icl_causal/config/build",
    "number, law.alpha, law.root_law, law.seed",
    "number, law.alpha, law.root_law, 0",
  ),
  Fault(
    "experiments/harness/traced",
    'not (has_weights and name == "prior.num_kernels")',
    "True",
  ),
  Fault(
    "experiments/harness/diversity",
    "mixture_weights(f_NxS, law_KxNxS[four])",
    "mixture_weights(f_NxS, law_KxNxS[:4])",
  ),
  Fault(
    "experiments/harness/diversity",
    "priors.dirichlet(alpha, root_law)",
    'priors.dirichlet(alpha, "uniform")',
  ),
  Fault(
    "experiments/harness/diversity_tables",
    'one["loss"][-1] - one["losses"]["retrieval"]',
    'one["loss"][-1] - one["losses"]["entropy"]',
    ("harness/diversity",),
  ),
  Fault(
    "experiments/harness/diversity_tables",
    "edge / (edge + retrieval)",
    "edge",
    ("harness/diversity",),
  ),
  Fault(
    "icl_causal/plotting/diversity",
    "mean = of[field].mean(axis=0)",
    "mean = of[field][0]",
  ),
  Fault(
    "icl_causal/analysis/plateaus",
    "(later_M <= stretch_M.min() - fall)",
    "(later_M <= stretch_M.min())",
  ),
  Fault(
    "icl_causal/analysis/plateaus",
    "is_long = 0 < ratio * steps_N[first] <=",
    "is_long = 0 <= steps_N[first] <=",
  ),
  Fault(
    "experiments/theory/kgram_runs",
    "[case.k :].mean())(",
    ".mean())(",
    ("theory/kgrams",),
  ),
  Fault(
    "experiments/harness/program",
    "start = block * size",
    "start = 0 * size",
    ("harness/program",),
  ),
  Fault(
    "experiments/theory/stationary",
    "token[order], token[0])",
    "token[0], token[0])",
    ("theory/stationary",),
  ),
  Fault(
    "experiments/theory/stationary",
    "((B - 1) * (B - 2))",
    "(B * (B - 1))",
    ("theory/stationary",),
  ),
  Fault(
    "icl_causal/constructions",
    "U1[j - 1, :, j] = _COPY",
    "U1[j - 1, :, j - 1] = _COPY",
  ),
  Fault(
    "experiments/theory/kgrams",
    "norm_N[plateau.last + 1 :].max()",
    "norm_N.max() * 2",
    ("theory/kgrams",),
  ),
  Fault(
    "icl_causal/sampling",
    "(set_key, share_T) & ~is_query_T",
    "(set_key, share_T)",
    ("interventional",),
  ),
  Fault(
    "icl_causal/sampling",
    "is_query_T | is_set_T)",
    "is_query_T)",
    ("interventional",),
  ),
  Fault(
    "icl_causal/analysis/interventions",
    "is_set_T[:, None], 0, score_TxT",
    "is_set_T[None], 0, score_TxT",
  ),
  Fault(
    "icl_causal/analysis/interventions",
    "== S, root_share, share)",
    "== S, share, share)",
  ),
  Fault(
    "icl_causal/analysis/interventions",
    "share + (1 - share) * _expected",
    "(1 - share) * _expected",
  ),
  Fault(
    "icl_causal/analysis/interventions",
    "same_S[:, None] -",
    "same_S[None] -",
  ),
  Fault(
    "experiments/theory/interventions",
    "found.edges_G[1::2], hits_GxNxD[1::2]",
    "found.edges_G[::2], hits_GxNxD[::2]",
    ("theory/interventions",),
  ),
  Fault(
    "experiments/theory/interventions",
    "margin_GxD[:, 0] - ratio * margin_GxD[:, d]",
    "margin_GxD[:, 0] - margin_GxD[:, d]",
    ("theory/interventions",),
  ),
  Fault(
    "experiments/theory/intervention_scores",
    "0, T - 1), T)",
    "0, T - 2), T)",
    ("theory/interventions",),
  ),
  Fault("icl_causal/relative", "u_TxR[:, -1:], (T", "u_TxR[:, :1], (T"),
  Fault("icl_causal/relative", "[:, reach - 1 :].sum", "[:, reach:].sum"),
  Fault(
    "icl_causal/layers", "att @ values_TxS for", "values_TxS for", ("every",)
  ),
  Fault(
    "icl_causal/analysis/selection",
    "is_match_TxT &= jnp.tri(T, dtype",
    "is_match_TxT &= jnp.tri(T, k=-1, dtype",
  ),
  Fault("icl_causal/analysis/selection", "xy - x * y / n", "xy - x * x / n"),
  Fault(
    "icl_causal/analysis/selection",
    "rest = y[half:] - features[half:] @",
    "rest = y[:half] - features[:half] @",
  ),
  Fault(
    "icl_causal/relative",
    "jnp.stack(maps) @ jax.nn.softmax(h_TxD @ W_HxDxS)",
    "jax.nn.softmax(jnp.stack(maps) @ (h_TxD @ W_HxDxS))",
  ),
  Fault(
    "icl_causal/relative",
    "gate_TxH = jax.nn.softmax(h_TxD @ G_DxH)",
    "gate_TxH = jax.nn.softmax(h_TxD @ G_DxH, axis=0)",
  ),
  Fault(
    "icl_causal/relative",
    "if self.strict and not is_last:",
    "if self.strict:",
  ),
  Fault(
    "icl_causal/latent",
    "f_TxS = jax.nn.softmax(logits_TxS)",
    "f_TxS = logits_TxS",
  ),
  Fault(
    "icl_causal/analysis/recovery",
    "is_edge_TxK[i].any() or in_any_TxT[i, top]",
    "is_edge_TxK[i].any()",
  ),
  Fault(
    "experiments/harness/selection",
    "(np.cumsum(is_child_T) > 0)",
    "(np.cumsum(is_child_T) >= 0)",
  ),
)


def source(fault: Fault, root: pathlib.Path) -> pathlib.Path:
  """The file of the module of a fault."""
  return root / f"{fault.module}.py"


def test_files(fault: Fault) -> list[str]:
  """The test files of a fault, relative to the root."""
  names = fault.tests or (fault.module.partition("/")[2],)
  return [f"tests/{name}_test.py" for name in names]


def insert(fault: Fault, root: pathlib.Path) -> str:
  """The text of the module with the fault.

  Raises:
    ValueError: unless the line occurs exactly once.
  """
  path = source(fault, root)
  text = path.read_text()
  if (num := text.count(fault.line)) != 1:
    raise ValueError(f"{fault.line!r} occurs {num} times in {path}, not once")
  return text.replace(fault.line, fault.wrong)


def caught_by(fault: Fault, copy: pathlib.Path) -> str | None:
  """The test that fails on a copy of the project with the fault, or None."""
  path = source(fault, copy)
  text = path.read_text()
  path.write_text(insert(fault, copy))
  try:
    return failing_test(test_files(fault), copy)
  finally:
    path.write_text(text)


def ignored(folder: str, names: Iterable[str]) -> set[str]:
  """The names in a folder that the copy does not need, for `copytree`."""
  if pathlib.Path(folder) != ROOT:  # icl_causal/runs is needed
    return set()
  return {".venv", "runs", ".git"} & {*names}


def failing_test(files: Iterable[str], copy: pathlib.Path) -> str | None:
  """The first test of some files that fails on the copy, or None."""
  command = [sys.executable, "-m", "pytest", "-x", "-n", "0", *files]
  # Without compiled files, which Python takes for those of the next fault if
  # both have the same size and second.
  flags = {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
  done = subprocess.run(
    command,
    cwd=copy,
    env={**os.environ, **flags},
    capture_output=True,
    text=True,
  )
  if done.returncode > 2:  # neither passed, nor failed, nor stopped by -x
    raise RuntimeError(done.stdout + done.stderr)
  if done.returncode == 0:
    return None
  names = re.findall(
    r"^(?:FAILED|ERROR) tests/(.+?)(?: - |$)", done.stdout, re.MULTILINE
  )
  return names[0] if names else "an error of pytest"


def main():
  """The command."""
  argparse.ArgumentParser(description=__doc__).parse_args()
  with tempfile.TemporaryDirectory() as folder:
    copy = pathlib.Path(folder) / "copy"
    shutil.copytree(ROOT, copy, ignore=ignored)
    files = sorted({name for fault in FAULTS for name in test_files(fault)})
    if test := failing_test(files, copy):
      raise RuntimeError(f"{test} fails without a fault")
    num_caught = 0
    for number, fault in enumerate(FAULTS, start=1):
      test = caught_by(fault, copy)
      num_caught += test is not None
      print(f"{number:>3}  {fault.module}: {fault.line}")
      print(f"       fault   {fault.wrong}")
      print(f"       caught  {test or 'NO'}", flush=True)
  print(f"{num_caught} of {len(FAULTS)} caught")


if __name__ == "__main__":
  main()
