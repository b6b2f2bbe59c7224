"""The caller's side: finds tools, calls them, and decides what to do with a call when its server is lost."""
