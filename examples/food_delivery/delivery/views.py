"""The views: plain synchronous Django."""

import requests
from balrog.django import get_ws_connection
from django.conf import settings
from django.http import JsonResponse
from django.shortcuts import render

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


def orders(request, ws):
    """The customer's WebSocket: open for as long as the page is. `food_delivery` sends on it."""
    for _ in ws:
        pass


def page(request):
    """The order form. Gives the customer a session, by which the WebSocket is found."""
    if request.session.session_key is None:
        request.session.create()
    return render(request, "delivery/page.html")
