"""Code that all other packages use: errors that the user can correct, atomic writes, locks, and progress."""
