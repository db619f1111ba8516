"""``ENGINE = "balrog.django.postgresql"``."""
