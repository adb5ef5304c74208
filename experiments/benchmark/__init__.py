"""The command that times the library, and its measurements."""
