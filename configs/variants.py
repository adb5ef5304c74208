"""Parses the `VARIANT[,TIER]` that follows the name of a config file."""

from collections.abc import Sequence

from icl_causal.config import fields

TIERS = ("quick", "paper")


def parse(
  variant_and_tier: str, variants: Sequence[str], tiers: Sequence[str] = TIERS
) -> tuple[str, str]:
  """The variant and the tier; each defaults to the first one.

  Raises:
    ConfigError: in one line, for an unknown variant or tier.
  """
  variant, _, tier = variant_and_tier.partition(",")
  variant, tier = variant or variants[0], tier or tiers[0]
  if variant not in variants:
    raise fields.ConfigError(
      f"variant {variant!r} must be one of {tuple(variants)}"
    )
  if tier not in tiers:
    raise fields.ConfigError(f"tier {tier!r} must be one of {tuple(tiers)}")
  return variant, tier
