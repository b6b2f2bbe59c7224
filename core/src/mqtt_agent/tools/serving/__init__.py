"""The server's side: publishes tools on cards, receives calls, runs each call once, and answers the calls."""
