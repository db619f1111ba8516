"""What customers order."""

from django.db import models


class Order(models.Model):
    """One order of one customer."""

    customer = models.CharField(max_length=40, db_index=True, help_text="session of the customer")
    dish = models.CharField(max_length=100)
    quantity = models.PositiveSmallIntegerField(default=1)
    address = models.CharField(max_length=200, blank=True)
    created = models.DateTimeField(auto_now_add=True)

    def __str__(self):
        return f"Order #{self.pk}: {self.quantity} x {self.dish}"

    def as_dict(self):
        """The order as the kitchen wants it."""
        return {"id": self.pk, "dish": self.dish, "quantity": self.quantity, "address": self.address}
