"""The library in a few lines of Python: load a T5 or a run, attach adapters, predict for a task, save."""
