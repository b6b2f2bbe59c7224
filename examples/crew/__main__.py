"""A crew whose analyst lives on another host is run twice, and the second time that host is killed in the middle.

Run it with ``make crew``. It needs no broker, no key and no network.
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
    print("Starting a broker, two tools, and an analyst, each on its own ...")
    with Story(broker.url, "orchard", Path(folder)) as story:
        print("The crew works:")
        undisturbed = story.run(kill=False)
        print(f"  -> {undisturbed}")
        story.kill_analyst()
        story.start_analyst(pause=2)
        print("Once more, and the analyst's host is killed between its two tasks:")
        disturbed = story.run(kill=True)
        print(f"  -> {disturbed}")
        print("The same report." if disturbed == undisturbed else "Another report!")
