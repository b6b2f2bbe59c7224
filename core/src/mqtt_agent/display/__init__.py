"""What a notebook shows for cards, tasks and errors, and what a terminal shows for tasks.

IPython is used when it is present, and is not required. Modules of this folder import nothing else of mqtt_agent, so
every other module may import them.
"""

from mqtt_agent.display.html import Table, card, coloured, duration, escaped, table
from mqtt_agent.display.schemas import arguments
from mqtt_agent.display.screen import Screen
from mqtt_agent.display.tasks import TaskList, TaskView
from mqtt_agent.display.tracebacks import NEXT_STEPS, short_traceback

__all__ = [
    "NEXT_STEPS",
    "Screen",
    "Table",
    "TaskList",
    "TaskView",
    "arguments",
    "card",
    "coloured",
    "duration",
    "escaped",
    "short_traceback",
    "table",
]
