"""What the command lines of the adapters share."""
