"""The same project gives the same answers under ``balrog serve`` and under a blocking server."""

import json
import re
from urllib.parse import urlencode

import pytest
from services import manage

FORM = "Content-Type: application/x-www-form-urlencoded"


@pytest.fixture(scope="module")
def staff(env):
    """An account that may use the admin."""
    account = {
        "DJANGO_SUPERUSER_USERNAME": "cook",
        "DJANGO_SUPERUSER_PASSWORD": "lasagne",
        "DJANGO_SUPERUSER_EMAIL": "cook@example.org",
    }
    if "cook" not in manage(["shell", "-v0", "-c", USERS], env):
        manage(["createsuperuser", "--noinput"], env | account)
    return account


USERS = "from django.contrib.auth.models import User; print(list(User.objects.values_list('username')))"


@pytest.mark.parametrize("path", ["/orders/", "/api/orders/"], ids=["view", "rest"])
def test_order_is_answered_and_saved(either_site, database, run_customer, path):
    dish = f"Dish of {path} on {either_site.name}"
    response = run_customer(either_site, lambda customer: customer.order({"dish": dish, "quantity": 3}, path))
    assert response.status == 200
    row = database.execute(
        f"SELECT id, quantity, length(customer) FROM delivery_order WHERE dish = '{dish}'", "food_delivery"
    )
    number, quantity, customer = map(int, row.split("|"))
    assert response.json() == {"mins": 15 + number % 30}
    assert (quantity, customer) == (3, 32)


@pytest.mark.parametrize("path", ["/orders/", "/api/orders/"], ids=["view", "rest"])
def test_invalid_order_is_refused(either_site, run_customer, path):
    response = run_customer(either_site, lambda customer: customer.order({"dish": "", "quantity": 3}, path))
    assert response.status == 400


def test_form_without_csrf_token_is_refused(either_site, run_customer):
    async def forged(customer):
        return await customer.request("POST", "/orders/", (FORM,), b"dish=Ramen&quantity=1")

    assert run_customer(either_site, forged).status == 403


def test_rest_endpoint_takes_json(either_site, run_customer):
    async def order(customer):
        body = json.dumps({"dish": "Dal", "quantity": 2}).encode()
        return await customer.request("POST", "/api/orders/", ("Content-Type: application/json",), body)

    response = run_customer(either_site, order)
    assert response.status == 200
    assert list(response.json()) == ["mins"]


def test_admin_lists_orders_and_edits_one(either_site, staff, run_customer):
    async def visit(customer):
        assert (await customer.order({"dish": "Pierogi", "quantity": 1})).status == 200
        page = await customer.request("GET", "/admin/login/")
        token = re.search(rb'name="csrfmiddlewaretoken" value="(\w+)"', page.body)
        assert token
        form = {
            "csrfmiddlewaretoken": token[1].decode(),
            "username": staff["DJANGO_SUPERUSER_USERNAME"],
            "password": staff["DJANGO_SUPERUSER_PASSWORD"],
            "next": "/admin/",
        }
        login = await customer.request("POST", "/admin/login/", (FORM,), urlencode(form).encode())
        assert login.status == 302
        listed = await customer.request("GET", "/admin/delivery/order/")
        number = re.search(rb"/admin/delivery/order/(\d+)/change/", listed.body)
        assert listed.status == 200 and b"Pierogi" in listed.body and number
        path = f"/admin/delivery/order/{int(number[1])}/change/"
        page = await customer.request("GET", path)
        token = re.search(rb'name="csrfmiddlewaretoken" value="(\w+)"', page.body)
        form = {"csrfmiddlewaretoken": token[1].decode(), "customer": "x", "dish": "Pierogi z kapusta", "quantity": 2}
        saved = await customer.request("POST", path, (FORM,), urlencode(form).encode())
        assert saved.status == 302
        listed = await customer.request("GET", "/admin/delivery/order/")
        assert b"Pierogi z kapusta" in listed.body
        style = await customer.request("GET", "/static/admin/css/base.css")
        assert style.status == 200 and len(style.body) > 1000

    run_customer(either_site, visit)


def test_unknown_page(either_site, run_customer):
    async def visit(customer):
        return await customer.request("GET", "/no/such/page")

    assert run_customer(either_site, visit).status == 404
