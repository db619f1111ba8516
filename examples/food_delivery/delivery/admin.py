from django.contrib import admin

from delivery.models import Order


@admin.register(Order)
class OrderAdmin(admin.ModelAdmin):
    list_display = ["id", "dish", "address", "created"]
