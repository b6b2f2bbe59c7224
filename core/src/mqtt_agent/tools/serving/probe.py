"""Finds out whether the process behind a server card is still there: a broker that was killed sent no Last Wills."""

from __future__ import annotations

import logging

from mqtt_agent.errors import TopicNotAuthorized
from mqtt_agent.tools.serving.scope import Scope
from mqtt_agent.transport.reasons import NO_MATCHING_SUBSCRIBERS
from mqtt_agent.wire import BOUND, Query, ServerCard, encode, new_call_id

__all__ = ["nobody_listens"]

logger: logging.Logger = logging.getLogger(__name__)


async def nobody_listens(scope: Scope, card: ServerCard) -> bool:
    """Whether the broker says that no client is subscribed to the query topic of a server.

    Args:
        scope: What all parts of the asking server share.
        card: The card of the other server.

    Returns:
        False also when the broker does not say whether a client is subscribed, or forbids the query, and when the
        servers use no topics in common.

    Raises:
        TransportError: The connection ended.
    """
    dialect = scope.dialect
    if dialect.bound and BOUND in (card.features or ()):
        topic = scope.topics.bound.query(card.server, scope.server_id)
    elif dialect.plain:
        topic = scope.topics.server_query(card.server)
    else:
        return False
    query = Query(query_id=new_call_id(), call_ids=[], client=scope.server_id)
    try:
        code = await scope.connection.publish(topic, encode(query))
    except TopicNotAuthorized as error:
        logger.debug("only the Last Will of server %s can report that it is gone: %s", card.server, error)
        return False
    return code == NO_MATCHING_SUBSCRIBERS
