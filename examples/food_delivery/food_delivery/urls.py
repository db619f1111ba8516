"""Routes of the project."""

from balrog.django import websocket
from delivery.api import OrderView
from delivery.kitchen import failures_answered
from delivery.views import food_delivery, orders, page
from django.contrib import admin
from django.contrib.staticfiles.views import serve
from django.urls import path

urlpatterns = [
    path("", page),
    path("orders/", failures_answered(food_delivery)),
    path("api/orders/", failures_answered(OrderView.as_view())),
    path("ws/orders/", websocket(orders)),
    path("admin/", admin.site.urls),
    # An example serves its own assets; a real site leaves them to its front server.
    path("static/<path:path>", serve, {"insecure": True}),
]
