"""What a notebook and a terminal show for cards, tasks and errors, and what the log shows for failures.

IPython is used when it is present, and is not required. Modules of this folder import only the folder ``aio``, so every
other module may import them.
"""

from mqtt_agent.display.html import Table, card, coloured, duration, escaped, table
from mqtt_agent.display.schemas import arguments
from mqtt_agent.display.screen import Screen
from mqtt_agent.display.tasks import TaskList, TaskView
from mqtt_agent.display.tracebacks import NEXT_STEPS, short_traceback
from mqtt_agent.display.uncaught import end_quietly, set_hooks

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
    "end_quietly",
    "escaped",
    "set_hooks",
    "short_traceback",
    "table",
]
