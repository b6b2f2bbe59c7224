"""Shows the resources and prompts of all servers of a namespace to MCP clients."""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping
from typing import Any

import mcp_types as types
from mcp.shared.exceptions import MCPError
from mcp.shared.uri_template import InvalidUriTemplate, UriTemplate
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from mqtt_agent.adapting.lacking import SERVER, sentences
from mqtt_agent.adapting.logs import logger_of
from mqtt_agent.adapting.naming import model_name
from mqtt_agent.errors import CallError, InvalidArguments, MQTTAgentError, ToolFailed, ToolUnavailable
from mqtt_agent.tools import Entries, ToolClient
from mqtt_agent.wire import CONTENT_SCHEME
from pydantic import BaseModel, ValidationError

from mcp_mqtt_agent.context import Context
from mcp_mqtt_agent.hiding import hidden
from mcp_mqtt_agent.incomplete import INCOMPLETE, Lacks, lacking
from mcp_mqtt_agent.showing import offline_servers

__all__ = ["Shelf"]

logger: logging.Logger = logger_of(__name__)

_MOST_BYTES = 8 * 1024 * 1024
"""Bytes of the largest content that a client gets in one message of MCP."""
_LISTED_WITHIN = 15.0
"""Seconds that a server may take to list what it has. MCP clients often wait no longer than 30 s for a list, and a
server that does not answer must not keep the entries of the others from them."""
_OWN = "mqtt-agent/server"
"""The key in ``_meta`` that names the server of a resource or prompt."""


