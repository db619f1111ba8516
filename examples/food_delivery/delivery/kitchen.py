"""Around the kitchen service: orders made ready for it, and its failures turned into answers."""

import functools

import balrog
import requests
from django.conf import settings
from django.core.exceptions import BadRequest
from django.http import JsonResponse

from delivery.forms import OrderForm
from delivery.models import Order


class KitchenError(Exception):
    """The kitchen did not take the order."""


def prepare_order(request) -> Order:
    """The order that the customer has filled in, not saved yet. An invalid form is answered by 400."""
    form = OrderForm(request.POST)
    if not form.is_valid():
        raise BadRequest(form.errors.as_json())
    order = form.save(commit=False)
    order.customer = request.session.session_key or ""
    return order


def kitchen_error(resp: requests.Response):
    """Raises what the kitchen's refusal means."""
    raise KitchenError(f"the kitchen answered {resp.status_code}")


def kitchen_answers(view):
    """Wraps a view: a kitchen that fails is 502 Bad Gateway, one that takes too long 504 Gateway Timeout."""

    @functools.wraps(view)
    def answered(request, *args, **kwargs):
        try:
            with balrog.timeout(settings.KITCHEN_TIMEOUT):
                return view(request, *args, **kwargs)
        except (TimeoutError, requests.Timeout):
            return JsonResponse({"error": "The kitchen takes too long."}, status=504)
        except (KitchenError, requests.RequestException):
            return JsonResponse({"error": "The kitchen cannot take the order now."}, status=502)

    return answered
