"""What the views need around an order."""

from typing import NoReturn

import requests
from django.core.exceptions import BadRequest
from django.http import HttpRequest

from delivery.models import Order


class KitchenError(Exception):
    """The kitchen did not take an order."""


def prepare_order(request: HttpRequest) -> Order:
    """The order of a submitted form; ``BadRequest`` if it names no dish."""
    dish = request.POST.get("dish", "").strip()
    if not 0 < len(dish) <= 100:
        raise BadRequest("an order names a dish of at most 100 characters")
    return Order(dish=dish, address=request.POST.get("address", "")[:200])


def kitchen_error(response: requests.Response) -> NoReturn:
    """Says what the kitchen answered instead of taking the order."""
    raise KitchenError(f"the kitchen answered {response.status_code}: {response.text[:200]!r}")
