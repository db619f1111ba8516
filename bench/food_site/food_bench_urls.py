"""The example's view, and the same as an async view."""

import httpx_view
from delivery.views import food_delivery
from django.urls import path

urlpatterns = [path("orders/", food_delivery), path("async-orders/", httpx_view.food_delivery)]
