"""URLs of the food delivery."""

from balrog.django import websocket
from delivery import api, views
from django.contrib import admin
from django.urls import path

urlpatterns = [
    path("", views.page, name="page"),
    path("order/", views.food_delivery, name="order"),
    path("api/orders/", api.FoodDelivery.as_view(), name="api-orders"),
    path("ws/orders/", websocket(views.orders), name="ws-orders"),
    path("admin/", admin.site.urls),
]
