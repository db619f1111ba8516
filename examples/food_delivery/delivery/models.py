from django.db import models


class Order(models.Model):
    """What a customer wants to eat."""

    dish = models.CharField(max_length=100)
    address = models.CharField(max_length=200, blank=True)
    created = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"#{self.pk}: {self.dish}"

    def as_dict(self) -> dict[str, object]:
        return {"id": self.pk, "dish": self.dish, "address": self.address}
