"""What the commands share: start and end, signals, the training loop."""
