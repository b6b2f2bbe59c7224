"""The executor's side of a task: it is taken in, stored, run by a handler, and answered."""
