"""Who speaks: keys, signatures, and which names they prove."""
