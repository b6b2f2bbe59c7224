"""The requester's side of a task: the task is delegated to a peer and followed, and its result is stored once."""
