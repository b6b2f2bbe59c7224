"""The executor's side of a task: the task arrives, is stored, is run by a handler, and gets its result."""
