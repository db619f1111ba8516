"""The same endpoint with Django REST framework."""

import requests
from balrog.django import get_ws_connection
from django.conf import settings
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from delivery.models import Order


class OrderSerializer(serializers.ModelSerializer):
    class Meta:
        model = Order
        fields = ["id", "dish", "address"]


class FoodDelivery(APIView):
    def post(self, request: Request) -> Response:
        serializer = OrderSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        order = serializer.save()
        kitchen = requests.post(settings.KITCHEN_SERVICE, data=order.as_dict(), timeout=settings.KITCHEN_TIMEOUT)
        if kitchen.status_code != 201:
            return Response({"kitchen": kitchen.status_code}, status=status.HTTP_502_BAD_GATEWAY)
        mins = kitchen.json()["mins"]
        get_ws_connection(request).send(f"Order #{order.id} will be delivered in {mins} minutes.")
        return Response(serializer.data | {"mins": mins}, status=status.HTTP_201_CREATED)

    def get(self, request: Request) -> Response:
        return Response(OrderSerializer(Order.objects.order_by("-id")[:20], many=True).data)
