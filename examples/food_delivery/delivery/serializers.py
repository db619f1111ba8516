"""Orders in the REST API."""

from rest_framework import serializers

from delivery.models import Order


class OrderSerializer(serializers.ModelSerializer):
    """What a customer may set."""

    class Meta:
        model = Order
        fields = ["dish", "quantity", "address"]
