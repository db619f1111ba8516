"""An asynchronous Starlette application over a synchronous Django ORM and a synchronous SQLAlchemy session.

The functions that query are plain ones. ``as_async`` lets the endpoints await them: they run on the loop's own
thread, and wherever they wait, other requests go on. Reads the PG* variables of libpq.
"""

# Django has no types of its own.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import os

import balrog
import django
from django.conf import settings

if not settings.configured:
    settings.configure(
        INSTALLED_APPS=["balrog.django"],
        DATABASES={
            "default": {
                "ENGINE": "balrog.django.postgresql",
                "NAME": os.environ["PGDATABASE"],
                "USER": os.environ.get("PGUSER", ""),
                "HOST": os.environ.get("PGHOST", ""),
                "PORT": os.environ.get("PGPORT", ""),
                # A thousand requests at once stand in line for them, on a thread that is busy beginning them.
                "OPTIONS": {"balrog_pool": {"max_size": 20, "timeout": 300, "stall_timeout": 300}},
            }
        },
        USE_TZ=True,
    )
    django.setup()

from django.db import models
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


class Visit(models.Model):
    """Django's."""

    objects = models.Manager()
    name = models.CharField(max_length=100)

    class Meta:
        app_label = "asgi"
        db_table = "asgi_visit"


class Base(DeclarativeBase):
    pass


class Stock(Base):
    """SQLAlchemy's."""

    __tablename__ = "asgi_stock"
    id: Mapped[int] = mapped_column(primary_key=True)
    left: Mapped[int]


engine = create_engine(
    URL.create(
        "postgresql+balrog",
        username=os.environ.get("PGUSER"),
        database=os.environ["PGDATABASE"],
        query={key: os.environ[name] for key, name in (("host", "PGHOST"), ("port", "PGPORT")) if name in os.environ},
    ),
    pool_size=10,
    max_overflow=0,
    pool_timeout=300,
)


def create_tables() -> None:
    """Make both tables anew, with one article in stock."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("drop table if exists asgi_visit")
    with connection.schema_editor() as editor:
        editor.create_model(Visit)
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Stock(id=1, left=1_000_000))
        session.commit()


def visit(name: str) -> dict[str, object]:
    """Plain Django: it neither knows nor cares that a loop runs."""
    made = Visit.objects.create(name=name)
    return {"id": made.pk, "name": Visit.objects.get(pk=made.pk).name}


def take(count: int) -> dict[str, object]:
    """Plain SQLAlchemy."""
    with Session(engine) as session:
        session.execute(text("select pg_sleep(0.005)"))
        left = session.scalar(
            text('update asgi_stock set "left" = "left" - :count where id = 1 returning "left"'), {"count": count}
        )
        session.commit()
        return {"left": left}


async def visits(request: Request) -> JSONResponse:
    return JSONResponse(await balrog.as_async(visit)(request.path_params["name"]))


async def stock(request: Request) -> JSONResponse:
    return JSONResponse(await balrog.as_async(take)(int(request.path_params["count"])))


app = Starlette(routes=[Route("/visits/{name}", visits), Route("/stock/{count:int}", stock)])
