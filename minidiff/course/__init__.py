"""What the lessons use: checks of exercises, figures, widgets, and a few helpers."""
