"""SQLAlchemy's synchronous API on balrog.psycopg: many tasks, few connections."""

import time

import balrog
import balrog.sqlalchemy
import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker
from support.green import ticking


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "sqlalchemy_order"
    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int]


@pytest.fixture
def engine(postgres):
    """Twenty connections at most."""
    environ = postgres.environ()
    url = f"postgresql+balrog://{environ['PGUSER']}@/{environ['PGDATABASE']}?host={environ['PGHOST']}&port={environ['PGPORT']}"
    engine = create_engine(url, pool_size=20, max_overflow=0, pool_timeout=110)
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    engine.dispose()
    yield engine
    engine.dispose()


def place(engine, number):
    with Session(engine) as session:
        order = Order(number=number)
        session.add(order)
        session.flush()
        session.execute(text("select pg_sleep(0.005)"))
        session.commit()
        return session.get(Order, order.id).number


def test_a_thousand_tasks_on_twenty_connections(engine):
    backends = set()

    @event.listens_for(engine, "checkout")
    def seen(connection, record, proxy):
        backends.add(connection.info.backend_pid)

    with ticking() as ticks:
        numbers = balrog.run(lambda: list(balrog.map(lambda n: place(engine, n), range(1000), limit=1000)))
    assert numbers == list(range(1000))
    assert 1 < len(backends) <= 20
    assert ticks.count > 10
    assert engine.pool.checkedout() == 0
    with engine.connect() as connection:
        assert connection.scalar(text("select count(*) from sqlalchemy_order")) == 1000


def test_the_same_code_blocks_outside_of_tasks(engine):
    assert place(engine, 7) == 7


def test_the_first_connections_of_many_tasks_at_once(engine):
    def first():
        with engine.connect() as connection:
            return connection.scalar(text("select 1"))

    assert balrog.run(lambda: list(balrog.map(lambda _: first(), range(20)))) == [1] * 20


def test_cancelled_tasks_leave_the_pool_whole(engine):
    def slow():
        with engine.begin() as connection:
            connection.execute(text("insert into sqlalchemy_order(number) values (1)"))
            connection.execute(text("select pg_sleep(60)"))

    def main():
        for _ in range(3):
            tasks = [balrog.spawn(slow) for _ in range(30)]
            balrog.sleep(0.1)
            for task in tasks:
                task.cancel()
            for task in tasks:
                assert task.join(60)
                assert isinstance(task.exception(), balrog.Cancelled)
        return [place(engine, n) for n in range(3)]

    start = time.monotonic()
    assert balrog.run(main) == [0, 1, 2]
    assert time.monotonic() - start < 55
    assert engine.pool.checkedout() == 0
    with engine.connect() as connection:
        assert connection.scalar(text("select count(*) from sqlalchemy_order")) == 3


def test_a_timeout_ends_the_query(engine):
    def main():
        with engine.connect() as connection:
            with pytest.raises(TimeoutError), balrog.timeout(0.05):
                connection.execute(text("select pg_sleep(60)"))
            connection.rollback()
            return connection.scalar(text("select 2"))

    assert balrog.run(main) == 2


def test_a_pool_that_stays_empty_is_an_error(postgres, engine):
    small = create_engine(engine.url, pool_size=1, max_overflow=0, pool_timeout=0.05)

    def main():
        with small.connect():
            with pytest.raises(PoolTimeout):
                balrog.spawn(small.connect).result()
            waiting = balrog.spawn(small.connect)
            balrog.sleep(0)
        waiting.result().close()

    balrog.run(main)
    small.dispose()


def test_a_scoped_session_is_a_tasks_own(engine):
    sessions = scoped_session(sessionmaker(engine), scopefunc=balrog.sqlalchemy.task_scope)

    def work(_):
        first = sessions()
        sessions.execute(text("select pg_sleep(0.01)"))
        assert sessions() is first
        sessions.remove()
        return first

    made = balrog.run(lambda: list(balrog.map(work, range(10))))
    assert len(set(map(id, made))) == 10
