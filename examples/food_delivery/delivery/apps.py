"""The app of orders and their delivery."""

from django.apps import AppConfig


class DeliveryConfig(AppConfig):
    """Orders of food, cooked by the kitchen service."""

    name = "delivery"
