"""Label assignment of a training step: recorded, in figures and in pictures."""
