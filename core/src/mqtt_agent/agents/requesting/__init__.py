"""The requester's side of a task: the task is delegated to a peer, followed, and its one result is taken."""
