"""The caller's side: finding tools, calling them, and deciding what becomes of a call when a server is lost."""