class Shelf:
    """The resources and prompts of a namespace.

    A prompt is shown under the name of its server and its own name. Its own name finds it too, as long as no other
    server has a prompt with this name. A resource keeps its URI, and when several servers have one URI, the first of
    them by name counts.

    Args:
        client: A started client, which asks the servers.
        lacks: Which servers are shown, and what an MCP client may count on.
    """

    def __init__(self, client: ToolClient, lacks: Lacks) -> None:
        self._client = client
        self._lacks = lacks
        self._servers: dict[str, str] = {}
        """The server of each URI that was listed."""

    async def list_resources(self, ctx: Context, params: types.PaginatedRequestParams | None) -> dict[str, Any]:
        """Answer ``resources/list``."""
        listed = await self._listed("resources")
        return self._listing(ctx, "resources", _valid(types.Resource, self._shown(listed, "uri")), listed)

    async def list_templates(self, ctx: Context, params: types.PaginatedRequestParams | None) -> dict[str, Any]:
        """Answer ``resources/templates/list``."""
        listed = await self._listed("templates")
        shown = self._shown(listed, "uriTemplate")
        return self._listing(ctx, "resourceTemplates", _valid(types.ResourceTemplate, shown), listed)

    async def list_prompts(self, ctx: Context, params: types.PaginatedRequestParams | None) -> dict[str, Any]:
        """Answer ``prompts/list``."""
        listed = await self._listed("prompts")
        prompts = [_described(prompt) | {"name": name} for name, prompt in _named(listed).items()]
        return self._listing(ctx, "prompts", _valid(types.Prompt, prompts), listed)

    async def read_resource(self, ctx: Context, params: types.ReadResourceRequestParams) -> dict[str, Any]:
        """Answer ``resources/read``. A URI that was not listed may belong to a template of any server."""
        uri = str(params.uri)
        if uri.startswith(CONTENT_SCHEME):
            return _cacheable(ctx, await self._content(uri))
        failures = list[MCPError]()
        for server in await self.servers_for(uri):
            try:
                return _cacheable(ctx, await self._ask(server, "resources/read", {"uri": uri}))
            except MCPError as error:
                failures.append(error)
        raise failures[0] if failures else await self._unknown("resources", f"Unknown resource: {uri}", {"uri": uri})

    async def servers_for(self, uri: str) -> list[str]:
        """The server of a resource that is listed, else those that may have it: first those with a template for it."""
        if uri not in self._servers:
            self._shown(await self._listed("resources"), "uri")
        if uri in self._servers:
            return [self._servers[uri]]
        templates = await self._listed("templates")
        fitting = {each["server"] for each in templates if _fits(uri, each.get("uriTemplate"))}
        return sorted({each["server"] for each in templates}, key=lambda server: (server not in fitting, server))

    async def _content(self, uri: str) -> dict[str, Any]:
        """The bytes of a content that a tool has shared with this client, if they are few enough for a message."""
        try:
            content = await self._client.open_content(uri, keep=True)
            about = {"uri": uri, "mimeType": content.mime_type or "application/octet-stream"}
            return {"contents": [{**about, "blob": base64.b64encode(await content.read(_MOST_BYTES)).decode()}]}
        except (ValueError, CallError) as error:
            raise MCPError(types.INVALID_PARAMS, str(error)) from error
        except MQTTAgentError as error:
            raise hidden(error, "the content cannot be read") from error

    async def get_prompt(self, ctx: Context, params: types.GetPromptRequestParams) -> dict[str, Any]:
        """Answer ``prompts/get``."""
        prompt = await self._prompt(params.name)
        asked: dict[str, Any] = {"name": prompt["name"]}
        if params.arguments is not None:
            asked["arguments"] = params.arguments
        return _complete(ctx, await self._ask(prompt["server"], "prompts/get", asked))

    async def complete(self, ctx: Context, params: types.CompleteRequestParams) -> dict[str, Any]:
        """Answer ``completion/complete``."""
        asked = params.model_dump(by_alias=True, mode="json", exclude_none=True, exclude={"meta"})
        ref: dict[str, Any] = asked["ref"]
        if "name" in ref:
            prompt = await self._prompt(ref["name"])
            server, ref["name"] = prompt["server"], prompt["name"]
        else:
            server = self._servers.get(ref["uri"], "")
            if not server:
                self._shown(await self._listed("templates"), "uriTemplate")
                server = self._servers.get(ref["uri"], "")
        if not server:
            raise await self._unknown("templates", f"Unknown reference: {ref}")
        return _complete(ctx, await self._ask(server, "completion/complete", asked))

    async def _prompt(self, name: str) -> dict[str, Any]:
        prompts = _named(await self._listed("prompts"))
        own = [each for each in prompts.values() if each["name"] == name]
        prompt = prompts.get(name) or (own[0] if len(own) == 1 else None)
        if prompt is None:
            raise await self._unknown("prompts", f"Unknown prompt: {name}")
        return prompt

    async def _unknown(self, what: str, message: str, data: Any = None) -> MCPError:
        """The error for something that no server lists; another one when a server could not be asked."""
        listed = await self._listed(what)
        if listed.incomplete:
            return lacking(f"{message}; not all servers could be asked now", listed.incomplete)
        return MCPError(types.INVALID_PARAMS, message, data)

    async def _listed(self, what: str) -> Entries:
        client = self._client
        lists = {
            "resources": client.list_resources,
            "templates": client.list_resource_templates,
            "prompts": client.list_prompts,
        }
        try:
            listed = await lists[what](self._lacks.servers, timeout=_LISTED_WITHIN)
            offline = await offline_servers(client, self._lacks)
        except MQTTAgentError as error:
            raise hidden(error, f"the {what} cannot be listed") from error
        offline = {name: why for name, why in offline.items() if name not in listed.missing}
        listed.missing |= offline
        listed.incomplete += sentences(SERVER, offline)
        self._lacks.show({each["server"] for each in listed})
        return listed

    def _listing(self, ctx: Context, key: str, entries: list[dict[str, Any]], listed: Entries) -> dict[str, Any]:
        """The answer to a request for a list, which says what the list lacks."""
        said = self._lacks.of("not all servers could be asked", entries, listed.incomplete, listed.missing)
        return _cacheable(ctx, {key: entries} | ({"_meta": {INCOMPLETE: said}} if said else {}))

    def _shown(self, entries: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for entry in entries:
            if isinstance(entry.get(key), str):
                found.setdefault(entry[key], entry)
        self._servers.update({uri: entry["server"] for uri, entry in found.items()})
        return [_described(entry) for entry in found.values()]

    async def _ask(self, server: str, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        try:
            result = await self._client.request(server, method, params)
        except ToolFailed as error:
            code = error.code if error.code is not None and error.code.lstrip("-").isdecimal() else None
            message = str(error).removeprefix(f"{server}: ")
            raise MCPError(types.INTERNAL_ERROR if code is None else int(code), message, error.data) from error
        except InvalidArguments as error:
            raise MCPError(types.INVALID_PARAMS, str(error).removeprefix(f"{server}: "), error.data) from error
        except ToolUnavailable as error:
            raise MCPError(types.INVALID_PARAMS, str(error)) from error
        except MQTTAgentError as error:
            raise hidden(error, "the server cannot be asked") from error
        return dict(result) if isinstance(result, dict) else {}


def _named(listed: Entries) -> dict[str, dict[str, Any]]:
    named = (each for each in listed if isinstance(each.get("name"), str))
    return {model_name(f"{each['server']}.{each['name']}"): each for each in named}


def _fits(uri: str, template: Any) -> bool:
    try:
        return isinstance(template, str) and UriTemplate.parse(template).match(uri) is not None
    except InvalidUriTemplate:
        return False


def _described(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry of a list without the field that is ours; ``_meta`` names the server."""
    shown = {key: each for key, each in entry.items() if key != "server"}
    meta = entry.get("_meta")
    return shown | {"_meta": {**(meta if isinstance(meta, dict) else {}), _OWN: entry["server"]}}


def _valid(kind: type[BaseModel], entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries that MCP can show. One invalid entry hides no other."""
    valid = list[dict[str, Any]]()
    for entry in entries:
        try:
            kind.model_validate(entry, by_name=False)
            valid.append(entry)
        except ValidationError as error:
            logger.warning("an entry is left out, because MCP cannot show it: %s", error)
    return valid


def _cacheable(ctx: Context, result: dict[str, Any]) -> dict[str, Any]:
    """Finish a result that a client of 2026 may keep. Nothing tells how long it stays true, so it is not kept."""
    if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS:
        result = {"ttlMs": 0, "cacheScope": "private"} | result
    return _complete(ctx, result)


def _complete(ctx: Context, result: dict[str, Any]) -> dict[str, Any]:
    """Finish a result as the client's protocol has it."""
    result = {key: each for key, each in result.items() if key not in ("resultType", "nextCursor")}
    return result | ({"resultType": "complete"} if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS else {})
