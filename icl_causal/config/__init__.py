"""Configs: fields and their ranges, the table of parts, and what they make."""

from icl_causal.config.build import check as check
from icl_causal.config.build import load as load
from icl_causal.config.fields import ConfigError as ConfigError
from icl_causal.config.parts import Part as Part
from icl_causal.config.parts import register as register
