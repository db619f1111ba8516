"""The Django application."""

from django.apps import AppConfig

from balrog.django import conf


class BalrogConfig(AppConfig):
    name = "balrog.django"
    label = "balrog"
    verbose_name = "balrog"

    def ready(self) -> None:
        from balrog.django.connections import install

        install()
        if conf.get("REQUESTS"):
            try:
                import balrog.requests
            except ImportError:  # the project does without requests
                return
            balrog.requests.install()
