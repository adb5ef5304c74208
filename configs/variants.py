"""How a config file reads the `VARIANT[,TIER]` that follows its name."""

from collections.abc import Sequence

TIERS = ("quick", "paper")


def parse(
  asked: str, variants: Sequence[str], tiers: Sequence[str] = TIERS
) -> tuple[str, str]:
  """The variant and the tier, by default the first of each.

  Raises:
    ValueError: in one line, for a name that is none of them.
  """
  variant, _, tier = asked.partition(",")
  variant, tier = variant or variants[0], tier or tiers[0]
  if variant not in variants:
    raise ValueError(f"variant {variant!r} must be one of {tuple(variants)}")
  if tier not in tiers:
    raise ValueError(f"tier {tier!r} must be one of {tuple(tiers)}")
  return variant, tier
