"""`/metrics`, for Prometheus."""

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from distllm.service.desk import DESK
from distllm.service.instruments import Instruments
from distllm.service.room import Room
from distllm.store.depth import depth

PREFIX = "/metrics"


def metrics_room(instruments: Instruments) -> Room:
    """What was counted, and what the database has, at the moment of asking."""

    async def show(request: web.Request) -> web.Response:
        read = request.app[DESK].database.read
        text = instruments.show(await depth(read), await read.workers())
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    return Room(PREFIX, [web.get(PREFIX, show)])
