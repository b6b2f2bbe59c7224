"""Small helpers for asyncio and for processes that fork, without any knowledge of MQTT."""
