"""Tests of who speaks: rights at the broker, and signatures."""
