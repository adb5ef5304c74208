"""The command that checks the theory numerically, and its checks."""
