"""Remote MQTT.Agent tools as native LangChain tools."""
