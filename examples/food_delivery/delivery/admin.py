"""Orders in the admin."""

from django.contrib import admin

from delivery.models import Order


@admin.register(Order)
class OrderAdmin(admin.ModelAdmin):
    """Newest orders first, found by dish or customer."""

    list_display = ["id", "dish", "quantity", "customer", "created"]
    search_fields = ["dish", "customer"]
    ordering = ["-id"]
