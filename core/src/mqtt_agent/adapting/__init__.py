"""What every adapter for an agent framework needs."""
