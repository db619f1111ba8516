"""The project's own tests: ``manage.py test``, with Django's test client, as in any project."""

from unittest import mock

import requests
from django.test import TestCase

from delivery.models import Order

KITCHEN = "requests.post"


def answer(status: int, body: bytes) -> requests.Response:
    """What the kitchen says."""
    response = requests.Response()
    response.status_code = status
    response._content = body
    return response


class OrderTests(TestCase):
    """Placing an order, the kitchen played by a mock."""

    def order(self, path="/orders/", **fields):
        return self.client.post(path, {"dish": "Ramen", "quantity": 2, **fields})

    def test_order_is_saved_and_answered(self):
        self.client.get("/")
        with mock.patch(KITCHEN, return_value=answer(201, b'{"mins": 20}')) as kitchen:
            response = self.order()
        self.assertEqual((response.status_code, response.json()), (200, {"mins": 20}))
        order = Order.objects.get()
        self.assertEqual((order.dish, order.quantity), ("Ramen", 2))
        self.assertEqual(order.customer, self.client.session.session_key)
        self.assertEqual(kitchen.call_args.kwargs["data"], order.as_dict())

    def test_rest_endpoint_answers_the_same(self):
        with mock.patch(KITCHEN, return_value=answer(201, b'{"mins": 20}')):
            response = self.order("/api/orders/")
        self.assertEqual((response.status_code, response.json()), (200, {"mins": 20}))
        self.assertEqual(Order.objects.count(), 1)

    def test_invalid_order_is_refused_and_not_saved(self):
        self.assertEqual(self.order(dish="").status_code, 400)
        self.assertEqual(self.order("/api/orders/", dish="").status_code, 400)
        self.assertEqual(Order.objects.count(), 0)

    def test_kitchen_that_refuses(self):
        with mock.patch(KITCHEN, return_value=answer(503, b"{}")):
            self.assertEqual(self.order().status_code, 502)

    def test_kitchen_that_talks_rubbish(self):
        with mock.patch(KITCHEN, return_value=answer(201, b"burnt")):
            self.assertEqual(self.order().status_code, 502)

    def test_kitchen_that_is_too_slow(self):
        with mock.patch(KITCHEN, side_effect=requests.ReadTimeout):
            self.assertEqual(self.order().status_code, 504)
