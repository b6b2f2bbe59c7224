"""How cards, tasks and errors look in a notebook, and tasks in a terminal.

Neither IPython nor a front end of our own is needed; IPython is used when it is there. Nothing here imports anything
else of mqtt_agent, so that all else may use it.
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
