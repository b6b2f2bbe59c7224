"""The analyst, on its own host. Usage: analyst_host.py BROKER NAMESPACE STORE LEDGER PAUSE.

The analyst is itself a crew, with two tasks. When its process is killed during the second task and started again, the
first task is not done again. Each finished task is a line in the ledger file.
"""

import sys
from pathlib import Path
from typing import Any

from crewai import Agent, Crew, Task
from crewai_mqtt_agent import serve_crew
from rehearsed import Rehearsed

broker, namespace, store, ledger, pause = sys.argv[1:6]


def write_down(output: Any) -> None:
    """Write the name of a finished task to the ledger."""
    with Path(ledger).open("a") as file:
        file.write(f"{output.name}\n")


def build_crew() -> Crew:
    """Make the crew for one request."""
    thinks, ponders = (Rehearsed(model="rehearsed", part="analyst", pause=each) for each in (0.0, float(pause)))
    accountant = Agent(role="accountant", goal="Add up", backstory="Exact.", llm=thinks)
    judge = Agent(role="judge", goal="Find out what numbers say", backstory="Thorough.", llm=ponders)
    incomes = Task(
        name="incomes", description="Incomes by year:\n{prompt}", expected_output="years and euros", agent=accountant
    )
    verdict = Task(
        name="verdict",
        description="Which was the best year?",
        expected_output="a sentence",
        agent=judge,
        context=[incomes],
    )
    return Crew(agents=[accountant, judge], tasks=[incomes, verdict], task_callback=write_down)


serve_crew(build_crew, agent_id="analyst", broker=broker, namespace=namespace, store=store, will_delay=1)
