"""Python imports this module when a process starts: its endpoints then use the logins of a guarded broker."""

import os

if "MQTT_AGENT_TEST_LOGINS" in os.environ:
    from logins import LOGINS, take_logins

    take_logins(os.environ[LOGINS])
