"""A2A profile: agents and the tasks that they give each other."""
