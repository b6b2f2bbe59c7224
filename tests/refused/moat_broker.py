"""The broker of moat-lib-mqtt, on the loopback port of its first argument."""

import sys

import anyio
from moat.lib.mqtt.async_broker import AsyncMQTTBroker  # pyright: ignore[reportMissingImports, reportUnknownVariableType]

anyio.run(AsyncMQTTBroker(("127.0.0.1", int(sys.argv[1]))).serve)
