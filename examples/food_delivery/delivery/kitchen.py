"""Around the kitchen service: orders made ready for it, and failures turned into answers."""

import functools
import logging

import balrog
import requests
from django.conf import settings
from django.core.exceptions import BadRequest
from django.db import OperationalError
from django.http import JsonResponse

from delivery.forms import OrderForm
from delivery.models import Order

logger = logging.getLogger(__name__)


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


def failures_answered(view):
    """Wraps a view: what goes wrong around it gets an answer.

    A kitchen that fails is 502 Bad Gateway, one that takes too long 504 Gateway Timeout; a database that is away, or
    whose connections are all in use for longer than the pool waits, is 503 Service Unavailable.
    """

    @functools.wraps(view)
    def answered(request, *args, **kwargs):
        try:
            with balrog.timeout(settings.KITCHEN_TIMEOUT):
                return view(request, *args, **kwargs)
        except (TimeoutError, requests.Timeout):
            return JsonResponse({"error": "The kitchen takes too long."}, status=504)
        except (KitchenError, requests.RequestException):
            return JsonResponse({"error": "The kitchen cannot take the order now."}, status=502)
        except OperationalError:
            logger.exception("the database failed an order")
            return JsonResponse({"error": "No order can be taken now."}, status=503, headers={"Retry-After": "5"})

    return answered
