"""The sweep command."""
