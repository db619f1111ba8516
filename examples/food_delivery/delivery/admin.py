from delivery.models import Order
from django.contrib import admin


@admin.register(Order)
class OrderAdmin(admin.ModelAdmin):
    list_display = ["id", "dish", "address", "created"]
