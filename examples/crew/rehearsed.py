"""A language model that needs no network: its answers are scripted for this example."""

import json
import re
import time
from typing import Any

from crewai import BaseLLM


class Rehearsed(BaseLLM):
    """Gives the scripted answers of one agent: ``collector``, ``analyst`` or ``writer``.

    Attributes:
        part: The name of the agent.
        pause: Seconds that the model waits before each answer.
    """

    model: str
    part: str
    pause: float = 0.0

    def supports_function_calling(self) -> bool:
        return True

    def get_input_tokens_count(self, messages: Any, *args: Any, **options: Any) -> int:
        return len(str(messages)) // 4

    def call(self, messages: Any, tools: Any = None, *args: Any, **options: Any) -> Any:
        if self.pause:
            time.sleep(self.pause)
        said = messages if isinstance(messages, str) else "\n".join(str(each.get("content")) for each in messages)
        return getattr(self, f"_{self.part}")(said)

    def _collector(self, said: str) -> Any:
        found = re.findall(r'\{"year": \d+, "(?:tons|euros)": \d+\}', said)
        if found:
            return "\n".join(sorted(set(found)))
        wanted = [(name, year) for name in ("harvest", "price") for year in (2022, 2023, 2024)]
        return [
            {"id": f"{name}-{year}", "type": "function", "function": {"name": name, "arguments": {"year": year}}}
            for name, year in wanted
        ]

    def _analyst(self, said: str) -> str:
        by_year: dict[int, dict[str, int]] = {}
        for each in re.findall(r'\{"year": \d+, "(?:tons|euros)": \d+\}', said):
            fact = json.loads(each)
            by_year.setdefault(fact.pop("year"), {}).update(fact)
        incomes = {year: fact["tons"] * fact["euros"] for year, fact in sorted(by_year.items())}
        found = re.findall(r"(\d{4}): (\d+) euros", said)
        if not found:
            return "\n".join(f"{year}: {income} euros" for year, income in incomes.items())
        best, most = max(found, key=lambda each: int(each[1]))
        return f"{best} was the best year, with {most} euros."

    def _writer(self, said: str) -> str:
        best = re.findall(r"\d{4} was the best year, with \d+ euros\.", said)
        return f"Apples. {best[-1]}"
