"""What tool clients, tool servers and agents share: start and stop, marker messages, a copy of retained messages."""
