"""The caller's side: finding tools, calling them, and what becomes of a call when a server is lost."""
