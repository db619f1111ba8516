import requests
from balrog.django import get_ws_connection
from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.csrf import ensure_csrf_cookie

from delivery.kitchen import kitchen_error, prepare_order
from delivery.models import Order


def food_delivery(request):
    order: Order = prepare_order(request)
    order.save()
    resp = requests.post(settings.KITCHEN_SERVICE, data=order.as_dict())
    match resp.status_code, resp.json():
        case 201, {"mins": mins} as when:
            ws = get_ws_connection(request)
            ws.send(f"Order #{order.id} will be delivered in {mins} minutes.")
            return JsonResponse(when)
        case _:
            kitchen_error(resp)


def orders(request: HttpRequest, ws) -> None:
    """The customer's WebSocket: messages come from other views; it only has to stay open."""
    for _ in ws:
        pass


@ensure_csrf_cookie
def page(request: HttpRequest) -> HttpResponse:
    return render(request, "delivery/page.html")
