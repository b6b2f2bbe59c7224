"""Keeps requests to a public remote agent out of private networks, also when its names change their addresses."""

from __future__ import annotations

from urllib.request import getproxies

import httpx

from a2a_mqtt_agent.pushing import public_address

__all__ = ["Pinning"]


class Pinning:
    """Sends each request to an address that was checked, once the remote agent was found at a public address.

    Whoever owns the name of the remote agent, or a name on its card, can let it stand for an address in this network
    later. Nothing is checked for an agent in a private network, which its user has named, and behind a proxy, which
    looks the names up itself.
    """

    def __init__(self) -> None:
        self._on = False

    async def begin(self, base: httpx.URL) -> None:
        """Check all further requests, if the address of the remote agent is public now.

        Args:
            base: The address of the remote agent.
        """
        try:
            public = await public_address(base.host, base.port or 443) is not None
        except (OSError, UnicodeError):
            return
        self._on = public and not getproxies().keys() & {"http", "https", "all"}

    async def pin(self, request: httpx.Request) -> None:
        """Send a request to the address that is checked here, whatever the name stands for a moment later.

        Raises:
            httpx.ConnectError: The host of the request has no address, or no public one.
        """
        if not self._on:
            return
        url = request.url
        try:
            address = await public_address(url.host, url.port or 443)
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError(f"{url.host} has no address: {error}", request=request) from error
        if address is None:
            raise httpx.ConnectError(f"{url.host} is no public host any more, so it gets nothing", request=request)
        request.extensions = {**request.extensions, "sni_hostname": url.host}
        request.url = url.copy_with(host=address)  # the Host header was made before, and stays
