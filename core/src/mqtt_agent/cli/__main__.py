"""The command line as ``python -m mqtt_agent.cli``."""

from mqtt_agent.cli.main import main

if __name__ == "__main__":
    main()
