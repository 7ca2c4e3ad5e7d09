"""What all other packages use: errors that the user can correct, files written whole, locks, and progress."""
