"""The Django application."""

from django.apps import AppConfig

from balrog.django import conf


class BalrogConfig(AppConfig):
    """Makes the project ready for tasks; under a blocking server nothing changes.

    Database connections become one set per task, ``requests`` runs on balrog's HTTP client, and
    ``async_to_sync`` lets other tasks run. The setting ``BALROG`` switches the last two off.
    """

    name = "balrog.django"
    label = "balrog"
    verbose_name = "balrog"

    def ready(self) -> None:
        from balrog.django import asgi_sync
        from balrog.django.connections import install

        install()
        if conf.get("ASGIREF"):
            asgi_sync.install()
        if conf.get("REQUESTS"):
            try:
                import balrog.requests
            except ImportError:  # the project does without requests
                return
            balrog.requests.install()
