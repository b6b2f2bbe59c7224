"""The requester's side of a task: it is given to a peer, followed, and its one result is taken."""
