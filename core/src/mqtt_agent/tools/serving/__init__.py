"""The server's side: tools are shown on cards, calls are taken in, run once, and answered."""
