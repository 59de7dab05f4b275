"""What an assigner decides while a detector trains: recorded, in figures, in pictures."""
