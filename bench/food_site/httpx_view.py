"""The example's view as a team would write it for ASGI: httpx and Django's async ORM."""

from delivery.kitchen import kitchen_error, prepare_order
from django.conf import settings
from django.http import JsonResponse

_client = None


def client():
    """One client for all requests, so that connections are reused."""
    global _client
    if _client is None:
        import httpx

        _client = httpx.AsyncClient(
            timeout=30, limits=httpx.Limits(max_connections=None, max_keepalive_connections=500)
        )
    return _client


async def food_delivery(request):
    order = prepare_order(request)
    await order.asave()
    resp = await client().post(settings.KITCHEN_SERVICE, data=order.as_dict())
    match resp.status_code, resp.json():
        case 201, {"mins": _} as when:
            return JsonResponse(when)
        case _:
            kitchen_error(resp)
