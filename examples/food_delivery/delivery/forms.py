"""The order form of the page."""

from django import forms

from delivery.models import Order


class OrderForm(forms.ModelForm):
    """What a customer fills in."""

    class Meta:
        model = Order
        fields = ["dish", "quantity", "address"]
