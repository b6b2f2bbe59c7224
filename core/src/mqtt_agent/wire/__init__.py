"""The wire format of MQTT.Agent v0.1: messages, topics and identifiers. No module here does any I/O."""

from typing import TYPE_CHECKING

from mqtt_agent.deprecation import renamed_names
from mqtt_agent.wire.agents import AGENT_FEATURES, AgentCard, AgentSkill, AgentStatus, MemberNote
from mqtt_agent.wire.bound_topics import BOUND, BoundTopics
from mqtt_agent.wire.calls import (
    LOG_LEVELS,
    Call,
    CallFault,
    Cancel,
    ErrorType,
    InputAnswer,
    Query,
    Request,
    Response,
    StreamMessage,
    read_error_type,
)
from mqtt_agent.wire.cards import FEATURES, ServerCard, Status, ToolAnnotations, ToolCard, VersionInfo
from mqtt_agent.wire.contents import (
    CONTENT_SCHEME,
    ContentChunk,
    content_uri,
    decode_chunk,
    encode_chunk,
    read_content_uri,
)
from mqtt_agent.wire.events import ServerEvent
from mqtt_agent.wire.identifiers import (
    is_identifier,
    new_call_id,
    new_task_id,
    normalize_namespace,
    validate_identifier,
)
from mqtt_agent.wire.messages import (
    CONTENT_TYPE,
    DEFAULT_MAX_PAYLOAD,
    Message,
    checked_json,
    decode,
    encode,
    read_time,
    to_json,
    utc_now,
)
from mqtt_agent.wire.parts import Part, content_of_parts, parts_of_content
from mqtt_agent.wire.tasks import (
    ASKING,
    TERMINAL,
    Artifact,
    Control,
    Task,
    TaskEvent,
    TaskFault,
    TaskMessage,
    TaskResult,
    TaskState,
    read_result_state,
)
from mqtt_agent.wire.topics import DEFAULT_NAMESPACE, Topics
from mqtt_agent.wire.values import mended_text

__all__ = [
    "AGENT_FEATURES",
    "ASKING",
    "BOUND",
    "CONTENT_SCHEME",
    "CONTENT_TYPE",
    "DEFAULT_MAX_PAYLOAD",
    "DEFAULT_NAMESPACE",
    "FEATURES",
    "LOG_LEVELS",
    "TERMINAL",
    "AgentCard",
    "AgentSkill",
    "AgentStatus",
    "Artifact",
    "BoundTopics",
    "Call",
    "CallFault",
    "Cancel",
    "ContentChunk",
    "Control",
    "ErrorType",
    "InputAnswer",
    "MemberNote",
    "Message",
    "Part",
    "Query",
    "Request",
    "Response",
    "ServerCard",
    "ServerEvent",
    "Status",
    "StreamMessage",
    "Task",
    "TaskEvent",
    "TaskFault",
    "TaskMessage",
    "TaskResult",
    "TaskState",
    "ToolAnnotations",
    "ToolCard",
    "Topics",
    "VersionInfo",
    "checked_json",
    "content_of_parts",
    "content_uri",
    "decode",
    "decode_chunk",
    "encode",
    "encode_chunk",
    "is_identifier",
    "mended_text",
    "new_call_id",
    "new_task_id",
    "normalize_namespace",
    "parts_of_content",
    "read_content_uri",
    "read_error_type",
    "read_result_state",
    "read_time",
    "to_json",
    "utc_now",
    "validate_identifier",
]

if TYPE_CHECKING:  # type checkers know the old name too, for code that still uses it
    CallError = CallFault
else:
    __getattr__ = renamed_names(__name__, {"CallError": "CallFault"})
