"""Runs a crew twice. The crew's analyst runs on another host, which is killed during the second run.

Start this example with ``make crew``. The example needs no broker, no API key and no network.
"""

import os
import tempfile
from pathlib import Path

for name in (
    "CREWAI_DISABLE_TELEMETRY",
    "CREWAI_DISABLE_TRACKING",
    "CREWAI_DISABLE_VERSION_CHECK",
    "OTEL_SDK_DISABLED",
):
    os.environ.setdefault(name, "true")
os.environ.setdefault("CREWAI_TRACING_ENABLED", "false")

from mqtt_agent import EmbeddedBroker  # noqa: E402
from story import Story  # noqa: E402

with EmbeddedBroker() as broker, tempfile.TemporaryDirectory() as folder:
    print("Starting a broker, a server with two tools, and an analyst, each in its own process ...")
    with Story(broker.url, "orchard", Path(folder)) as story:
        print("The crew works:")
        undisturbed = story.run(kill=False)
        print(f"  -> {undisturbed}")
        story.kill_analyst()
        story.start_analyst(pause=2)
        print("The crew works again, and the analyst's host is killed between its two tasks:")
        disturbed = story.run(kill=True)
        print(f"  -> {disturbed}")
        print("Both reports are the same." if disturbed == undisturbed else "The reports differ!")
