"""The same endpoint in Django REST framework."""

import requests
from balrog.django import get_ws_connection
from django.conf import settings
from rest_framework.response import Response
from rest_framework.views import APIView

from delivery.kitchen import kitchen_error
from delivery.serializers import OrderSerializer


class OrderView(APIView):
    """Places an order and answers when it will be delivered."""

    def post(self, request):
        serializer = OrderSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        order = serializer.save(customer=request.session.session_key or "")
        resp = requests.post(settings.KITCHEN_SERVICE, data=order.as_dict())
        match resp.status_code, resp.json():
            case 201, {"mins": mins} as when:
                ws = get_ws_connection(request)
                ws.send(f"Order #{order.id} will be delivered in {mins} minutes.")
                return Response(when)
            case _:
                kitchen_error(resp)
