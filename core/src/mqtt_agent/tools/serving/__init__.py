"""The server's side: publishing tools on cards, taking calls in, running each call once, and answering the calls."""
