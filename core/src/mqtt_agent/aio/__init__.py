"""Small helpers for asyncio, without any knowledge of MQTT."""
