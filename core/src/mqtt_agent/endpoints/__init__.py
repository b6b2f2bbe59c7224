"""What tool clients, tool servers and agents share: how they run, and their copy of retained messages."""
